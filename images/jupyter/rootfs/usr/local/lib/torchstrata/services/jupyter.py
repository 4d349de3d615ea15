"""JupyterLab: who may enter, where it answers, how it is started.

Token and password hash go to a private file that ``/etc/jupyter/jupyter_server_config.py`` reads: neither an argument nor the
environment of any process shows them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from container import plain, secret_files, services, settings, state
from container.declarations import Declaration

PRIVATE: Final = "jupyter.json"
"""Token or password hash, for the configuration of our server; 0600."""

PROGRAM_OF_HUB: Final = Path("/opt/venv/bin/jupyterhub-singleuser")
BASE_URLS: Final = ("JUPYTER_BASE_URL", "NB_PREFIX")
"""Variables with the base URL, of which the first that is given counts: ours, then Kubeflow's."""

OF_RUNPOD: Final = "JUPYTER_PASSWORD"
"""What RunPod calls the token, taken where nothing of ours is given."""

OF_HUB: Final = "JUPYTERHUB_SERVICE_URL"
"""Where JupyterHub expects the server that it has started the container for; it then decides who may enter."""

URL_PATH: Final = re.compile(r"[A-Za-z0-9_~/@%-]*")
"""Jupyter takes its base URL for a regular expression, so no character may mean something to one: no dot, no plus."""

HASH: Final = re.compile(r"argon2:\$argon2(id|i|d)\$[\x21-\x7e]{20,500}|sha(1|256|512):[0-9a-f]{1,64}:[0-9a-f]{40,128}")
"""What ``jupyter_server.auth.passwd`` returns: argon2, or the older salt and digest."""


def check(given: Mapping[str, str]) -> None:
    """Refuse a value that one of Jupyter's variables cannot have.

    :raises SettingError: there is one.
    """
    settings.apply(given, GATES)
    if given.get("JUPYTER_KEY_FILE") and not given.get("JUPYTER_CERT_FILE"):
        raise settings.SettingError("JUPYTER_KEY_FILE is given without JUPYTER_CERT_FILE", "give the certificate, too, or neither for plain HTTP")


def environment() -> Mapping[str, str]:
    """Return the variable by which all Jupyter programs keep sockets, keys and cookies in the private directory."""
    return {"JUPYTER_RUNTIME_DIR": str(plain.directory("jupyter"))}


def plan(declared: Declaration, given: Mapping[str, str], home: Path) -> services.Service:
    """Return the service as the environment asks for it, and write its private file.

    :raises SettingError: a setting has a value that it cannot have.
    """
    del home
    asked_for = services.asked(declared, given)
    if given.get(OF_HUB):
        return _plan_of_hub(asked_for._replace(port=declared.port), given[OF_HUB])
    certificate, key = certificates(given)
    service = asked_for._replace(scheme="https" if certificate else "http", path=f"{base_url(given)}api")
    unreadable = next((path for path in (certificate, key) if path and not _readable(path)), None)
    if unreadable:
        return services.refuse(service, f"its certificate file {unreadable} cannot be read", "let the container's user read it, or do not set it")
    try:
        remember(given)
    except secret_files.SecretFileError as error:
        return services.refuse(service, str(error), "let the container's user read it")
    return services.unless_taken(service)


def remember(given: Mapping[str, str]) -> None:
    """Write what the configuration of our server needs: what was given, and a random token where neither token nor password was."""
    document = asked(given)
    if not document["token"] and not document["password"]:
        document["token"] = os.urandom(24).hex()
    state.write(PRIVATE, json.dumps(document))


def asked(given: Mapping[str, str]) -> dict[str, Any]:
    """Return what the environment asks of any Jupyter server, ours or one that a person starts; empty or 0 where it asks nothing.

    :return: ``token``, ``password`` (a hash), ``root`` (whether the user is root), ``base_url``, ``port``, ``certificate``, ``key``.
    :raises SettingError: a setting has a value that it cannot have.
    :raises SecretFileError: the file of the token cannot be read.
    """
    certificate, key = certificates(given)
    return {
        "token": token(given),
        "password": password_hash("JUPYTER_PASSWORD_HASH", given.get("JUPYTER_PASSWORD_HASH", "")),
        "root": os.getuid() == 0,
        "base_url": base_url(given),
        "port": settings.port("JUPYTER_PORT", given.get("JUPYTER_PORT", "")),
        "certificate": certificate,
        "key": key,
    }


def command(declared: Declaration, service: services.Service) -> Sequence[str]:
    """Return how Jupyter is started. All else is said by its configuration, or by JupyterHub's variables."""
    if os.environ.get(OF_HUB):
        return (str(PROGRAM_OF_HUB),)
    return (*plain.command(declared, service), f"--ServerApp.base_url={service.path.removesuffix('api')}")


