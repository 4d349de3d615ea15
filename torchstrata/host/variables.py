"""Variables of the environment: the one place where their values become text, paths or numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from torchstrata import files
from torchstrata.errors import VariableError
from torchstrata.host import home
from torchstrata.text import printable

LIMIT: Final = 4_096
"""Characters of a value; a path can have no more (Linux, ``PATH_MAX``)."""

LONGEST: Final = 65_536
"""Characters of a value that may have several words, such as ``PIP_EXTRA_INDEX_URL``."""

PREFIXES: Final = ("TORCHSTRATA_", "DOCKER_", "GITHUB_", "PIP_", "UV_", "COSIGN_KEY", "COSIGN_PUBLIC_KEY", "XDG_")
"""Of the variables that this program reads, or hands on by what it starts."""

FILES: Final = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "APT_CONFIG",
    "COSIGN_KEY",
    "COSIGN_PUBLIC_KEY",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "NETRC",
    "SSLKEYLOGFILE",
)
"""Variables that name files, which libraries and programs open without asking what they are."""

PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

NETRCS: Final = (".netrc", "_netrc")
"""Files of the home directory that libraries and git look into for logins, whether or not ``NETRC`` names another."""

NETRC_LIMIT: Final = 1 << 20
"""Bytes of such a file."""


def check() -> None:
    """Refuse values that would end in a traceback, or that somebody would wait for without end.

    :raises VariableError: one is no text, names no file, or is no URL where one must be; or ``~/.netrc`` is no text.
    """
    for name in os.environ:
        if name.startswith(PREFIXES):
            _check_text(name)
    for name in FILES:
        _check_file(name)
    _check_url("DOCKER_HOST")
    for name in PROXIES:
        _check_proxy(name)
    _check_key_log()
    own = home.directory()
    named = os.environ.get("NETRC")
    for path in ([Path(named)] if named else []) + ([own / name for name in NETRCS] if own else []):
        _check_netrc(path)


def _check_text(name: str) -> None:
    """Refuse control characters; spaces and line ends may separate words."""
    value = os.environ[name]
    if len(value) > LONGEST or not " ".join(value.split()).isprintable():
        raise VariableError(f"{printable(name, 60)} is no text: {printable(value, 60)!r}", fix=f"unset {printable(name, 60)}, or correct it")


def _check_file(name: str) -> None:
    """Refuse a pipe, a socket or a device that would be read like a file; a missing one fails where it is needed."""
    value = text(name)
    kind = files.kind(Path(value)) if value and "://" not in value and value != os.devnull else None
    if kind and kind != "a directory":
        raise VariableError(f"{name} names {kind}, not a file", fix=f"unset {name}, or let it name a file")


def _check_key_log() -> None:
    """Refuse a place for keys of TLS that OpenSSL cannot write to: every context would end in a traceback."""
    path = Path(text("SSLKEYLOGFILE") or os.devnull)
    try:
        path.open("ab").close()
    except OSError as error:
        raise VariableError(f"SSLKEYLOGFILE names {printable(str(path), 60)!r}, which cannot be written", fix="unset SSLKEYLOGFILE") from error


def _check_netrc(path: Path) -> None:
    """Refuse a file of logins that a reader would wait for, or that is no text; pass over what libraries pass over."""
    if not os.access(path, os.R_OK) or path.is_dir() or path.resolve() == Path(os.devnull):
        return
    try:
        files.text(path, NETRC_LIMIT)
    except files.UnreadableError as error:
        raise VariableError(f"logins of servers: {error.what}", fix="correct it, remove it, or let NETRC name another file") from error


def _check_url(name: str) -> None:
    value = text(name)
    if value and not _is_url(value):
        raise VariableError(f"{name} is no URL: {printable(value, 60)!r}", fix=f"unset {name}, or write {name}=tcp://HOST:PORT")


def _check_proxy(name: str) -> None:
    """Refuse what is no proxy over HTTP; libraries take a proxy without a scheme for one."""
    value = text(name)
    url = value if not value or "://" in value else f"http://{value}"
    if url and not (_is_url(url) and urlsplit(url).scheme in {"http", "https"} and urlsplit(url).hostname):
        raise VariableError(f"{name} is no proxy over HTTP: {printable(value or '', 60)!r}", fix=f"unset {name}, or write {name}=http://HOST:PORT")


def _is_url(value: str) -> bool:
    try:
        return urlsplit(value).port != 0
    except ValueError:
        return False


def text(name: str) -> str | None:
    """Return the value of a variable, ``None`` where it is not set or empty.

    :raises VariableError: it is longer than :data:`LIMIT`, has control characters, or is no UTF-8.
    """
    value = os.environ.get(name)
    if value and (len(value) > LIMIT or not value.isprintable()):
        raise VariableError(f"{name} is no line of text: {printable(value, 60)!r}", fix=f"unset {name}, or give it a value without control characters")
    return value or None


def file(name: str, limit: int) -> bytes | None:
    """Return the content of the file that a variable names, ``None`` where it names none.

    :param limit: bytes that it may have.
    :raises VariableError: there is no such file, or it cannot be read to its end.
    """
    value = text(name)
    try:
        return files.read(Path(value), limit) if value else None
    except files.UnreadableError as error:
        raise VariableError(f"{name}: {error.what}", fix=f"unset {name}, or let it name a file") from error
