"""The gate for the variables that a container is started with: each is read, bounded and refused here, before anything is done.

A value that can never be right ends the start with one line and status 78: an ignored one would leave a container that looks as
asked for and is not. A value that is right, but not here (a taken port, a file that is missing), is the business of whoever uses it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

HIGHEST_PORT: Final = 65535
LONGEST: Final = 1024
"""Characters of a value that is not a list of keys or patterns."""

LONGEST_LIST: Final = 128 << 10
"""Bytes of any value; Linux itself hands a program no longer one (execve(2), MAX_ARG_STRLEN)."""

SMALL_FILE: Final = 64 << 10
"""Bytes of a file with a token or with keys."""

CERTIFICATES_FILE: Final = 16 << 20
"""Bytes of a file of certificate authorities; the public ones take 0.2 MB."""

LONGEST_HOOK: Final = 604_800.0
LONGEST_GRACE: Final = 3_600.0
YES: Final = ("1", "true", "yes", "on")
NO: Final = ("", "0", "false", "no", "off")

SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://[0-9A-Fa-f.:\[\]]+")
"""What Kubernetes puts into ``SSH_PORT`` of every pod beside a service named ``ssh``: nobody's setting, and left aside."""


class SettingError(Exception):
    """A variable has a value that it cannot have.

    :param what: names the variable and says what is wrong; never the value of a secret.
    :param fix: what to do.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class Gate(NamedTuple):
    """How a variable is checked: ``check(name, value)`` raises :class:`SettingError`."""

    name: str
    check: Callable[[str, str], object]


def check_command(arguments: Sequence[str]) -> None:
    """Refuse a first word that is no command: env(1), which starts it, would take it for its own option or variable.

    :raises SettingError: it begins with a dash or has an equals sign.
    """
    if arguments and (arguments[0].startswith("-") or "=" in arguments[0]):
        raise SettingError(f"{arguments[0][:80]!r} is no command", "options of docker run stand before the name of the image, variables behind -e")


def check(given: Mapping[str, str], of_services: Sequence[Gate] = ()) -> None:
    """Refuse a variable whose value can never be right, and one named as ours, known or not, that is too long.

    :param of_services: the gates of what services read.
    :raises SettingError: there is one.
    """
    gates = (*GATES, *of_services)
    apply(given, gates)
    prefixes = tuple({f"{gate.name.partition('_')[0]}_" for gate in gates if "_" in gate.name})
    for name, value in given.items():
        if name.startswith(prefixes) and len(os.fsencode(value)) > LONGEST_LIST:
            raise SettingError(f"{name} has more than {LONGEST_LIST >> 10} kB", "give less, or a file")


def apply(given: Mapping[str, str], gates: Sequence[Gate]) -> None:
    """Let each gate look at its variable, if that is given.

    :raises SettingError: one has a value that it cannot have.
    """
    for gate in gates:
        if gate.name in given:
            gate.check(gate.name, given[gate.name])


def links(given: Mapping[str, str], gates: Sequence[Gate]) -> tuple[str, ...]:
    """Return the names of variables for a port that hold what Kubernetes says of a service."""
    return tuple(gate.name for gate in gates if gate.check is port and SERVICE_LINK.fullmatch(given.get(gate.name, "")))


def port(name: str, value: str) -> int:
    """Return a TCP port; 0 where none is given.

    :raises SettingError: it is not a number from 1 to 65535.
    """
    if SERVICE_LINK.fullmatch(value):
        return 0
    if value and not (value.isascii() and value.isdigit() and len(value) <= len(str(HIGHEST_PORT)) and 0 < int(value) <= HIGHEST_PORT):
        raise SettingError(f"{name}={shown(value)} is not a port", f"give a number from 1 to {HIGHEST_PORT}")
    return int(value or 0)


def seconds(longest: float) -> Callable[[str, str], float | None]:
    """Return a check that returns a number of seconds up to ``longest``; None where none is given."""

    def read(name: str, value: str) -> float | None:
        is_number = re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value, re.ASCII)
        if value and not (is_number and float(value) <= longest):
            raise SettingError(f"{name}={shown(value)} is not a number of seconds", f"give one from 0 to {longest:.0f}")
        return float(value) if value else None

    return read


hook_timeout: Final = seconds(LONGEST_HOOK)
stop_grace: Final = seconds(LONGEST_GRACE)


def flag(name: str, value: str) -> bool:
    """Return whether something is switched on.

    :raises SettingError: the value says neither yes nor no.
    """
    if value.lower() not in (*YES, *NO):
        raise SettingError(f"{name}={shown(value)} says neither yes nor no", "give 1 or 0")
    return value.lower() in YES


def token(name: str, value: str) -> str:
    """Return a token without the spaces around it.

    :raises SettingError: it has control characters, or more than 1024 characters; the message does not quote it.
    """
    stripped = value.strip()
    if len(stripped) > LONGEST or not stripped.isprintable():
        raise SettingError(f"{name} has control characters, or more than {LONGEST} characters", "give a token of printable characters")
    return stripped


def path(name: str, value: str) -> str:
    """Return the absolute path of a file; empty where none is given.

    :raises SettingError: it is relative, or has control characters, or more than 1024 characters.
    """
    if value and not (value.startswith("/") and value.isprintable() and len(value) <= LONGEST):
        raise SettingError(f"{name}={shown(value)} is not an absolute path", "give one that begins with / and has printable characters only")
    return value


def home(name: str, value: str) -> str:
    """Return a home directory that an entry of passwd(5) can hold.

    :raises SettingError: it is no path, or has a colon, which would begin another field.
    """
    if ":" in value:
        raise SettingError(f"{name}={shown(value)} cannot be a home", "give an absolute path without a colon")
    return path(name, value)


def program(name: str, value: str) -> str:
    """Return the path of a program.

    :raises SettingError: there is none.
    """
    if path(name, value) and not os.access(value, os.X_OK):
        raise SettingError(f"{name}={shown(value)} is not a program of this image", "give the path of one, such as /bin/bash")
    return value


def text(name: str, value: str) -> str:
    """Return a value of printable characters, spaces, tabs and line ends.

    :raises SettingError: it has others.
    """
    if not all(character.isprintable() or character in "\t\r\n" for character in value):
        raise SettingError(f"{name} has control characters", "give plain text")
    return value


def shown(value: str) -> str:
    """Return a value for a message: printable, and no longer than 60 characters."""
    printable = "".join(character if character.isprintable() else "?" for character in value)
    return printable if len(printable) <= 60 else f"{printable[:57]}..."  # noqa: PLR2004  # a line of a terminal has 80


def unread(error: OSError | ValueError) -> str:
    """Return why :func:`read_file` could not read a file."""
    return str(error.strerror) if isinstance(error, OSError) else "it is not text"


def read_file(path: Path, limit: int) -> str:
    """Return the text of a regular file, without waiting for a writer of a FIFO.

    :param limit: bytes that it may have.
    :raises OSError: it cannot be read, is not a regular file, or is larger.
    :raises ValueError: it is not UTF-8.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:  # Path.open takes no opener
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit >> 10} kB")
    return content.decode()


GATES: Final = (
    Gate("HOME", home),
    Gate("SHELL", program),
    Gate("TORCHSTRATA_SECRETS", text),
    Gate("TORCHSTRATA_CA_FILE", path),
    Gate("TORCHSTRATA_REQUIRE_GPU", flag),
    Gate("TORCHSTRATA_QUIET", flag),
    Gate("TORCHSTRATA_HOOK_TIMEOUT", hook_timeout),
    Gate("TORCHSTRATA_STOP_GRACE", stop_grace),
)
"""Every variable that the runtime itself reads, whatever services there are; theirs are in ``gates`` of ``container/declarations.py``."""
