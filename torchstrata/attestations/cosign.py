"""Running cosign: what it needs to be told, and what it means when it refuses."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from torchstrata import process, tls
from torchstrata.errors import CommandError, RegistryError, SigningError, UntrustedError
from torchstrata.host import temporary
from torchstrata.registry import certificates

INSTALL: Final = "install cosign (Debian 13 and Ubuntu 25.04 have a package)"


def run(*words: str, cwd: Path | None = None) -> str:
    """Run cosign and return its standard output.

    :raises Failed: it refuses.
    """
    return process.run(process.find("cosign", fix=INSTALL), *words, cwd=cwd)


@functools.cache
def is_newer() -> bool:
    """Return whether cosign is of version 3, which writes signatures as bundles and asks for services by default."""
    return "--use-signing-config" in run("sign-blob", "--help")


@contextlib.contextmanager
def work(**files: bytes) -> Iterator[Path]:
    """Yield a directory with some files."""
    with temporary.directory() as directory:
        for name, content in files.items():
            (directory / name).write_bytes(content)
        yield directory


def registry_options(host: str, directory: Path) -> list[str]:
    """Return what cosign must be told of a registry: the CAs and certificates that Docker has for it.

    Credentials it takes from Docker's configuration itself.

    :raises RegistryError: a certificate cannot be read.
    """
    bundle = tls.bundle() or os.environ.get("SSL_CERT_FILE")
    try:
        cas = [path.read_bytes() for path in (*certificates.cas(host), *(tls.files(bundle) if bundle else ()))]
    except OSError as error:
        fix = f"mend or remove it, or correct {' or '.join(tls.TRUST_VARIABLES)}"
        raise RegistryError(f"the certificate {error.filename} cannot be read: {error.strerror}", fix=fix) from error
    options = []
    if cas:
        (directory / "cas.pem").write_bytes(b"\n".join(cas))
        options.append(f"--registry-cacert={directory / 'cas.pem'}")
    for certificate, key in certificates.own(host)[:1]:
        options += [f"--registry-client-cert={certificate}", f"--registry-client-key={key}"]
    return options


@contextlib.contextmanager
def signing(what: str) -> Iterator[None]:
    """Turn a refusal of cosign's to sign into what a person can do about it."""
    try:
        yield
    except process.Failed as error:
        message = _message(error)
        fix = "try it by hand with the same key, to see more: cosign sign-blob --key KEY FILE"
        if "inappropriate ioctl" in message or "decryption failed" in message:
            fix = "put the key's password into COSIGN_PASSWORD (empty, if it has none)"
        raise SigningError(f"{what} cannot be signed: {message}", fix=fix) from error
    except CommandError as error:
        raise SigningError(error.what, fix=error.fix) from error


@contextlib.contextmanager
def verifying(what: str) -> Iterator[None]:
    """Turn a refusal of cosign's to verify into one line."""
    try:
        yield
    except process.Failed as error:
        raise UntrustedError(
            f"{what} does not hold: {_message(error)}", fix="do not use it; find out who has put it there, or which key must have signed it"
        ) from error


def _message(error: process.Failed) -> str:
    """Return what cosign says is wrong."""
    lines = [line.strip() for line in error.tail.splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith(("Error:", "error during"))]
    return re.sub(r"^(Error: |error during command execution: )", "", (wrong or lines or [error.what])[0])[:300]
