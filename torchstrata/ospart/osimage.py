"""The OS image: a distribution's smallest root file system, made from its own packages by mmdebstrap.

mmdebstrap runs where it is installed, else it is installed (root on Debian or Ubuntu), else it runs in a container. No mirror
is named: its default is the distribution's own, with the suites for security and updates.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

from torchstrata import process
from torchstrata.cells.matrix import OperatingSystem
from torchstrata.content import store
from torchstrata.content.codec import Codec
from torchstrata.errors import CommandError, OsPartError
from torchstrata.locking import oslocks
from torchstrata.locking.oslocks import OS_IMAGE, OsLock

PROGRAM: Final = "mmdebstrap"
OLDEST: Final = (1, 3)
"""The oldest mmdebstrap that was tried; its file systems equal those of 1.5, file by file."""

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES: Final = (PROGRAM, "debian-archive-keyring")

CONTAINER_VARIABLE: Final = "TORCHSTRATA_BOOTSTRAP_IMAGE"
"""Names an image of Debian or Ubuntu to run mmdebstrap in, where it cannot be installed."""

PARTIAL: Final = ("/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial")
"""Directories that apt gives to its own user, or leaves to root where that user cannot enter the temporary directory."""

FORMAT: Final = 2
"""Raise it when the bytes of an OS image change for the same call of mmdebstrap."""

PINS: Final = "/etc/apt/preferences.d/torchstrata"

NO_BOOTSTRAP: Final = f"install mmdebstrap {OLDEST[0]}.{OLDEST[1]} or newer and debian-archive-keyring, or name an image of Debian in {CONTAINER_VARIABLE}"


def reference(system: OperatingSystem) -> str | None:
    """Return the registry reference, with digest, of an OS image that is not bootstrapped; None if it is.

    :raises OsPartError: it has no digest.
    """
    if system.bootstrap:
        return None
    if not system.image or not system.digest:
        raise OsPartError(f"{system.id} comes from a registry and has no digest in matrix.yaml", fix=f"add `digest:` of {system.image} for linux/amd64")
    return f"{system.image}@{system.digest}"


def identity(system: OperatingSystem, lock: OsLock, config: bytes, codec: Codec) -> str:
    """Return the identity of the bootstrapped OS image; of no use for one from a registry.

    How mmdebstrap is called counts, since it decides the bytes; where its inputs lie does not.
    """
    call = arguments(system, "inputs", lock.epoch)
    return store.identity(kind=OS_IMAGE, os_image=FORMAT, call=call, config=config.decode(), lock=lock.digest(()), codec=codec.identity)


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A way to run mmdebstrap on this machine.

    :param image: image to run it in; None to run it here.
    """

    image: str | None = None

    @classmethod
    def find(cls, on_line: process.LineSink) -> Self:
        """Return a way that works, and install mmdebstrap if that is what it takes.

        :raises OsPartError: there is none.
        """
        if image := os.environ.get(CONTAINER_VARIABLE):
            on_line(f"{PROGRAM} runs in a container of {image}")
            return cls(image=image)
        if not shutil.which(PROGRAM) and os.geteuid() == 0 and shutil.which("apt-get"):
            on_line(f"{PROGRAM} is missing: installing it with apt-get")
            _install()
        _check()
        return cls()

    @contextlib.contextmanager
    def tar(self, system: OperatingSystem, lock: OsLock, config: bytes, scratch: Path) -> Iterator[IO[bytes]]:
        """Bootstrap the OS image and yield its tar.

        :param config: dpkg's configuration for it.
        :param scratch: directory for what mmdebstrap must read.
        :raises OsPartError: it failed.
        """
        with tempfile.TemporaryDirectory(dir=scratch) as inputs:
            Path(inputs, "dpkg.cfg").write_bytes(config)
            Path(inputs, "preferences").write_text(oslocks.preferences(lock.installed(())), encoding="utf-8")
            try:
                with process.piped(*self.around(inputs, arguments(system, inputs, lock.epoch))) as tar:
                    yield tar
            except process.Failed as error:
                raise refusal(system, error) from error

    def around(self, inputs: str, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return ``command`` as it is run here: as it is, or in a container that sees the directory ``inputs``."""
        if self.image is None:
            return command
        # mmdebstrap mounts /proc and /sys in what it makes, which only a privileged container may do.
        script = f'apt-get update >&2 && apt-get install --yes --no-install-recommends {" ".join(PACKAGES)} >&2 && exec "$@"'
        options = ("--rm", "--privileged", "--user", "0:0", "--volume", f"{inputs}:{inputs}:ro", "--entrypoint", "/bin/sh")
        return ("docker", "run", *options, self.image, "-c", script, "sh", *command)


def arguments(system: OperatingSystem, inputs: str, epoch: int) -> tuple[str, ...]:
    """Return mmdebstrap's command line; the tar goes to standard output.

    :param inputs: directory that holds ``dpkg.cfg`` and ``preferences``.
    """
    pin = f'mkdir -p "$1/etc/apt/preferences.d" && cp "{inputs}/preferences" "$1{PINS}"'
    own = f'chroot "$1" chown _apt {" ".join(PARTIAL)}'
    options = ("--quiet", "--variant=minbase", "--format=tar", f"--dpkgopt={inputs}/dpkg.cfg", f"--setup-hook={pin}", f"--customize-hook={own}")
    return ("env", f"SOURCE_DATE_EPOCH={epoch}", "LC_ALL=C.UTF-8", PROGRAM, *options, system.suite, "-")


def refusal(system: OperatingSystem, error: process.Failed) -> OsPartError:
    """Return why mmdebstrap failed."""
    if "NO_PUBKEY" in error.tail or "not signed" in error.tail:
        return OsPartError(f"this machine has no keys of {system.suite}", fix="upgrade debian-archive-keyring, then try again")
    said = [line for line in error.tail.splitlines() if line.startswith("E: ")] or [error.what]
    return OsPartError(
        f"{system.id} cannot be bootstrapped: {said[0]}", fix="check that the distribution's mirror can be reached (apt-get update), then try again"
    )


def _check() -> None:
    if not shutil.which(PROGRAM) or not KEYRING.exists():
        raise OsPartError(f"there is no {PROGRAM} to make an OS image with", fix=NO_BOOTSTRAP)
    version = process.run(PROGRAM, "--version").split()[-1]
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise OsPartError(f"{PROGRAM} {version} is too old", fix=NO_BOOTSTRAP)


def _install() -> None:
    try:
        process.run("apt-get", "update")
        process.run("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES, env={"DEBIAN_FRONTEND": "noninteractive"})
    except CommandError as error:
        raise OsPartError(f"{PROGRAM} cannot be installed: {error.what}", fix=NO_BOOTSTRAP) from error
