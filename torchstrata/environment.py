"""The environment in which plain ``nox`` runs: the packages of ``requirements.txt``, exact versions, checked hashes.

Only nox, and what nox itself needs, is installed where this is imported.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from filelock import FileLock
from packaging.requirements import InvalidRequirement, Requirement

from torchstrata import files, process
from torchstrata.errors import INTERRUPTED, LockError
from torchstrata.text import printable

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements.txt"
LIMIT: Final = 4_000_000
"""Bytes of a lock."""

ENVIRONMENTS: Final = ROOT / ".nox" / "locked"


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedPackage:
    """A package of a lock.

    :param requirement: its name and version, and where it is needed.
    :param hashes: of its files, such as ``sha256:...``.
    """

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def version(self) -> str:
        """The version, without ``==``."""
        return str(self.requirement.specifier).removeprefix("==")

    @property
    def is_needed(self) -> bool:
        """Whether this machine and this Python need it."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read(lock: Path) -> Iterator[LockedPackage]:
    """Yield the packages of a requirements file of pip's with hashes.

    :raises LockError: it cannot be read, or a line of it is no requirement, such as one that a merge has left.
    """
    text = "\n".join(line for line in _text(lock).split("\n") if not line.lstrip().startswith("#"))
    for line in filter(str.strip, text.replace("\\\n", " ").split("\n")):
        requirement, *hashes = line.split(" --hash=")
        try:
            yield LockedPackage(requirement=Requirement(requirement.strip()), hashes=tuple(map(str.strip, hashes)))
        except InvalidRequirement as error:
            raise LockError(
                f"{lock.name} has a line that is no requirement: {printable(line.strip(), 80)}", fix=f"run: git checkout HEAD -- {lock.name}"
            ) from error


def _text(lock: Path) -> str:
    try:
        return files.text(lock, LIMIT)
    except files.UnreadableError as error:
        raise LockError(error.what, fix=f"run: git checkout HEAD -- {lock.name}") from error


def enter(words: Sequence[str]) -> None:
    """Return if this Python has the locked packages; else become the nox of an environment that has them.

    :param words: nox's words, without its name.
    :raises SystemExit: the lock cannot be read, the packages cannot be installed, or a person interrupted it.
    """
    try:
        environment = ENVIRONMENTS / name()
        python = environment / "bin/python"
        if Path(sys.prefix) == environment or not missing():
            return
        _make(environment, python)
    except LockError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.code) from error
    except OSError as error:
        fix = f'use a clone of your own; or take over what another user has made: sudo chown -R "$USER" {shlex.quote(str(ENVIRONMENTS.parent))}'
        raise SystemExit(f"noxfile.py: {error.filename or ENVIRONMENTS}: {error.strerror}\n  -> {fix}") from error
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the next call installs them anew\n")
        raise SystemExit(INTERRUPTED) from None
    place = words.index("--") if "--" in words else len(words)
    noxfile = ("--noxfile", str(ROOT / "noxfile.py"))  # nox has changed the directory, so the caller's word may lead nowhere
    os.execv(python, [str(python), "-m", "nox", *words[:place], *noxfile, *words[place:]])  # noqa: S606  # this very program


def name() -> str:
    """Return what the environment of this lock and this Python is called.

    :raises LockError: the lock cannot be read.
    """
    return hashlib.sha256((_text(LOCK) + sys.version).encode()).hexdigest()[:12]


def missing(lock: Path = LOCK) -> list[str]:
    """Return the packages of a lock that this Python needs and does not have at their version."""
    needed = [package for package in read(lock) if package.is_needed]
    return [str(package.requirement) for package in needed if _installed(package.requirement.name) != package.version]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _make(environment: Path, python: Path) -> None:
    """Make an environment with the locked packages, unless that is done."""
    complete = environment / "complete"
    if complete.exists():  # perhaps by another user (`sudo nox -s engine`), whose lock this one may not open
        return
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{environment}.lock", mode=0o600):
        if complete.exists():
            return
        sys.stderr.write(f"noxfile.py: installing the packages of {LOCK.name} into {environment}\n")
        _run(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(environment))
        _run(*_installation(python), "--quiet", "--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCK))
        complete.touch()


def _installation(python: Path) -> list[str]:
    """Return the command that installs packages for a Python: uv's where uv is, else that of its own pip."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    uv = shutil.which("uv", path=beside)
    return [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]


def _run(*command: str) -> None:
    try:
        process.run(*command)
    except process.Failed as error:
        sys.stderr.write(error.tail)
        raise SystemExit(f"noxfile.py: the packages of {LOCK.name} cannot be installed: see above\n  -> {error.fix}") from error
