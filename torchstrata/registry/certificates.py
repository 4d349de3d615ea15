"""Certificates that a registry's client trusts and shows: the system's, those of ``requests``, Docker's for a host."""

from __future__ import annotations

import functools
import os
import ssl
from itertools import chain
from pathlib import Path
from typing import Final

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from torchstrata import tls
from torchstrata.errors import RegistryError
from torchstrata.host import home

DIRECTORIES: Final = (Path("/etc/docker/certs.d"), *(folder / "certs.d" for folder in [home.config("docker")] if folder))
"""Where Docker, with and without root, looks for ``HOST/*.crt`` (CAs), ``HOST/*.cert`` and ``*.key`` (the client)."""


def cas(host: str) -> list[Path]:
    """Return the files of the CAs that Docker has for a host."""
    return _files(host, "*.crt")


def own(host: str) -> list[tuple[Path, Path]]:
    """Return the certificates that a host is shown, with their keys."""
    return [(certificate, certificate.with_suffix(".key")) for certificate in _files(host, "*.cert")]


def _files(host: str, pattern: str) -> list[Path]:
    return list(chain.from_iterable(sorted((directory / host).glob(pattern)) for directory in DIRECTORIES))


def context(host: str) -> ssl.SSLContext:
    """Return how to verify ``host``, as Docker does.

    :raises RegistryError: a certificate cannot be read.
    """
    known_cas, shown = cas(host), own(host)
    if not (known_cas or shown):
        return _public(*map(os.environ.get, tls.TRUST_VARIABLES))
    new = _new()
    try:
        for ca in known_cas:
            new.load_verify_locations(ca)
        for certificate, key in shown:
            new.load_cert_chain(certificate, key)
    except OSError as error:
        places = " and ".join(str(directory / host) for directory in DIRECTORIES if (directory / host).is_dir())
        raise RegistryError(f"certificates in {places} cannot be read: {error}", fix="mend or remove them") from error
    return tls.sealed(new)


@functools.cache
def _public(*_: str | None) -> ssl.SSLContext:
    """Return how to verify hosts without certificates of their own, for these values of :data:`tls.TRUST_VARIABLES`."""
    return tls.sealed(_new())


def _new() -> ssl.SSLContext:
    """Return a context with the CAs of the system and those of ``requests``."""
    new = ssl.create_default_context()
    bundle = tls.bundle() or DEFAULT_CA_BUNDLE_PATH
    try:
        new.load_verify_locations(**tls.locations(bundle))
    except OSError as error:
        raise RegistryError(f"certificates in {bundle} cannot be read: {error}", fix=f"correct {' or '.join(tls.BUNDLE_VARIABLES)}") from error
    return new
