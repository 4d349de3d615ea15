"""What this machine remembers of each container, and its environment does not show: token, host key, entry for ssh."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from torchstrata.errors import ContainerError
from torchstrata.host import home

TOKEN_BYTES: Final = 24
ENTRY: Final = """\
Host {name}
    HostName {address}
    Port {port}
    User dev
    HostKeyAlias {name}
    UserKnownHostsFile "{known_hosts}"
"""
IDENTITY: Final = '    IdentityFile "{identity}"\n'
INCLUDED: Final = "torchstrata.config"
INCLUDE: Final = f"Include {INCLUDED}\n"
"""It stands before all hosts of the user's own configuration: below one it would apply to it alone (ssh_config(5))."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keepsakes:
    """What is remembered of a container.

    :param name: of the container.
    :param root: directory that holds it.
    """

    name: str
    root: Path

    @classmethod
    def of(cls, name: str) -> Self:
        """Return those of a container.

        :raises ContainerError: this user has no home.
        """
        root = home.state("torchstrata")
        if root is None:
            what = "this user has no home, in which the token could be kept"
            raise ContainerError(what, fix="set HOME, or XDG_STATE_HOME")
        return cls(name=name, root=root / "containers" / name)

    @property
    def token(self) -> Path:
        """The file of Jupyter's token."""
        return self.root / "jupyter-token"

    @property
    def known_hosts(self) -> Path:
        """The file with the container's host key, under its name."""
        return self.root / "known_hosts"

    def make_token(self, owner: int) -> None:
        """Write a token, unless there is one.

        :param owner: uid that may read it; only root can give it away.
        :raises ContainerError: it cannot be written.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.token.is_file():
                self._write(self.token, secrets.token_hex(TOKEN_BYTES))
            if os.geteuid() == 0:
                os.chown(self.token, owner, -1)
        except OSError as error:
            fix = "let this user write there, or set XDG_STATE_HOME"
            raise ContainerError(f"{self.token} cannot be written: {error.strerror}", fix=fix) from error

    def read_token(self) -> str | None:
        """Return the token; ``None`` if this user may not read it."""
        try:
            return self.token.read_text(encoding="ascii").strip()
        except OSError:
            return None

    def know_host(self, key: str) -> None:
        """Remember the container's host key.

        :param key: line of a public key's file.
        """
        kind, value = key.split()[:2]
        self._write(self.known_hosts, f"{self.name} {kind} {value}\n")

    def forget(self) -> None:
        """Remove everything that is remembered."""
        shutil.rmtree(self.root, ignore_errors=True)
        entry = _entries()
        if entry.is_file():
            entry.write_text(_without(entry.read_text(encoding="utf-8"), self.name), encoding="utf-8")

    def add_entry(self, address: str, port: int, identity: str = "") -> None:
        """Let ``ssh NAME`` lead to the container.

        :param identity: file of the key to offer; empty where ssh looks by itself.
        :raises ContainerError: the configuration of ssh cannot be written.
        """
        entry = _entries()
        block = ENTRY.format(name=self.name, address=address, port=port, known_hosts=self.known_hosts)
        block += IDENTITY.format(identity=identity) if identity else ""
        try:
            entry.parent.mkdir(mode=0o700, exist_ok=True)
            before = entry.read_text(encoding="utf-8") if entry.is_file() else ""
            self._write(entry, _without(before, self.name) + block)
            _include(entry.parent / "config")
        except OSError as error:
            fix = "leave --ssh-entry out, or let this user write there"
            raise ContainerError(f"{error.filename} cannot be written: {error.strerror}", fix=fix) from error

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """Write a private file, whole or not at all."""
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)


def _entries() -> Path:
    own = home.directory()
    if own is None:
        raise ContainerError("this user has no home, in which ssh would look for an entry", fix="set HOME")
    return own / ".ssh" / INCLUDED


def _without(text: str, name: str) -> str:
    """Return entries of ssh without that of a name."""
    return re.sub(rf"^Host {re.escape(name)}\n(?: +.*\n)*", "", text, flags=re.MULTILINE)


def _include(config: Path) -> None:
    """Let the user's configuration of ssh include our file first; the rest of it, and its mode, stay."""
    before = config.read_text(encoding="utf-8") if config.is_file() else ""
    if INCLUDE not in before:
        config.touch(mode=0o600)
        config.write_text(INCLUDE + before, encoding="utf-8")
