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

from container import notices, ports, services, state

PROGRAM: Final = Path("/opt/venv/bin/jupyter-lab")
PORT: Final = 8888
HASHES: Final = ("argon2:", "sha1:", "sha256:", "sha512:")
"""Prefixes of what ``jupyter_server.auth.passwd`` returns."""

URL_PATH: Final = re.compile(r"[A-Za-z0-9._~/@%+-]*")


def plan(given: Mapping[str, str]) -> services.Service:
    """Return the service as the environment asks for it, and write its private file."""
    base = base_url(given.get("JUPYTER_BASE_URL", ""))
    certificate, key = certificates(given)
    scheme = "https" if certificate else "http"
    service = services.Service("jupyter", ports.number("JUPYTER_PORT", given.get("JUPYTER_PORT", ""), PORT), scheme, f"{base}api")
    remember(given, base_url=base, certificate=certificate, key=key)
    unreadable = next((path for path in (certificate, key) if path and not _readable(path)), None)
    if unreadable:
        return services.refuse(service, f"its certificate file {unreadable} cannot be read", "let the container's user read it, or do not set it")
    obstacle = ports.obstacle(service.port)
    return services.refuse(service, f"port {service.port} is {obstacle}", "set JUPYTER_PORT") if obstacle else service


def remember(given: Mapping[str, str], **settings: str) -> None:
    """Write what the configuration of Jupyter needs, for a server of ours or one that the user starts."""
    hashed = password_hash(given.get("JUPYTER_PASSWORD_HASH", ""))
    document = {"token": token(given, random=not hashed), "password": hashed, "root": os.getuid() == 0, **settings}
    state.write(state.JUPYTER, json.dumps(document))


def command(service: services.Service) -> tuple[str, ...]:
    """Return how Jupyter is started; the rest is in its configuration."""
    base = service.path.removesuffix("api")
    return (str(PROGRAM), "--no-browser", f"--ServerApp.port={service.port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={base}")


def token(given: Mapping[str, str], *, random: bool) -> str:
    """Return the token that was given, by value or file; else a random one, or none where a password protects the server."""
    own = given.get("JUPYTER_TOKEN", "").strip() or _token_of_file(given.get("JUPYTER_TOKEN_FILE", ""))
    return own or (os.urandom(24).hex() if random else "")


def password_hash(text: str) -> str:
    """Return the hash of a password if it is one."""
    if text and not text.startswith(HASHES):
        notices.warn("JUPYTER_PASSWORD_HASH is not a hash and is ignored", "make one: python -c 'from jupyter_server.auth import passwd; print(passwd())'")
        return ""
    return text


def base_url(text: str) -> str:
    """Return a base URL with a slash at both ends; ``/`` with a line that says why where it cannot be one."""
    if not URL_PATH.fullmatch(text):
        notices.warn(f"JUPYTER_BASE_URL={text} is not a path: / is used", "give a path such as /lab/anna/, without host or query")
        return "/"
    return re.sub("/+", "/", f"/{text}/")


def certificates(given: Mapping[str, str]) -> tuple[str, str]:
    """Return the files of certificate and key; the key may be in the certificate's file."""
    certificate = given.get("JUPYTER_CERT_FILE", "")
    return certificate, given.get("JUPYTER_KEY_FILE", "") if certificate else ""


def welcome(service: services.Service) -> str:
    """Return the line for when Jupyter answers: the only one with the token."""
    from urllib.parse import quote  # noqa: PLC0415  # only here, and it is slow to load

    settings: dict[str, Any] = state.read(state.JUPYTER) or {}
    query = f"?token={quote(settings['token'], safe='')}" if settings.get("token") else ""
    how = "" if query else " (with your password)"
    return f"JupyterLab is ready: {service.scheme}://127.0.0.1:{service.port}{service.path.removesuffix('api')}lab{query}{how}"


def secrets() -> tuple[str, ...]:
    """Return what must never be in the log."""
    settings: dict[str, Any] = state.read(state.JUPYTER) or {}
    return tuple(filter(None, (settings.get("token"), settings.get("password"))))


def _token_of_file(name: str) -> str:
    if not name:
        return ""
    try:
        found = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        notices.warn(f"JUPYTER_TOKEN_FILE={name} cannot be read: {reason}; a random token is used", "let the container's user read it")
        return ""
    if not found:
        notices.warn(f"JUPYTER_TOKEN_FILE={name} is empty; a random token is used")
    return found


def _readable(name: str) -> bool:
    return os.access(name, os.R_OK)
