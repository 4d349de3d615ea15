"""The OS image: a distribution's smallest root file system, made from its own packages by mmdebstrap.

mmdebstrap runs as root; or as an ordinary user in namespaces of its own; or else in a container of the distribution's
own image. All give the same layer. Root, or a user whose sudo asks for no password, gets it installed where it is
missing. No mirror is named: mmdebstrap's default is the distribution's own, with the suites for security and updates.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, Self

from torchstrata import platforms, process
from torchstrata.errors import CommandError, LockError, NightlyError, OsPartError, VariableError
from torchstrata.host import apt, superuser, temporary, variables
from torchstrata.host.leavings import Leaving
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OS_IMAGE, OsLock
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.progress import ignore
from torchstrata.store import store
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM
from torchstrata.text import printable

PROGRAM: Final = "mmdebstrap"
OLDEST: Final = (1, 3)
"""The oldest mmdebstrap that was tried; its file systems equal those of 1.5, file by file."""

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES: Final = (PROGRAM, "debian-archive-keyring")
HELPERS: Final = ("uidmap",)
"""What ordinary users need besides: newuidmap and newgidmap."""

CONTAINER_VARIABLE: Final = "TORCHSTRATA_BOOTSTRAP_IMAGE"
"""Names an image of Debian or Ubuntu to run mmdebstrap in, before any other way."""

SEND: Final = 'tar --create --directory=/ "${1#/}" | { shift; exec docker run "$@"; }'
"""Gives a container its inputs by standard input: the engine may see other files than this program does."""

IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
"""What may be the name of an image, and is no option."""

CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID", "SYS_CHROOT")
"""What mmdebstrap and apt need in a container: to give files away, to become apt's user, to change root."""

PARTIAL: Final = ("/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial")
"""Directories that apt gives to its own user, or leaves to root where that user cannot enter the temporary one."""

FORMAT: Final = 3
"""Raise it when the bytes of an OS image change for the same call of mmdebstrap."""

INPUTS: Final = "inputs"
WORK: Final = "work"
"""Directories of a run: what mmdebstrap reads, and where it makes a file system of hundreds of megabytes."""

PINS: Final = "/etc/apt/preferences.d/torchstrata"
ANOTHER_FAILED: Final = re.compile(r"E: \S+ failed: \d+$")
"""How mmdebstrap says that a program which it started has failed."""

TOLD: Final = "/etc/apt/apt.conf.d/torchstrata"

ASK_SOURCES: Final = 'cat "$1"/etc/apt/sources.list; exit 1'
"""A hook that runs when mmdebstrap knows its mirrors, and ends it before it asks them anything."""

NO_WAY: Final = f"{PROGRAM} can run nowhere to make an OS image"

Mode = Literal["root", "unshare", "sudo"]
"""How mmdebstrap runs here: as it is started, in namespaces of an ordinary user, or started by sudo."""


def reference(system: OperatingSystem, lock: OsLock) -> str | None:
    """Return the registry reference, with digest, of an OS image that is not bootstrapped; None if it is.

    :raises LockError: the lock has no digest.
    """
    if system.bootstrap:
        return None
    if not lock.image:
        raise LockError(f"locks/os/{system.name}.lock has no digest of {system.image}", fix=os_locks.FIX.format(system=system.asked))
    return lock.image


