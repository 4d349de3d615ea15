"""Names in registries, ``host[:port]/repository[:tag][@digest]``: the grammar of the distribution specification 1.1."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

from torchstrata.errors import RegistryError
from torchstrata.store.digest import DIGEST
from torchstrata.text import printable

COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
REPOSITORY: Final = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
"""Section "Pulling manifests"."""

TAGS: Final = 129
"""Characters of a colon and a tag."""

TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

LONGEST: Final = 255
"""Characters of a host with its repository; the specification tells clients to count on no more."""

LABEL: Final = 63
"""Characters between two dots of a host (RFC 1035, 2.3.4)."""

PORTS: Final = range(1, 65_536)

SCHEMES: Final = ("https", "http")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A manifest in a registry.

    :param host: with its port, if it has one.
    :param repository: such as ``team/pytorch-cuda``.
    :param tag: if one was given.
    :param digest: ``sha256:...``, if one was given; then it decides, and the tag is only told.
    """

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what ``text`` names. The host is required: nothing is guessed.

        :raises RegistryError: it is no such name.
        """
        rest, _, digest = text.partition("@")
        host, _, path = rest.partition("/")
        repository, colon, tag = path.partition(":")
        if len(rest) > LONGEST + TAGS:
            raise _wrong(text, f"it has {len(rest)} characters")
        if not (_is_host(host) and (host == "localhost" or any(mark in host for mark in ".:"))):
            raise _wrong(text, f"its first part, {printable(host, 80)!a}, is no registry's host")
        if not REPOSITORY.fullmatch(repository):
            raise _wrong(text, f"{printable(repository, 80)!a} is no repository: lower case letters, digits and single . _ - between them")
        if colon and not TAG.fullmatch(tag):
            raise _wrong(text, f"{printable(tag, 80)!a} is no tag")
        if "@" in text and not DIGEST.fullmatch(digest):
            raise _wrong(text, f"{printable(digest, 80)!a} is no digest")
        return cls(host=host, repository=repository, tag=tag or None, digest=digest or None)

    @property
    def name(self) -> str:
        """What identifies the manifest in its repository: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A registry and a path in it, under which repositories lie: ``registry.example:5000/team``.

    :param scheme: how the registry is spoken to, if that was given: ``https`` or ``http``.
    """

    host: str
    path: str
    scheme: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the place that ``text`` names.

        :raises RegistryError: it is none.
        """
        scheme, separator, rest = text.rpartition("://")
        host, _, path = rest.rstrip("/").partition("/")
        wrong = (separator and scheme not in SCHEMES) or not _is_host(host) or (path and not REPOSITORY.fullmatch(path))
        if wrong or len(rest) > LONGEST:
            raise RegistryError(f"{printable(text)!a} is no registry", fix="write HOST[:PORT][/PATH], such as registry.example:5000/team")
        return cls(host=host, path=path, scheme=scheme or None)

    def repository(self, name: str) -> str:
        """Return the repository ``name`` below the path."""
        return f"{self.path}/{name}" if self.path else name

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" if self.path else self.host


def is_loopback(host: str) -> bool:
    """Return whether ``host``, with or without a port, is this machine itself."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    """Return whether ``text`` is a host, by name or address, maybe with a port, and short enough (RFC 1035, 2.3.4)."""
    if len(text) > LONGEST or not HOST.fullmatch(text):
        return False
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        return _is_address(name) and (not rest or int(rest[1:]) in PORTS)
    name, colon, port = text.partition(":")
    return all(0 < len(label) <= LABEL for label in name.split(".")) and (not colon or int(port) in PORTS)


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _wrong(text: str, why: str) -> RegistryError:
    return RegistryError(f"{printable(text)!a} names no image in a registry: {why}", fix="write HOST[:PORT]/REPOSITORY[:TAG][@sha256:...]")
