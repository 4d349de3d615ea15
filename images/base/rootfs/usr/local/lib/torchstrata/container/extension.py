"""What data cannot say of a service: a module ``services/NAME.py`` of its flavour, with any of the functions of :class:`Extension`.

Each function that a module lacks is the one of ``container/plain.py``. A module is loaded when one of its functions is needed, and never
for a command that reads none of its variables. It may import all of ``container``, and of Python's library what it needs. Its author is whoever derived
the image: whatever it raises ends in one line.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from container import plain, settings
from container.declarations import Declaration, Field
from container.services import Service

P = ParamSpec("P")
R = TypeVar("R")


class Extension(Protocol):
    """The functions that a module may have.

    All but ``check`` run as the container's user. ``check`` and ``plan`` may raise ``SettingError``: it ends the start, with its line and
    status 78. Any other error is the service's alone, which then does not start.
    """

    def check(self, given: Mapping[str, str]) -> None:
        """Refuse a value that one of the ``variables`` of the service cannot have: at every start that gives one of them, before anything is done.

        :raises SettingError: there is one.
        """

    def environment(self) -> Mapping[str, str]:
        """Return variables that all processes of the container get, unless they were given."""

    def plan(self, declared: Declaration, given: Mapping[str, str], home: Path) -> Service | None:
        """Return where the service will answer, refused where it cannot run here; None where nobody needs it. Write what it must find."""

    def command(self, declared: Declaration, service: Service) -> Sequence[str]:
        """Return how it is started, each time that it is."""

    def welcome(self, declared: Declaration, service: Service) -> Sequence[str]:
        """Return what the log says when it first answers; only these lines may show a secret."""

    def secrets(self, declared: Declaration) -> Sequence[str]:
        """Return the values that no other line of the log may show, once it is planned."""

    def findings(self, service: Service) -> Sequence[str]:
        """Return what ``torchstrata-doctor`` says of it while it answers."""


class ModuleError(Exception):
    """A module of a service cannot be loaded, or fails."""


def of(declared: Declaration, default: Callable[P, R]) -> Callable[P, R]:
    """Return a function of :class:`Extension` as the service has it.

    :param default: the one of ``container/plain.py``, whose name says which.
    """

    def guarded(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            module = importlib.import_module(f"services.{declared.module}") if declared.module else plain
            own: Callable[P, R] = getattr(module, default.__name__, default)
            return _fitting(default.__name__, own(*arguments, **named))
        except Exception as error:  # whatever the author of an image has written
            if isinstance(error, settings.SettingError) and default in (plain.check, plain.plan):
                raise
            raise ModuleError(_words(declared, default.__name__, error)) from error

    return guarded


def check(declared: Iterable[Declaration], given: Mapping[str, str]) -> None:
    """Let modules check those of their variables that are given.

    :raises SettingError: one has a value that it cannot have.
    """
    for declaration in declared:
        if any(name in given for name in declaration.variables):
            with contextlib.suppress(ModuleError):  # the plan says it, where the service is to run
                of(declaration, plain.check)(given)


def _fitting(function: str, value: R) -> R:
    """Return a value that a function of a module has returned.

    :raises TypeError: it is none that this function may return.
    """
    kind = KINDS.get(function, KINDS["lines"])
    if function != "check" and not kind.fits(value):
        raise TypeError(f"it returns no {kind.words}")
    return value


def _are_words(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)


KINDS: Final[Mapping[str, Field]] = {
    "environment": Field(lambda value: isinstance(value, Mapping) and _are_words([*value.keys(), *value.values()]), "variables"),
    "plan": Field(lambda value: value is None or (isinstance(value, Service) and isinstance(value.port, int)), "service"),
    "command": Field(lambda value: _are_words(value) and len(value) > 0, "command"),
    "lines": Field(_are_words, "list of lines"),
}
"""What each function must return."""


def _words(declared: Declaration, function: str, error: Exception) -> str:
    """Return in one line which module fails, where, and why."""
    what = f"its module {declared.module}.py" if declared.module else "it"
    return f"{what} fails in {function}: {type(error).__name__}: {error}"