def identity(system: OperatingSystem, lock: OsLock, config: bytes, codec: Codec) -> str:
    """Return the identity of the bootstrapped OS image; of no use for one from a registry.

    How mmdebstrap is called counts, since it decides the bytes; where its inputs lie does not.
    """
    call = arguments(system, "inputs", lock.epoch)
    return store.identity(
        kind=OS_IMAGE, os_image=FORMAT, platform=system.platform, call=call, config=config.decode(), lock=lock.digest(()), codec=codec.identity
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A way to run mmdebstrap on this machine.

    :param image: image to run it in; None to run it here.
    :param mode: how it runs here.
    """

    image: str | None = None
    mode: Mode = "root"

    @classmethod
    def find(cls, on_line: process.LineSink) -> Self:
        """Return a way that works, and install mmdebstrap if that is what it takes.

        :raises OsPartError: no way works; the error names the command that cures this.
        :raises AptError: mmdebstrap cannot be installed.
        """
        if image := variables.text(CONTAINER_VARIABLE):
            if not IMAGE.fullmatch(image):
                raise VariableError(f"{CONTAINER_VARIABLE} names no image: {printable(image, 80)!r}", fix=f"unset it, or write {CONTAINER_VARIABLE}=debian:13")
            return cls._inside(image, on_line)
        if lacks() and apt.is_here() and superuser.is_possible():
            packages = PACKAGES if os.geteuid() == 0 else (*PACKAGES, *HELPERS)
            apt.install(packages, on_line, unless=lambda: not lacks())
        refused = lacks() or _no_namespaces()
        if not refused:
            return cls(mode="root" if os.geteuid() == 0 else "unshare")
        if not lacks() and superuser.is_possible():
            superuser.begin(f"{PROGRAM}, for which there are no user namespaces ({refused}),", on_line, fix=_cure(refused))
            return cls(mode="sudo")
        image = matrix.load().bootstrap_image
        if image is None:
            raise OsPartError(f"{NO_WAY}: {refused}", fix=_cure(refused))
        return cls._inside(image, on_line, refused)

    @classmethod
    def _inside(cls, image: str, on_line: process.LineSink, refused: str = "") -> Self:
        """Return the way into a container, whose image is pulled if the engine does not have it."""
        on_line(f"{PROGRAM} runs in a container of {image}")
        try:
            process.run("docker", "image", "inspect", "--format", "{{.Id}}", "--", image)
        except CommandError:
            _pull(image, refused)
        return cls(image=image)

    @contextlib.contextmanager
    def tar(self, system: OperatingSystem, lock: OsLock, config: bytes, told: AptSettings | None = None) -> Iterator[IO[bytes]]:
        """Bootstrap the OS image and yield its tar.

        :param config: dpkg's configuration for it.
        :param told: settings of apt while it downloads; the image does not keep them.
        :raises OsPartError: it failed.
        """
        with self.inputs() as inputs:
            Path(inputs, "dpkg.cfg").write_bytes(config)
            Path(inputs, "preferences").write_text(os_locks.preferences(lock.installed(())), encoding="utf-8")
            hooks = telling(inputs, told.write(Path(inputs), inputs)[0]) if told else ()
            try:
                with process.piped(*self.around(inputs, arguments(system, inputs, lock.epoch, hooks))) as tar:
                    yield tar
            except process.Failed as error:
                raise refusal(system, error) from error

    @staticmethod
    @contextlib.contextmanager
    def inputs() -> Iterator[str]:
        """Yield a directory for what mmdebstrap reads, beside the one where it works; both go with the run."""
        with temporary.directory() as directory:
            for name in (INPUTS, WORK):
                temporary.passable(directory / name)
            yield str(directory / INPUTS)

    def around(self, inputs: str, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return ``command``, a call of mmdebstrap, as it runs here; it sees ``inputs`` of :meth:`inputs`."""
        if self.image is not None:
            return self._contained(inputs, command)
        work = f"TMPDIR={Path(inputs).with_name(WORK)}"
        if self.mode == "sudo":
            return superuser.command("env", *_assigned(apt.proxies()), work, *command)
        if self.mode == "root":
            return ("env", work, *command)
        # The root of its namespace is another user outside: it may read only what everybody may.
        for path in (Path(inputs), *Path(inputs).iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        place = command.index(PROGRAM) + 1
        return ("env", work, *command[:place], "--mode=unshare", *command[place:])

    def _contained(self, inputs: str, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return the call of a container; mmdebstrap does without the right to mount, which changes no byte."""
        assert self.image is not None
        install = f"apt-get update >&2 && apt-get install --yes --no-install-recommends {' '.join(PACKAGES)} >&2"
        script = f'tar --extract --no-same-owner --directory=/ && {install} && exec "$@"'
        rights = ("--cap-drop=ALL", *(f"--cap-add={name}" for name in CAPABILITIES), "--security-opt=no-new-privileges")
        variables = (f"--env={variable}" for variable in (*_assigned(apt.proxies()), "DEBIAN_FRONTEND=noninteractive"))
        name = f"torchstrata-{Path(inputs).parent.name}"
        Leaving.of("container", name).listed(Path(inputs).parent)
        options = ("--rm", f"--name={name}", "--interactive", "--init", *rights, *variables, "--user=0:0", "--entrypoint=/bin/sh")
        return ("sh", "-c", SEND, "sh", inputs, *options, "--", self.image, "-c", script, "sh", *command)


def _assigned(variables: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in variables.items())


def telling(inputs: str, name: str) -> tuple[str, ...]:
    """Return the options of mmdebstrap that let apt read a configuration, and then take it away.

    :param inputs: directory that holds it.
    :param name: of its file.
    """
    return (f'--setup-hook=cp "{inputs}/{name}" "$1{TOLD}"', f'--customize-hook=rm "$1{TOLD}"')


def arguments(system: OperatingSystem, inputs: str, epoch: int, more: Sequence[str] = ()) -> tuple[str, ...]:
    """Return mmdebstrap's command line; the tar goes to standard output.

    :param inputs: directory that holds ``dpkg.cfg`` and ``preferences``.
    :param more: options that do not change what is made.
    """
    pin = f'mkdir -p "$1/etc/apt/preferences.d" && cp "{inputs}/preferences" "$1{PINS}"'
    own = f'chroot "$1" chown _apt {" ".join(PARTIAL)}'
    options = ("--quiet", "--variant=minbase", "--format=tar", f"--dpkgopt={inputs}/dpkg.cfg", f"--setup-hook={pin}", f"--customize-hook={own}")
    return ("env", f"SOURCE_DATE_EPOCH={epoch}", "LC_ALL=C.UTF-8", PROGRAM, *options, *_foreign(system), *more, system.suite, "-")


def _foreign(system: OperatingSystem) -> tuple[str, ...]:
    """Return the option that names another platform; the default one's call stays as it was: it decides identities."""
    return () if system.platform == PLATFORM else (f"--architectures={platforms.architecture(system.platform)}",)


def sources(system: OperatingSystem) -> str:
    """Return apt's sources as mmdebstrap writes them for an OS.

    :raises NightlyError: it does not say.
    """
    lines: list[str] = []
    asking = (PROGRAM, "--quiet", "--variant=custom", f"--setup-hook={ASK_SOURCES} >&2", *_foreign(system), system.suite, "/dev/null")
    try:
        with Command.inputs() as inputs:
            process.run(*Command.find(ignore).around(inputs, asking), on_line=lines.append)
    except process.Failed:
        listed = [line for line in lines if line.startswith("deb ")]
        if listed:
            return "".join(f"{line}\n" for line in listed)
    raise NightlyError(f"{system.id}: mmdebstrap does not say where the mirrors of {system.suite} are", fix="upgrade mmdebstrap")


def refusal(system: OperatingSystem, error: process.Failed) -> OsPartError:
    """Return why mmdebstrap failed."""
    if "NO_PUBKEY" in error.tail or "not signed" in error.tail:
        return OsPartError(f"this machine has no keys of {system.suite}", fix="upgrade debian-archive-keyring, then try again")
    return OsPartError(
        f"{system.name} cannot be bootstrapped: {_reason(error)}", fix="check that the distribution's mirror can be reached (apt-get update), then try again"
    )


def _reason(error: process.Failed) -> str:
    """Return mmdebstrap's first error; where it says of another program only that it failed, with that one's last line before."""
    lines = error.tail.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("E: ")), None)
    if first is None:
        return error.what
    return f"{lines[first - 1]} ({lines[first]})" if first and ANOTHER_FAILED.match(lines[first]) else lines[first]


def lacks() -> str | None:
    """Return what this machine lacks to run mmdebstrap at all; None if it can."""
    if not shutil.which(PROGRAM):
        return f"{PROGRAM} is not installed"
    if not KEYRING.exists():
        return "debian-archive-keyring is not installed"
    version = process.run(PROGRAM, "--version").split()[-1]
    return f"{PROGRAM} {version} is too old" if tuple(map(int, version.split(".")[:2])) < OLDEST else None


def _no_namespaces() -> str | None:
    """Return why this user cannot have user namespaces, after trying; None if they work, or are not needed."""
    if os.geteuid() == 0:
        return None
    try:
        process.run(PROGRAM, "--unshare-helper", "true")
    except process.Failed as error:
        return error.tail.strip().rpartition("\n")[2].removeprefix("E: ") or error.what
    return None


def _pull(image: str, refused: str) -> None:
    """Have the engine fetch the image that mmdebstrap shall run in.

    :param refused: why it cannot run here; empty where nobody wants that.
    """
    why = f"{NO_WAY}: {refused}, and" if refused else f"{NO_WAY}:"
    try:
        process.run("docker", "pull", "--quiet", "--", image)
    except process.Failed as error:
        last = error.tail.strip().splitlines()[-1:] or [""]
        raise OsPartError(f"{why} no engine that runs {image}: {last[0]}", fix=_cure(refused)) from error
    except CommandError as error:
        raise OsPartError(f"{why} no engine to run it in", fix=_cure(refused)) from error


def _cure(refused: str) -> str:
    """Return the one command that lets this user run mmdebstrap."""
    if "subuid" in refused or "subgid" in refused:
        return 'run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"'
    if "unshare" in refused or not apt.is_here():
        return f"run `nox -s engine`, or start the engine that is there; or name an image that it has in {CONTAINER_VARIABLE}"
    return f"run: sudo apt-get install --yes {' '.join((*PACKAGES, *HELPERS))}"
