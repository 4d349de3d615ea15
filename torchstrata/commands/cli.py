"""How a command ends: an error in two lines, one exit code, never a traceback for what a person can mend."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn, TextIO

from torchstrata import errors, process
from torchstrata.host import variables

CHATTY: Final = ("urllib3", "py_serializable", "docker", "httpcore2", "httpx2", "unearth", "filelock", "asyncio")
"""Libraries that nox, which shows every log message, would let speak."""

INTERRUPTED: Final = "interrupted; what was complete is kept, and the next run goes on from there"
"""What is true after Ctrl-C of all that builds, pushes or locks; other verbs say what is true of them."""

BETWEEN: Final = "interrupted"
"""Before a verb has begun, or after it has ended."""

_guards: list[None] = []
"""One for each :func:`guarded` that is under way."""


@contextmanager
def guarded(interrupted: str = INTERRUPTED) -> Iterator[None]:
    """Print an error in two lines and exit with its code; never a traceback for what a person can mend.

    Its code is kept where nobody reads standard error. A full disk or a closed pipe behind standard output is an error,
    too. Where a signal kills the process inside a library in C, every thread's traceback is printed before.

    :param interrupted: what is true after Ctrl-C, in one line.
    """
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)
    _guards.append(None)
    try:
        _open_streams()
        variables.check()
        with _output():
            yield
    except errors.TorchstrataError as error:
        with contextlib.suppress(errors.OutputError), _output():
            pass
        _tell(f"error: {error}\n")
        raise SystemExit(error.code) from error
    except KeyboardInterrupt:
        _tell(f"\n{interrupted}\n")
        raise SystemExit(errors.INTERRUPTED) from None
    finally:
        _guards.pop()


def _open_streams() -> None:
    """Give a process without a standard stream the null device, where Python has ``None``.

    What the encoding of standard output lacks is escaped, as Python itself does on standard error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def _output() -> Iterator[None]:
    """Write out at the end what was printed.

    :raises OutputError: standard output takes nothing more.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or _takes(sys.stdout, "\n"):
            raise
        raise errors.OutputError(
            f"standard output cannot be written: {error.strerror}", fix="see what it leads to: a full disk, or a program that has ended"
        ) from error


def _tell(text: str) -> None:
    """Write to standard error, if that takes anything."""
    _takes(sys.stderr, text)


def _takes(stream: TextIO, text: str) -> bool:
    """Write a text; return whether the stream took it, else make it the null device: Python writes at its end."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        return False
    return True


def answer_interrupts() -> None:
    """Say that a verb was interrupted also while it is looked up: Invoke would end with 1 and without a word then."""
    process.end_as_by_ctrl_c(_interrupt)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.default_int_handler:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    if _guards:
        raise KeyboardInterrupt
    end_interrupted()


def end_interrupted() -> NoReturn:
    """Say that a verb was interrupted, and end.

    :raises SystemExit: always.
    """
    _tell_once()
    raise SystemExit(errors.INTERRUPTED)


@functools.cache
def _tell_once() -> None:
    """Say that a verb was interrupted, but not again where an interruption comes again (:func:`.process.end_as_by_ctrl_c`)."""
    _open_streams()
    _tell(f"\n{BETWEEN}\n")


def hush() -> None:
    """Silence libraries, some of which already speak when they are imported."""
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"docker\.")  # of a helper of credentials, before the error that says it
