"""JupyterLab: who may enter, where it answers, how it is started.

Token and password hash go to a private file that ``/etc/jupyter/jupyter_server_config.py`` reads: neither an argument nor the
environment of any process shows them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from container import ports, services, settings, state

PROGRAM: Final = Path("/opt/venv/bin/jupyter-lab")
PROGRAM_OF_HUB: Final = Path("/opt/venv/bin/jupyterhub-singleuser")
PORT: Final = 8888
BASE_URLS: Final = ("JUPYTER_BASE_URL", "NB_PREFIX")
"""Where the base URL is looked for, the first that is given counts: ours, then Kubeflow's."""

OF_RUNPOD: Final = "JUPYTER_PASSWORD"
"""What RunPod calls the token, taken where nothing of ours is given."""

OF_HUB: Final = "JUPYTERHUB_SERVICE_URL"
"""Where JupyterHub expects the server that it has started the container for; who may enter is then its decision."""


class TokenFileError(Exception):
    """The file of the token cannot be used: a random token in its place would lock out whoever knows the right one."""


def plan(given: Mapping[str, str]) -> services.Service:
    """Return the service as the environment asks for it, and write its private file.

    :raises SettingError: a setting has a value that it cannot have.
    """
    if given.get(OF_HUB):
        return _plan_of_hub(given[OF_HUB])
    certificate, key = certificates(given)
    base = base_url(given)
    port = settings.port("JUPYTER_PORT", given.get("JUPYTER_PORT", "")) or PORT
    service = services.Service("jupyter", port, "https" if certificate else "http", f"{base}api")
    unreadable = next((path for path in (certificate, key) if path and not _readable(path)), None)
    if unreadable:
        return services.refuse(service, f"its certificate file {unreadable} cannot be read", "let the container's user read it, or do not set it")
    try:
        remember(given)
    except TokenFileError as error:
        return services.refuse(service, str(error), "let the container's user read it")
    obstacle = ports.obstacle(service.port)
    return services.refuse(service, f"port {service.port} is {obstacle}", "set JUPYTER_PORT") if obstacle else service


def remember(given: Mapping[str, str]) -> None:
    """Write what the configuration of our server needs: what was given, with a random token where nothing protects it."""
    document = asked(given)
    if not document["token"] and not document["password"]:
        document["token"] = os.urandom(24).hex()
    state.write(state.JUPYTER, json.dumps(document))


def asked(given: Mapping[str, str]) -> dict[str, Any]:
    """Return what the environment asks of any Jupyter server, ours or one that a person starts; empty or 0 where it asks nothing.

    :return: ``token``, ``password`` (a hash), ``root`` (whether the user is root), ``base_url``, ``port``, ``certificate``, ``key``.
    :raises SettingError: a setting has a value that it cannot have.
    :raises TokenFileError: the file of the token cannot be read.
    """
    certificate, key = certificates(given)
    return {
        "token": token(given),
        "password": settings.password_hash("JUPYTER_PASSWORD_HASH", given.get("JUPYTER_PASSWORD_HASH", "")),
        "root": os.getuid() == 0,
        "base_url": base_url(given),
        "port": settings.port("JUPYTER_PORT", given.get("JUPYTER_PORT", "")),
        "certificate": certificate,
        "key": key,
    }


def command(service: services.Service) -> tuple[str, ...]:
    """Return how Jupyter is started; the rest is in its configuration, or in JupyterHub's variables."""
    if os.environ.get(OF_HUB):
        return (str(PROGRAM_OF_HUB),)
    base = service.path.removesuffix("api")
    return (str(PROGRAM), "--no-browser", f"--ServerApp.port={service.port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={base}")


def base_url(given: Mapping[str, str]) -> str:
    """Return the path below which Jupyter answers, with a slash at both ends.

    :raises SettingError: it is none.
    """
    name = next((one for one in BASE_URLS if given.get(one)), BASE_URLS[0])
    return settings.url_path(name, given.get(name, ""))


def token(given: Mapping[str, str]) -> str:
    """Return the token that was given, by value or file; empty where none was.

    :raises SettingError: it is none.
    :raises TokenFileError: its file cannot be read, is empty, or holds no token.
    """
    own = settings.token("JUPYTER_TOKEN", given.get("JUPYTER_TOKEN", ""))
    own = own or _token_of_file(settings.path("JUPYTER_TOKEN_FILE", given.get("JUPYTER_TOKEN_FILE", "")))
    return own or (settings.token(OF_RUNPOD, given.get(OF_RUNPOD, "")) if not given.get("JUPYTER_PASSWORD_HASH") else "")


def certificates(given: Mapping[str, str]) -> tuple[str, str]:
    """Return the files of certificate and key; the key may be in the certificate's file."""
    certificate = given.get("JUPYTER_CERT_FILE", "")
    return certificate, given.get("JUPYTER_KEY_FILE", "") if certificate else ""


def welcome(service: services.Service) -> str:
    """Return the line for when Jupyter answers: the only one with the token."""
    from urllib.parse import quote  # noqa: PLC0415  # only here, and it is slow to load

    written: dict[str, Any] = state.read(state.JUPYTER) or {}
    query = f"?token={quote(written['token'], safe='')}" if written.get("token") else ""
    how = "" if query else " (through JupyterHub)" if os.environ.get(OF_HUB) else " (with your password)"
    return f"JupyterLab is ready: {service.scheme}://127.0.0.1:{service.port}{service.path.removesuffix('api')}lab{query}{how}"


def secrets() -> tuple[str, ...]:
    """Return what must never be in the log."""
    written: dict[str, Any] = state.read(state.JUPYTER) or {}
    return tuple(filter(None, (written.get("token"), written.get("password"))))


def _plan_of_hub(url: str) -> services.Service:
    """Return the service as JupyterHub asks for it: its own program, which reads the rest of its variables.

    :raises SettingError: the URL is none.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415  # only here, and it is slow to load

    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError as error:
        raise settings.SettingError(f"{OF_HUB}={settings.shown(url)} is not a URL", "leave it to JupyterHub") from error
    path = settings.path(OF_HUB, re.sub("/+", "/", f"/{parts.path}/"))
    service = services.Service("jupyter", port, parts.scheme or "http", f"{path}api")
    if not PROGRAM_OF_HUB.exists():
        return services.refuse(
            service, "JupyterHub has started it, but jupyterhub is not installed", "derive an image: RUN pip install jupyterhub==VERSION OF THE HUB"
        )
    return service


def _token_of_file(name: str) -> str:
    if not name:
        return ""
    try:
        found = settings.token(name, settings.read_file(Path(name), settings.SMALL_FILE))
    except settings.SettingError as error:
        raise TokenFileError(error.what) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise TokenFileError(f"JUPYTER_TOKEN_FILE={name} cannot be read: {reason}") from error
    if not found:
        raise TokenFileError(f"JUPYTER_TOKEN_FILE={name} is empty")
    return found


def _readable(name: str) -> bool:
    return os.access(name, os.R_OK)
