"""Docker's configuration: the file, checked before libraries read it, and the context, which says where the engine is.

Libraries wait for a pipe, and take any JSON. docker-py's own reading of contexts looks into the working directory where there
is no ``config.json``, and takes this machine's engine for a context that is not there; the ``docker`` command does neither.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from torchstrata import decoding, files
from torchstrata.errors import VariableError
from torchstrata.host import home, variables
from torchstrata.text import printable

T = TypeVar("T")

VARIABLE: Final = "DOCKER_CONFIG"
HOST: Final = "DOCKER_HOST"
CONTEXT: Final = "DOCKER_CONTEXT"
LIMIT: Final = 1_000_000
"""Bytes of a file."""

USUAL: Final = "default"
"""The context that is no file: this machine's engine."""

DEFAULT_SOCKET: Final = "unix:///var/run/docker.sock"


class _DockerConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of it; other keys may be there."""

    auths: dict[str, dict[str, Any]] | None = None
    creds_store: str | None = None
    cred_helpers: dict[str, str] | None = None
    current_context: str | None = None


class _Endpoint(msgspec.Struct, frozen=True, rename="pascal"):
    """Where an engine is, as ``docker context create`` writes it."""

    host: str = ""
    skip_tls_verify: bool = msgspec.field(name="SkipTLSVerify", default=False)


class _Endpoints(msgspec.Struct, frozen=True):
    docker: _Endpoint = _Endpoint()


class _Metadata(msgspec.Struct, frozen=True, rename="pascal"):
    """The file ``contexts/meta/ID/meta.json`` beside the configuration file; the ID is the SHA-256 of the name."""

    endpoints: _Endpoints = _Endpoints()


@dataclass(frozen=True, kw_only=True, slots=True)
class DockerContext:
    """An engine that has a name.

    :param host: its URL; empty for the usual one.
    :param is_verified: its certificate must be right, where it has any.
    :param ca: certificate of its authority; ``None`` if the context has none.
    :param key_pair: certificate and key by which it knows its clients; ``None`` if the context has none.
    """

    host: str
    is_verified: bool
    ca: Path | None
    key_pair: tuple[Path, Path] | None

    @property
    def has_tls(self) -> bool:
        """Whether TLS is spoken, as the ``docker`` command decides."""
        return self.host.startswith("tcp://") and bool(self.ca or self.key_pair or not self.is_verified)


def check() -> None:
    """Refuse a file that Docker's libraries could not read.

    :raises VariableError: it is no file, too long, or not of the shape that it must have.
    """
    _config()


def address() -> str:
    """Return where the ``docker`` command looks for the engine: ``DOCKER_HOST``, else the current context's.

    :raises VariableError: the configuration cannot be read, or has no such context.
    """
    found = context()
    return os.environ.get(HOST) or (found.host if found else "") or DEFAULT_SOCKET


def environment() -> dict[str, str]:
    """Return the variables by which programs that know nothing of contexts find the engine of the current one.

    There are none that tell of some certificates and not of others.

    :raises VariableError: the configuration cannot be read, or has no such context.
    """
    found = context()
    if found is None or not found.host:
        return {}
    if not found.has_tls:
        return {HOST: found.host}
    if not (found.ca and found.key_pair):
        return {}
    return {HOST: found.host, "DOCKER_CERT_PATH": str(found.ca.parent), "DOCKER_TLS_VERIFY": "1" if found.is_verified else ""}


def context() -> DockerContext | None:
    """Return the context that counts; ``None`` where ``DOCKER_HOST`` is set, or where it is the usual one.

    As the ``docker`` command chooses: ``DOCKER_CONTEXT``, else ``currentContext`` of the configuration file.

    :raises VariableError: the configuration cannot be read, or has no such context.
    """
    if os.environ.get(HOST):
        return None
    asked = variables.text(CONTEXT)
    name, directory = asked or _config().current_context or USUAL, _directory()
    if name == USUAL or directory is None:
        return None
    identity = hashlib.sha256(name.encode()).hexdigest()
    path = directory / "contexts" / "meta" / identity / "meta.json"
    if not os.path.lexists(path):
        whose = CONTEXT if asked else f"currentContext of {directory / 'config.json'}"
        fix = f"docker context ls shows which there are; {f'unset {CONTEXT}' if asked else 'docker context use default'} for the usual engine"
        raise VariableError(f"{whose} names {printable(name, 60)!r}, and Docker has no such context", fix=fix)
    endpoint = _decoded(path, _Metadata).endpoints.docker
    ca, certificate, key = (_there(directory / "contexts" / "tls" / identity / "docker" / f"{each}.pem") for each in ("ca", "cert", "key"))
    key_pair = (certificate, key) if certificate and key else None
    return DockerContext(host=endpoint.host, is_verified=not endpoint.skip_tls_verify, ca=ca, key_pair=key_pair)


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def file() -> Path | None:
    """Return the configuration file, if there is one; the ``docker`` command reads no other.

    :raises VariableError: its directory cannot be one.
    """
    directory = _directory()
    path = directory / "config.json" if directory else None
    return path if path and os.path.lexists(path) else None


def _config() -> _DockerConfig:
    path = file()
    return _decoded(path, _DockerConfig) if path else _DockerConfig()


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        return decoding.decode(files.read(path, LIMIT), kind)
    except (files.UnreadableError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = error.what if isinstance(error, files.UnreadableError) else f"{path} is not as Docker writes it: {error}"
        raise VariableError(f"Docker's configuration: {printable(why)}", fix=f"correct it, or let {VARIABLE} name another directory") from error


def _directory() -> Path | None:
    named, own = variables.text(VARIABLE), home.directory()
    if named:
        return Path(named)
    return own / ".docker" if own else None
