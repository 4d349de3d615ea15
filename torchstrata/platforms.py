"""Platforms of images, as OCI names them (image specification, config.md; values of Go's GOARCH): ``linux/arm64``.

Debian calls its ports for them by the same words (``amd64``, ``arm64``); wheels and the kernel have words of their own.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Final

from torchstrata.errors import PlatformError
from torchstrata.text import printable

PLATFORM: Final = "linux/amd64"
"""The default platform. Identities include it; those of payload leave it out: wheels tell what they are for."""

MACHINES: Final[Mapping[str, str]] = {PLATFORM: "x86_64", "linux/arm64": "aarch64"}
"""The known platforms, the default one first, with the machine as ``uname -m`` and the tags of wheels have it."""


def check(name: str) -> str:
    """Return the name of a platform that is known.

    :raises PlatformError: none is called so.
    """
    if name not in MACHINES:
        raise PlatformError(f"{printable(name, 40)!r} is no platform of images", fix=f"give one of {', '.join(MACHINES)}")
    return name


def architecture(name: str) -> str:
    """Return the architecture of a platform, as OCI and Debian call it: ``arm64``."""
    return name.rpartition("/")[2]


def suffix(name: str) -> str:
    """Return what names on this machine end with: nothing on the default platform, else such as ``-arm64``."""
    return "" if name == PLATFORM else f"-{architecture(name)}"


def named(*names: str) -> str | None:
    """Return the platform that names on this machine end with, but for the default one, which has no ending."""
    return next((platform for platform in MACHINES if platform != PLATFORM and any(name.endswith(suffix(platform)) for name in names)), None)


def here() -> str:
    """Return this machine's platform; the default one where it is none of those that are known."""
    return next(filter(is_native, MACHINES), PLATFORM)


def foreign(name: str) -> str | None:
    """Return a platform where engines have to be told, since it is not this machine's."""
    return None if is_native(name) else name


def is_native(name: str) -> bool:
    """Return whether this machine runs programs of a platform by itself."""
    return platform.machine() == MACHINES[name]
