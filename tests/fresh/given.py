"""What an administrator would have set on a machine: certificates, proxies, pip's and apt's sources.

It is taken from this host by name, and nothing else is.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from torchstrata import process
from torchstrata.errors import CommandError
from torchstrata.host import apt
from torchstrata.locks import pip_config

BUNDLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
"""Variables that name a file of certificates."""

ACQUIRE: Final = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
LABELS: Final = ("Debian", "Debian-Security")
SYSTEM_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What a machine is given.

    :param variables: of every login.
    :param pip: settings for all users.
    :param apt: settings.
    :param mirrors: addresses of the distribution's archive and of its security updates; none for its own.
    :param certificates: in the text form, of authorities that this host trusts.
    """

    variables: Mapping[str, str]
    pip: Mapping[str, str]
    apt: Mapping[str, str]
    mirrors: tuple[str, ...]
    certificates: tuple[str, ...]

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directories of this host that pip is told to look in."""
        return tuple(dict.fromkeys(_directories(self.pip)))

    @property
    def pip_conf(self) -> str:
        """The text of pip's file for all users."""
        return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in self.pip.items())

    @property
    def apt_conf(self) -> str:
        """The text of apt's file."""
        return "".join(f'{name} "{value}";\n' for name, value in self.apt.items())

    @property
    def environment(self) -> str:
        """The text of the file from which logins have their variables."""
        return "".join(f'{name}="{value}"\n' for name, value in self.variables.items())

    def sources(self, suite: str) -> str:
        """Return apt's sources of a release; empty where they are the distribution's own."""
        if len(self.mirrors) < len(LABELS):
            return ""
        archive, security = self.mirrors
        return f"deb {archive} {suite} main\ndeb {archive} {suite}-updates main\ndeb {security} {suite}-security main\n"


def by_this_host() -> Given:
    """Return what this host itself was given."""
    bundles = {name: SYSTEM_BUNDLE for name in BUNDLES if os.environ.get(name)}
    proxies = {name: os.environ[name] for name in apt.PROXIES if os.environ.get(name)}
    pip = {**_pip(), **({"cert": SYSTEM_BUNDLE} if bundles else {})}
    return Given(variables={**proxies, **bundles}, pip=pip, apt=_apt(), mirrors=_mirrors(), certificates=_certificates())


def _pip() -> dict[str, str]:
    """Return where pip looks here, in the words of its configuration."""
    here = pip_config.read()
    many = {
        "extra-index-url": here.extra_index_urls,
        "find-links": here.find_links,
        "trusted-host": here.trusted_hosts,
    }
    settings = {
        "index-url": here.index_url or "",
        "timeout": f"{here.timeout:.0f}",
        **{name: " ".join(values) for name, values in many.items()},
    }
    return {name: value for name, value in settings.items() if value}


def _directories(pip: Mapping[str, str]) -> Iterator[Path]:
    for word in " ".join(pip.get(name, "") for name in ("index-url", "extra-index-url", "find-links")).split():
        address = urlsplit(word)
        if address.scheme == "file" or word.startswith("/"):
            place = Path(unquote(address.path))
            yield place.parent if place.name == "simple" else place  # its pages lead to files beside it


@functools.cache
def _apt() -> dict[str, str]:
    try:
        dump = process.run("apt-config", "dump", "--no-empty", "--format", "%f\t%v\n")
    except CommandError:
        return {}
    rows = (line.partition("\t") for line in dump.splitlines())
    return {name: value for name, _, value in rows if name in ACQUIRE}


@functools.cache  # apt reads all its lists, for a second
def _mirrors() -> tuple[str, ...]:
    """Return where this host takes Debian from, if it is Debian and apt knows."""
    try:
        listed = process.run("apt-get", "indextargets", "--format", "$(LABEL)\t$(REPO_URI)", "Created-By: Packages")
    except CommandError:
        return ()
    known = dict(line.split("\t") for line in reversed(listed.splitlines()))
    return tuple(known[label] for label in LABELS if label in known)


def _certificates() -> tuple[str, ...]:
    """Return the authorities of the files that variables name and of the system."""
    files = {Path(os.environ.get(name, SYSTEM_BUNDLE)) for name in BUNDLES} | {Path(SYSTEM_BUNDLE)}
    texts = [file.read_text(encoding="ascii", errors="replace") for file in sorted(files) if file.is_file()]
    return tuple(dict.fromkeys(CERTIFICATE.findall("".join(texts))))
