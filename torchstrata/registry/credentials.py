"""Credentials as Docker keeps them: in its configuration file, or with the helpers that it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import docker.auth
import docker.errors

from torchstrata.errors import RegistryAuthError
from torchstrata.host import docker_config

HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Who we are to a registry.

    :param password: as text; never part of a message.
    :param identity_token: OAuth2 refresh token, instead of name and password.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


def find(host: str) -> Credentials | None:
    """Return the credentials that ``docker login HOST`` has kept, if there are any.

    ``DOCKER_CONFIG`` is honoured, as are ``credsStore`` and ``credHelpers``.

    :raises RegistryAuthError: the configuration or the helper that it names does not work.
    :raises VariableError: the configuration cannot be read.
    """
    docker_config.check()
    path = docker_config.file()
    if path is None:  # the library would take another one, of which the docker command knows nothing
        return None
    try:
        login = docker.auth.load_config(str(path)).resolve_authconfig("docker.io" if host in HUB else host)
    except (docker.errors.DockerException, ValueError) as error:
        raise RegistryAuthError(f"Docker's credentials for {host} cannot be read: {error}", fix="check credsStore and auths of Docker's config.json") from error
    entry = {key.lower(): value for key, value in (login or {}).items()}
    if token := entry.get("identitytoken"):
        return Credentials(identity_token=token)
    return Credentials(username=entry["username"], password=entry["password"]) if entry.get("username") else None
