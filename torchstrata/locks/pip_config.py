"""pip's configuration: read from its files and environment, so that pip itself need not be installed.

Order and names as in pip's documentation, "Configuration": global, user and site files, the file ``PIP_CONFIG_FILE``
names, then ``PIP_*`` variables; later ones win.
"""

from __future__ import annotations

import configparser
import ipaddress
import itertools
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from torchstrata import files
from torchstrata.errors import FetchError
from torchstrata.host import home
from torchstrata.text import printable

LONGEST: Final = 1 << 20
"""Bytes of a configuration file at most."""

TIMEOUT: Final = 86400.0
"""Seconds that pip's timeout may be at most."""

RETRIES: Final = 1000.0

HOST: Final = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|[\w.*-]+)(:[0-9]{1,4}|:[1-5][0-9]{4})?")

TRUE: Final = ("y", "yes", "t", "true", "on", "1")
FALSE: Final = ("n", "no", "f", "false", "off", "0")
"""What pip takes for yes and for no (``strtobool`` in its ``utils/misc.py``), in any case of letters."""

SECTIONS: Final = ("global", "install", "download")
"""Sections of the files that apply to downloads, weakest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipConfig:
    """What pip would use for a download.

    :param index_url: ``None``: the default package index.
    :param timeout: seconds without an answer before a request is given up.
    :param retries: times that a request is tried again.
    """

    index_url: str | None
    extra_index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    no_index: bool
    cert: str | None
    client_cert: str | None
    trusted_hosts: tuple[str, ...]
    timeout: float
    retries: int


def read(environment: Mapping[str, str] = os.environ) -> PipConfig:
    """Return pip's configuration on this machine.

    :raises FetchError: one of its files is not a configuration file, or an option has an impossible value.
    """
    options: dict[str, str] = {}
    for path in _files(environment):
        options |= _options(path)
    options |= {_name(key[4:]): value for key, value in environment.items() if key.startswith("PIP_") and value}
    return PipConfig(
        index_url=options.get("index-url"),
        extra_index_urls=_many(options, "extra-index-url"),
        find_links=_many(options, "find-links"),
        no_index=_truth("no-index", options.get("no-index") or "no"),
        cert=options.get("cert"),
        client_cert=options.get("client-cert"),
        trusted_hosts=_hosts(_many(options, "trusted-host")),
        timeout=_number("timeout", options.get("timeout") or options.get("default-timeout") or "15", TIMEOUT),
        retries=int(_number("retries", options.get("retries", "5"), RETRIES)),
    )


def _files(environment: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, weakest first."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    folders = platformdirs.site_config_dir("pip", appauthor=False, multipath=True).split(os.pathsep)
    system = [Path(folder) / "pip.conf" for folder in folders]
    return [
        *reversed(system),
        Path("/etc/pip.conf"),
        *_files_of_user(),
        Path(sys.prefix) / "pip.conf",
        *([Path(named)] if named else []),
    ]


def _files_of_user() -> list[Path]:
    own, config = home.directory(), home.config("pip")
    old = [own / ".pip" / "pip.conf", own / ".config" / "pip" / "pip.conf"] if own else []
    return [*old, config / "pip.conf"] if config else old


def _options(path: Path) -> dict[str, str]:
    """Return the options in the file at ``path``; none if there is no such file."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(_text(path), source=str(path))
    except files.UnreadableError as error:
        raise FetchError(f"pip's configuration: {error.what}", fix="correct it, or remove it") from error
    except (configparser.Error, ValueError, OSError) as error:
        why = printable(str(error).partition("\n")[0])
        raise FetchError(f"{printable(str(path))} is not a pip configuration file: {why}", fix="correct it, or remove it") from error
    sections = filter(parser.has_section, SECTIONS)
    return {_name(key): value for key, value in itertools.chain.from_iterable(map(parser.items, sections))}


def _text(path: Path) -> str:
    """Return the text of a file; none if there is no such file, or it is not ours to read.

    :raises UnreadableError: it is no file, such as a pipe that nobody writes to, or too long, or no UTF-8.
    """
    try:
        is_ours = path.exists() and os.access(path, os.R_OK)
    except PermissionError:  # of a directory above
        is_ours = False
    return files.text(path, LONGEST) if is_ours else ""  # as pip itself does


def _hosts(named: tuple[str, ...]) -> tuple[str, ...]:
    """Return hosts that pip trusts.

    :raises FetchError: one is no host.
    """
    for host in named:
        if not _is_host(host):
            raise FetchError(f"pip's trusted-host {printable(host)} is no host, nor host:port", fix="correct trusted-host in pip's configuration")
    return named


def _is_host(text: str) -> bool:
    host = HOST.fullmatch(text)
    try:
        return bool(host and (host["address"] is None or ipaddress.IPv6Address(host["address"])))
    except ValueError:
        return False


def _number(name: str, value: str, most: float) -> float:
    """Return the number that an option is set to.

    :raises FetchError: it is no number from 0 to ``most``.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        fix = f"correct {name} in pip's configuration, or {_variable(name)}"
        raise FetchError(f"pip's {name} is {printable(value, 40)}, no number from 0 to {most:g}", fix=fix)
    return number


def _truth(name: str, value: str) -> bool:
    """Return the truth value that an option is set to, in any of pip's words.

    :raises FetchError: it is none.
    """
    if value.lower() not in {*TRUE, *FALSE}:
        fix = f"correct {name} in pip's configuration, or {_variable(name)}"
        raise FetchError(f"pip's {name} is {printable(value, 40)}, which is neither yes nor no", fix=fix)
    return value.lower() in TRUE


def _variable(name: str) -> str:
    return f"PIP_{name.upper().replace('-', '_')}"


def _name(key: str) -> str:
    return re.sub(r"[-_]+", "-", key).lower().strip("-")


def _many(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(options.get(name, "").split())
