"""Running programs of another platform here, by QEMU's user mode, which the kernel starts for them (binfmt_misc).

Debian's packages register QEMU with the kernel so that it is open before a program starts (flag ``F``): containers and
build steps need not have it. See ``Documentation/admin-guide/binfmt-misc.rst`` of Linux.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from torchstrata import platforms, process
from torchstrata.errors import CommandError, EmulatorError, NotRootError
from torchstrata.host import apt, superuser

PACKAGES: Final = ("qemu-user-static", "binfmt-support", "arch-test")
"""QEMU; what registers it; and what mmdebstrap asks whether programs of an architecture run here."""

REGISTERED: Final = Path("/proc/sys/fs/binfmt_misc")
MOUNT: Final = ("mount", "-t", "binfmt_misc", "binfmt_misc")
FORMATS: Final = Path("/usr/share/binfmts")
"""What ``update-binfmts`` may be told to enable: QEMU of Debian 12, no longer that of Debian 13."""

RULES: Final = Path("/usr/lib/binfmt.d")
"""The same in the kernel's own words, which systemd hands it where it runs."""

ENABLED: Final = re.compile(r"\Aenabled\n(?:.*\n)*?flags: [A-Z]*F", re.MULTILINE)
"""How the kernel describes an interpreter that it starts, and that containers need not have."""

INTERPRETER: Final = re.compile(r"^interpreter (.+)$", re.MULTILINE)
VERSION: Final = re.compile(r" version (\d+)\.(\d+)")
OWN_CPU: Final = (8, 2)
"""The first QEMU whose ``/proc/cpuinfo`` is that of the CPU it offers; before it is the host's (docs/arm64.md)."""


def ensure(platform: str, report: process.LineSink) -> None:
    """Let programs of ``platform`` run here; where root can be had, QEMU is installed if it is missing.

    :param report: gets what happens to this machine.
    :raises EmulatorError: they cannot run; names the command that cures this.
    :raises AptError: QEMU cannot be installed.
    """
    if platforms.is_native(platform) or not lacks(platform):
        return
    if apt.is_here() and superuser.is_possible():
        apt.install(PACKAGES, report, unless=lambda: not lacks(platform))
        _register(platform, report)
    require(platform)


def require(platform: str) -> None:
    """Refuse a platform whose programs cannot run here; nothing is installed.

    :raises EmulatorError: it is one; names the command that cures this.
    """
    if not platforms.is_native(platform) and (why := lacks(platform)):
        raise EmulatorError(f"programs of {platform} cannot run here: {why}", fix=_cure(platform))


def lacks(platform: str) -> str | None:
    """Return why programs of a platform cannot run here; None if they can."""
    entry = REGISTERED / name(platform)
    if not (REGISTERED / "status").exists():
        return f"{REGISTERED} is not mounted, so that the kernel knows no QEMU"
    if not entry.exists():
        return f"the kernel knows no {name(platform)}"
    if not ENABLED.search(entry.read_text(encoding="ascii")):
        return f"{name(platform)} is disabled, or lacks the flag F, without which containers cannot use it"
    return None


def concern(platform: str) -> str | None:
    """Return what may not work with the QEMU that runs programs of a platform here, and what to do; None if nothing is known."""
    version = None if platforms.is_native(platform) else _version(platform)
    if version is None or version >= OWN_CPU:
        return None
    installed, wanted = (".".join(map(str, numbers)) for numbers in (version, OWN_CPU))
    cure = f"install QEMU {wanted} or newer: Debian 13's, or for Debian 12 that of bookworm-backports (docs/arm64.md)"
    return f"QEMU {installed} shows programs of {platform} this machine's CPU, so that torch may end with signal 11; {cure}"


def _version(platform: str) -> tuple[int, int] | None:
    """Return the version of QEMU; None where it is not registered, or its file is not here, as in a container.

    Debian registers a link whose name makes QEMU take all arguments for the program's: what it leads to is asked.
    """
    entry = REGISTERED / name(platform)
    registered = INTERPRETER.search(entry.read_text(encoding="utf-8")) if entry.exists() else None
    if registered is None:
        return None
    try:
        said = VERSION.search(process.run(Path(registered[1]).resolve(), "--version", seconds=10))
    except CommandError:
        return None
    return (int(said[1]), int(said[2])) if said else None


def name(platform: str) -> str:
    """Return what the kernel calls the interpreter of a platform, such as ``qemu-aarch64``."""
    return f"qemu-{platforms.MACHINES[platform]}"


def _register(platform: str, report: process.LineSink) -> None:
    """Let the kernel know QEMU where the packages could not, as in a container without systemd.

    :raises EmulatorError: it refuses.
    """
    try:
        for command in _missing(platform):
            report(" ".join(command))
            superuser.run(*command)
    except NotRootError:
        raise
    except CommandError as error:
        raise EmulatorError(f"programs of {platform} cannot run here: {error.what}", fix=_cure(platform)) from error


def _missing(platform: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands that are still to be run."""
    mount = () if (REGISTERED / "status").exists() else ((*MOUNT, str(REGISTERED)),)
    return (*mount, _enable(platform)) if lacks(platform) else ()


def _enable(platform: str) -> tuple[str, ...]:
    """Return the command that tells the kernel of an installed QEMU."""
    if (FORMATS / name(platform)).exists():
        return ("update-binfmts", "--enable", name(platform))
    return _hand_over(platform)


def _hand_over(platform: str) -> tuple[str, ...]:
    """Return the command that does what systemd would; one write, as the kernel wants it."""
    return ("dd", f"if={RULES / name(platform)}.conf", f"of={REGISTERED / 'register'}")


def _cure(platform: str) -> str:
    """Return the one command by which root lets programs of a platform run."""
    mount = "" if (REGISTERED / "status").exists() else f"sudo {' '.join(MOUNT)} {REGISTERED} && "
    if not apt.is_here():
        return f"install QEMU's user mode, static, so that {REGISTERED / name(platform)} is there with flag F (docs/arm64.md)"
    known = f"grep -qs ^enabled {REGISTERED / name(platform)}"
    enable = f"{known} || sudo update-binfmts --enable {name(platform)} || sudo {' '.join(_hand_over(platform))}"
    return f"run: {mount}sudo apt-get install --yes {' '.join(PACKAGES)} && ({enable})"
