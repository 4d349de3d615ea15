"""A new pair of keys to sign with."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import sys
from pathlib import Path
from typing import Final

from torchstrata import process
from torchstrata.attestations import cosign
from torchstrata.errors import SigningError
from torchstrata.host import home

PASSWORD: Final = "COSIGN_PASSWORD"  # noqa: S105  # its name


def make_key(prefix: Path) -> Path:
    """Make a pair of keys with cosign, encrypted by ``$COSIGN_PASSWORD`` or what is typed; return the public key.

    The private one is for its owner alone (mode 0600). Keys that are there stay.

    :raises SigningError: there is one, or cosign cannot make them, or there is no password.
    """
    private, public = (Path(f"{home.expanded(prefix, SigningError)}{ending}") for ending in (".key", ".pub"))
    if existing := next(filter(os.path.lexists, (private, public)), None):
        raise SigningError(f"{existing} is there already", fix="use it, or name another place: inv key --to PATH")
    secret = {PASSWORD: _password()}
    with cosign.work() as work, cosign.signing("a pair of keys"):
        process.run(process.find("cosign", fix=cosign.INSTALL), "generate-key-pair", cwd=work, env=secret)
        pair = {path: (work / f"cosign{path.suffix}").read_bytes() for path in (private, public)}
    _write_new(private, pair[private], 0o600)
    try:
        _write_new(public, pair[public], 0o644)
    except BaseException:  # Ctrl-C, too: half a pair is none
        private.unlink()
        raise
    return public


def _password() -> str:
    """Return ``$COSIGN_PASSWORD``, or what is typed.

    :raises SigningError: nobody types anything.
    """
    if (password := os.environ.get(PASSWORD)) is not None:
        return password
    with contextlib.suppress(EOFError):  # Ctrl-D
        if sys.stdin.isatty():
            return getpass.getpass("password of the new key: ")
    raise SigningError("nobody has typed a password", fix=f"type one, or set {PASSWORD} (empty, if the key is to have none)")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet, all of it or nothing.

    :raises SigningError: it is, or cannot be written.
    """
    try:
        with open(path, "xb", opener=functools.partial(os.open, mode=mode)) as file, contextlib.ExitStack() as half:  # Path's has no opener
            half.callback(path.unlink)
            file.write(content)
            file.flush()
            half.pop_all()
    except OSError as error:
        raise SigningError(f"{path} cannot be written: {error.strerror}", fix="name another place: inv key --to PATH") from error
