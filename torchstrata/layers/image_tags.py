"""What a tag in a registry names today: the digest of its image for our platform.

buildx asks, so that logins, mirrors and certificate authorities are those of builders: Docker's configuration, the
builder's own configuration, and the mirrors of the public registry that the engine knows.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from torchstrata import process
from torchstrata.errors import AbsentError, CommandError, RegistryAuthError, RegistryError
from torchstrata.image import oci
from torchstrata.image.compose import sha256
from torchstrata.image.oci import Descriptor, ManifestOrIndex, Platform
from torchstrata.store.layer import PLATFORM

INSPECT: Final = ("docker", "buildx", "imagetools", "inspect")

PUBLIC: Final = "docker.io/"
"""The registry that an engine's mirrors stand for."""

GONE: Final = re.compile(r"not found|manifest unknown|name unknown", re.IGNORECASE)
REFUSED: Final = re.compile(r"unauthorized|authorization failed|denied|forbidden|no basic auth", re.IGNORECASE)

ABSENT_FIX: Final = "name a tag that exists as `image:` in matrix.yaml, then run `inv lock --os`; of a digest that is gone: run `inv lock --os`"


def pinned(image: str, platform: str = PLATFORM) -> str:
    """Return ``image``, a name with a tag, with the digest of its manifest for a platform.

    :raises AbsentError: the registry has no such tag.
    :raises RegistryAuthError: it wants a login, or refuses the login of this user.
    :raises RegistryError: it does not answer, or has nothing for that platform.
    :raises CommandError: docker is not installed.
    """
    failed: RegistryError | None = None
    for asked in (*_at_mirrors(image), image):
        try:
            return f"{image}@{_digest(asked, platform)}"
        except RegistryError as error:
            failed = error
    assert failed is not None
    raise failed


def refusal(image: str, words: str) -> RegistryError:
    """Return the error for what a builder says when it cannot have an image."""
    if GONE.search(words) and not REFUSED.search(words):
        return AbsentError(f"the registry has no {image}", fix=ABSENT_FIX)
    if REFUSED.search(words):
        return RegistryAuthError(f"the registry does not let you have {image}: {words}", fix=f"docker login {image.partition('/')[0]}")
    return RegistryError(f"{image} cannot be had: {words}", fix="check that its registry can be reached: docker buildx imagetools inspect " + image)


def _at_mirrors(image: str) -> Iterator[str]:
    """Yield the names of an image of the public registry at the engine's mirrors; none if it does not answer.

    A mirror whose address is none is passed over, as one that is gone.
    """
    if not image.startswith(PUBLIC):
        return
    try:
        told = json.loads(process.run("docker", "info", "--format", "{{json .RegistryConfig}}"))
    except (CommandError, ValueError):
        return
    for mirror in (told or {}).get("Mirrors") or ():
        with contextlib.suppress(ValueError):
            place = urlsplit(mirror)
            yield f"{place.netloc}{place.path.rstrip('/')}/{image.removeprefix(PUBLIC)}"


def _digest(image: str, platform: str) -> str:
    content = _asked(image, "--raw").encode()
    document = oci.manifest(content, image)
    manifests = document.children if document.manifests is not None else (_itself(image, content, document),)
    fitting = [manifest.digest for manifest in manifests if _name(manifest.platform) == platform]
    if not fitting:
        offered = ", ".join(sorted({_name(manifest.platform) for manifest in manifests})) or "nothing"
        raise RegistryError(f"{image} has no image for {platform}, but for {offered}", fix="name another image of the OS in matrix.yaml")
    return fitting[0]


def _itself(image: str, content: bytes, document: ManifestOrIndex) -> Descriptor:
    """Return the descriptor of an image without an index; only its config tells the platform."""
    told = oci.read(_asked(image, "--format", "{{json .Image}}").encode(), Platform, image)
    return Descriptor(digest=sha256(content), size=len(content), media_type=document.media_type, platform=told)


def _name(platform: Platform | None) -> str:
    return f"{platform.os}/{platform.architecture}" if platform else "unknown"


def _asked(image: str, *options: str) -> str:
    try:
        return process.run(*INSPECT, *options, "--", image)
    except process.Failed as error:
        last = [line.removeprefix("ERROR: ") for line in error.tail.splitlines() if line.strip()][-1:] or [error.what]
        raise refusal(image, last[0]) from error