def base_url(given: Mapping[str, str]) -> str:
    """Return the path below which Jupyter answers, with a slash at both ends.

    :raises SettingError: what was given is no path.
    """
    name = next((variable for variable in BASE_URLS if given.get(variable)), BASE_URLS[0])
    return url_path(name, given.get(name, ""))


def token(given: Mapping[str, str]) -> str:
    """Return the token that was given, by value or file; empty where none was.

    :raises SettingError: what was given cannot be a token.
    :raises SecretFileError: its file cannot be read, is empty, or holds no token.
    """
    own = secret_files.value("JUPYTER_TOKEN", given)
    return own or (settings.token(OF_RUNPOD, given.get(OF_RUNPOD, "")) if not given.get("JUPYTER_PASSWORD_HASH") else "")


def certificates(given: Mapping[str, str]) -> tuple[str, str]:
    """Return the files of certificate and key; the key may be in the certificate's file."""
    certificate = given.get("JUPYTER_CERT_FILE", "")
    return certificate, given.get("JUPYTER_KEY_FILE", "") if certificate else ""


def welcome(declared: Declaration, service: services.Service) -> Sequence[str]:
    """Return the line for when Jupyter first answers, the only one with the token."""
    from urllib.parse import quote  # noqa: PLC0415  # only here, and it is slow to load

    written: dict[str, Any] = state.read(PRIVATE) or {}
    query = f"?token={quote(written['token'], safe='')}" if written.get("token") else ""
    how = "" if query else " (through JupyterHub)" if os.environ.get(OF_HUB) else " (with your password)"
    url = f"{service.scheme}://{services.LOCAL}:{service.port}{service.path.removesuffix('api')}lab{query}{how}"
    return [plain.filled(declared.ready, service, url)]


def secrets(declared: Declaration) -> Sequence[str]:
    """Return what must never be in the log."""
    del declared
    written: dict[str, Any] = state.read(PRIVATE) or {}
    return tuple(filter(None, (written.get("token"), written.get("password"))))


def url_path(name: str, value: str) -> str:
    """Return a path of URLs with a slash at both ends.

    :raises SettingError: it is not one, or has a character that Jupyter takes for a part of a regular expression.
    """
    if len(value) > settings.LONGEST or not URL_PATH.fullmatch(value):
        fix = "give one of letters, digits and - _ ~ @ % /, such as /lab/anna/, without host or query"
        raise settings.SettingError(f"{name}={settings.shown(value)} is not a path", fix)
    return re.sub("/+", "/", f"/{value}/")


def password_hash(name: str, value: str) -> str:
    """Return the hash of a password.

    :raises SettingError: it is none, but perhaps the password itself: the message does not quote it.
    """
    if value and not HASH.fullmatch(value):
        raise settings.SettingError(f"{name} is not a hash", "make one: python -c 'from jupyter_server.auth import passwd; print(passwd())'")
    return value


def _plan_of_hub(asked_for: services.Service, url: str) -> services.Service:
    """Return the service as JupyterHub asks for it: its own program, which reads the rest of its variables.

    :raises SettingError: the URL is none.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415  # only here, and it is slow to load

    try:
        parts = urlsplit(url)
        port = parts.port or asked_for.port
    except ValueError as error:
        raise settings.SettingError(f"{OF_HUB}={settings.shown(url)} is not a URL", "leave it to JupyterHub") from error
    path = settings.path(OF_HUB, re.sub("/+", "/", f"/{parts.path}/"))
    service = asked_for._replace(port=port, scheme=parts.scheme or "http", path=f"{path}api")
    if not PROGRAM_OF_HUB.exists():
        return services.refuse(
            service, "JupyterHub has started it, but jupyterhub is not installed", "derive an image: RUN pip install jupyterhub==VERSION OF THE HUB"
        )
    return service


def _readable(name: str) -> bool:
    return os.access(name, os.R_OK)


GATES: Final = (
    settings.Gate("JUPYTER_BASE_URL", url_path),
    settings.Gate("NB_PREFIX", url_path),
    settings.Gate("JUPYTER_TOKEN_FILE", settings.path),
    settings.Gate("JUPYTER_PASSWORD_HASH", password_hash),
    settings.Gate("JUPYTER_CERT_FILE", settings.path),
    settings.Gate("JUPYTER_KEY_FILE", settings.path),
    settings.Gate("TORCHSTRATA_JUPYTER_OPEN", settings.flag),
)
"""What ``variables`` of its declaration names."""
