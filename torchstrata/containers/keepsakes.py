"""What this machine remembers of each container, and its environment does not show: token, host key, entry for ssh."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from filelock import FileLock

from torchstrata.errors import ContainerError
from torchstrata.host import home
from torchstrata.host.filesystem import lock, whole

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
                _write(self.token, secrets.token_hex(TOKEN_BYTES))
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
        _write(self.known_hosts, f"{self.name} {kind} {value}\n")

    def forget(self) -> None:
        """Remove everything that is remembered.

        :raises ContainerError: the entry for ssh cannot be taken out.
        """
        shutil.rmtree(self.root, ignore_errors=True)
        entry = _entries()
        try:
            if entry and self.name in _read(entry):
                with self._turn():
                    _write(entry, _without(_read(entry), self.name))
        except OSError as error:
            raise ContainerError(f"{entry} cannot be written: {error.strerror}", fix=f"remove the entry {self.name} there by hand") from error

    def add_entry(self, address: str, port: int, identity: str = "") -> None:
        """Let ``ssh NAME`` lead to the container.

        :param identity: file of the key to offer; empty where ssh looks by itself.
        :raises ContainerError: the configuration of ssh cannot be written.
        """
        entry = _entries()
        if entry is None:
            raise ContainerError("this user has no home, in which ssh would look for an entry", fix="set HOME")
        block = ENTRY.format(name=self.name, address=address, port=port, known_hosts=self.known_hosts)
        block += IDENTITY.format(identity=identity) if identity else ""
        try:
            entry.parent.mkdir(mode=0o700, exist_ok=True)
            with self._turn():
                _write(entry, _without(_read(entry), self.name) + block)
                _include(entry.parent / "config")
        except OSError as error:
            fix = "leave --ssh-entry out, or let this user write there"
            raise ContainerError(f"{error.filename} cannot be written: {error.strerror}", fix=fix) from error

    def _turn(self) -> FileLock:
        """Return what lets one process at a time change the entries for ssh, which all containers share."""
        self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return lock(self.root.parent / ".lock")


def _read(path: Path) -> str:
    """Return the text of a file, whatever its encoding is; empty if there is none."""
    return path.read_bytes().decode(errors="surrogateescape") if path.is_file() else ""


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all; a new one is private, another keeps owner, mode and the link that leads to it."""
    path = Path(os.path.realpath(path))  # pathlib raises RuntimeError where a link leads to itself (before Python 3.13)
    before = path.stat() if path.is_file() else None
    with whole(path, stat.S_IMODE(before.st_mode) if before else 0o600) as file:
        file.write(text.encode(errors="surrogateescape"))
        if before and os.geteuid() == 0:  # it may be in the home of who has called sudo
            os.fchown(file.fileno(), before.st_uid, before.st_gid)


def _entries() -> Path | None:
    own = home.directory()
    return own / ".ssh" / INCLUDED if own else None


def _without(text: str, name: str) -> str:
    """Return entries of ssh without that of a name."""
    return re.sub(rf"^Host {re.escape(name)}\n(?: +.*\n)*", "", text, flags=re.MULTILINE)


def _include(config: Path) -> None:
    """Let the user's configuration of ssh include our file first; the rest of it, and its mode, stay."""
    before = _read(config)
    if INCLUDE not in before:
        _write(config, INCLUDE + before)
