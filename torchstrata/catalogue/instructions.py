"""Lines that people copy: how to pull, run and check an image. Every word from outside is quoted for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from torchstrata.catalogue.contents import AttachedDocument, Catalogue, Exhibit
from torchstrata.store.digest import DIGEST

WORKSPACE: Final = ("-v", '"$PWD":/workspace')
SSH: Final = 22
HOST_PORTS: Final[Mapping[int, int]] = {SSH: 2222}
"""Ports that a host has another use for."""


def reference(catalogue: Catalogue, image: Exhibit) -> str:
    """Return what names the image by digest; by its ID, in an engine."""
    return f"{catalogue.place}@{image.digest}" if catalogue.place else image.digest


def name(catalogue: Catalogue, image: Exhibit) -> str:
    """Return what names the image by a tag that people know; by digest if it has none."""
    if not image.tag:
        return reference(catalogue, image)
    return f"{catalogue.place}:{image.tag}" if catalogue.place else image.tag


def pull(catalogue: Catalogue, image: Exhibit) -> str:
    """Return the line that pulls an image; none is needed of an engine's own."""
    return shlex.join(("docker", "pull", reference(catalogue, image))) if catalogue.place else ""


def run(catalogue: Catalogue, image: Exhibit) -> str:
    """Return the line that runs an image: with GPUs if it has CUDA, the services on loopback, and this directory as workspace."""
    published = [f"-p 127.0.0.1:{HOST_PORTS.get(port, port)}:{port}" for port in reversed(image.ports)]
    gpus = ["--gpus all"] if image.wheels_cuda else []
    key = ['-e SSH_PUBLIC_KEY="$(cat ~/.ssh/id_ed25519.pub)"'] if SSH in image.ports else []
    words = ["docker run -it --rm", *gpus, "--shm-size 8g", *published, *key, " ".join(WORKSPACE), shlex.quote(reference(catalogue, image))]
    return " \\\n  ".join(words)


def checks(catalogue: Catalogue, image: Exhibit) -> dict[str, str]:
    """Return the lines by which anybody checks signatures, by the key of their title; nothing for images of an engine."""
    if not catalogue.place:
        return {}
    where = shlex.quote(reference(catalogue, image))
    return {
        "check.all": f"inv verify-release {where} --key cosign.pub",
        "check.signature": f"cosign verify --key cosign.pub --insecure-ignore-tlog {where}",
        "check.sbom": f"cosign verify-attestation --key cosign.pub --insecure-ignore-tlog --type cyclonedx --new-bundle-format {where}",
        "check.discover": f"oras discover {where}",
    }


def fetch(catalogue: Catalogue, document: AttachedDocument) -> str:
    """Return the line that writes an attached document as a file."""
    assert DIGEST.fullmatch(document.digest)
    return shlex.join(("oras", "pull", f"{catalogue.place}@{document.digest}"))
