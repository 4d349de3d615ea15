"""Lines that people copy: how to pull, run and check an image. Every word from outside is quoted for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace

from torchstrata.catalogue.exhibits import AttachedDocument, Catalogue, Exhibit
from torchstrata.containers.description import of_image
from torchstrata.containers.launchers import ELSEWHERE, RENDERERS, Launcher, has_its_service
from torchstrata.platforms import MACHINES, PLATFORM
from torchstrata.store.digest import DIGEST


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


def launchers(catalogue: Catalogue, image: Exhibit) -> dict[Launcher, Mapping[str, str]]:
    """Return the files that start a container of an image, text by path, by launcher; other machines' only where they can pull it.

    A launcher of a service that the image lacks has none.
    """
    called = image.tag.rpartition(":")[2] or f"{image.cell}-{image.image}"
    title = image.labels.get("org.opencontainers.image.description", called)
    wanted = of_image(_pinned(catalogue, image), tag=called, title=title, endpoints=image.endpoints, cuda=bool(image.wheels_cuda))
    fitting = (launcher for launcher in RENDERERS if has_its_service(launcher, wanted))
    chosen = [launcher for launcher in fitting if catalogue.place or launcher not in ELSEWHERE]
    platform = image.platform if image.platform in MACHINES else PLATFORM
    return {launcher: RENDERERS[launcher](replace(wanted, platform=platform, is_for_anybody=True)) for launcher in chosen}


def _pinned(catalogue: Catalogue, image: Exhibit) -> str:
    """Return the image by its name and its digest, as files for people have it."""
    named = name(catalogue, image)
    return named if "@" in named or image.digest in named else f"{named}@{image.digest}"


def checks(catalogue: Catalogue, image: Exhibit) -> dict[str, str]:
    """Return the lines by which anybody checks signatures, by the key of their title; none for images of an engine."""
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
