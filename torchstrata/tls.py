"""TLS contexts that threads share: once complete, nothing changes them.

OpenSSL lets threads share a context, but not change it while another one uses it. Libraries change what they are
given all the same: ``requests`` names a bundle of certificates to a pool of connections, and urllib3 loads it into
the context at each new connection; urllib3 and httpcore also set modes and protocols anew each time. A sealed context
takes what it has already for done, and refuses the rest.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NoReturn, TypedDict

PROTOCOLS: Final = ("http/1.1",)
"""What our clients speak, as ALPN names it."""

BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name CA certificates, in a file or a directory; the first one that is set counts."""

TRUST_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", *BUNDLE_VARIABLES)
"""Variables that say whose certificates OpenSSL and our clients believe."""


def bundle() -> str | None:
    """Return the file or directory of certificates that the environment names."""
    return next(filter(None, map(os.environ.get, BUNDLE_VARIABLES)), None)


class Locations(TypedDict, total=False):
    """The arguments by which contexts take a bundle."""

    cafile: str
    capath: str


def locations(bundle: str | None) -> Locations:
    """Return a file or directory of certificates, if there is one, as the argument that contexts take it as."""
    if not bundle:
        return {}
    return {"capath": bundle} if Path(bundle).is_dir() else {"cafile": bundle}


def files(bundle: str) -> list[Path]:
    """Return the files of a bundle: itself, or those in the directory."""
    path = Path(bundle)
    return sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]


class SealedContext(ssl.SSLContext):
    """A client's context that does not change. Made by :func:`sealed` alone."""

    def __setattr__(self, name: str, value: object) -> None:
        if getattr(self, name) != value:
            self._refuse(name)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Take what is set already for done."""
        if tuple(alpn_protocols) != PROTOCOLS:
            self._refuse("set_alpn_protocols")

    def _refuse(self, *what: object, **_: object) -> NoReturn:
        raise RuntimeError(f"a TLS context that threads share would be changed: {what}")

    load_cert_chain: Any = _refuse
    load_default_certs: Any = _refuse
    load_dh_params: Any = _refuse
    load_verify_locations: Any = _refuse
    set_ciphers: Any = _refuse
    set_default_verify_paths: Any = _refuse
    set_ecdh_curve: Any = _refuse
    set_npn_protocols: Any = _refuse
    set_psk_client_callback: Any = _refuse
    set_psk_server_callback: Any = _refuse
    set_servername_callback: Any = _refuse


def sealed(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let nothing change ``context`` any more, and return it.

    :param context: complete, and not in use yet. One of another library's kind, such as the context that asks macOS
        for its certificates, is left as it is: it has a lock of its own.
    """
    if type(context) is ssl.SSLContext:
        context.set_alpn_protocols(list(PROTOCOLS))
        context.__class__ = SealedContext
    return context
