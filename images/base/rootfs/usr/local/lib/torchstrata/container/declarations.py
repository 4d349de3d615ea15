"""Which services this image has: ``/etc/torchstrata/services.json``, written when it was composed, and a file for each that a derived image adds.

A service is data: what runs, on which port, which question tells that it is up. What data cannot say is a module of its own (``container/extension.py``).
The files are root's, and small; whoever derives an image has written some of them by hand, so that every field is looked at.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from container import settings

IMAGE: Final = Path("/etc/torchstrata/services.json")
"""``services``: their fields by name, parents' first; ``command``: what runs where none of them starts by itself."""

ADDED: Final = Path("/etc/torchstrata/services.d")
"""``NAME.json``: the fields of one service. One of the image's own name takes its place."""

ASKED: Final = "TORCHSTRATA_SERVICES"
"""Names the services that run; without it those that always do."""

LIMIT: Final = 64 << 10
"""Bytes of a file."""

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,60}")
CURE: Final = "correct it; docs/adding.md says what a service has"


class Declaration(NamedTuple):
    """A service that the image has.

    :param command: words; ``{port}`` and ``{state}``, a private directory, are filled in.
    :param variable: sets another port.
    :param scheme: how the probe asks: ``http``, ``https``, ``banner`` or ``tcp``.
    :param expected: the path that it asks for, or what the banner begins with.
    :param asked: whether it starts only where somebody asks for it.
    :param ready: what to say when it first answers; ``{port}`` and ``{url}`` are filled in.
    :param secrets: variables that no process of the container and no log may show.
    :param variables: those for which its module has a check.
    :param quiet: lines of its output with these words help nobody, and stay out of the log.
    :param module: ``services/MODULE.py`` says what data cannot; empty where it has none.
    :param trouble: why it cannot run; empty where it can.
    """

    name: str
    command: tuple[str, ...] = ()
    port: int = 0
    variable: str = ""
    scheme: str = "tcp"
    expected: str = ""
    asked: bool = False
    ready: str = ""
    secrets: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    module: str = ""
    trouble: str = ""


class Catalog(NamedTuple):
    """All services of an image, and what runs in their place where none starts by itself."""

    services: tuple[Declaration, ...] = ()
    command: tuple[str, ...] = ("bash",)


class Field(NamedTuple):
    """What a value may be, as a question and in words."""

    fits: Callable[[Any], bool]
    words: str


def read(image: Path | None = None, added: Path | None = None) -> Catalog:
    """Return what there is; a service whose fields are wrong has :attr:`Declaration.trouble`.

    :raises SettingError: the image's own file cannot be read, so that nobody knows what it has.
    """
    own = image or IMAGE
    document = _document(own) if own.exists() else {"services": {}}
    if isinstance(document, str) or not isinstance(rows := document.get("services"), dict):
        why = document if isinstance(document, str) else f"{own} has no services"
        raise settings.SettingError(why, "pull the image again, or correct what was derived from it")
    declared = {name: _declaration(name, row, own) for name, row in rows.items()}
    declared |= {path.stem: _declaration(path.stem, _document(path), path) for path in _listed(added or ADDED)}
    return Catalog(tuple(declared.values()), _words(document.get("command")) or Catalog().command)


def wanted(catalog: Catalog, given: Mapping[str, str]) -> tuple[Declaration, ...] | None:
    """Return the services that are to run; None where nobody asks for any and none starts by itself.

    :raises SettingError: somebody asks for one that the image lacks.
    """
    if ASKED in given and catalog.services:
        names = _names(catalog.services, ASKED, given[ASKED])
        return tuple(declared for declared in catalog.services if declared.name in names)
    return tuple(declared for declared in catalog.services if not declared.asked) or None


def secrets(declared: Iterable[Declaration]) -> tuple[str, ...]:
    """Return the variables that hold secrets of services, those of a service that cannot run among them."""
    names: list[str] = []
    for declaration in declared:
        names += declaration.secrets
    return tuple(names)


def gates(declared: tuple[Declaration, ...]) -> tuple[settings.Gate, ...]:
    """Return how the variables of services are checked, but for those that a module checks."""
    ports = (settings.Gate(declaration.variable, settings.port) for declaration in declared if declaration.variable)
    hidden = (settings.Gate(name, settings.token) for name in secrets(declared))
    files = (settings.Gate(f"{name}_FILE", settings.path) for name in secrets(declaration for declaration in declared if not declaration.module))
    return (*ports, *hidden, *files, settings.Gate(ASKED, functools.partial(_names, declared)))


def _names(declared: tuple[Declaration, ...], name: str, value: str) -> tuple[str, ...]:
    """Return the names of services in a list with spaces or commas between them.

    :raises SettingError: there is no such service.
    """
    known = [declaration.name for declaration in declared]
    names = tuple(value.replace(",", " ").split())
    unknown = [name for name in names if name not in known]
    if unknown:
        fix = f"give some of: {' '.join(known)}" if known else "leave it out: this image has none"
        raise settings.SettingError(f"{name} names {settings.shown(unknown[0])}, which is no service", fix)
    return names


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == ".json")
    except OSError:
        return []


def _document(path: Path) -> dict[str, Any] | str:
    """Return the JSON object of a file, or a text: why it has none."""
    try:
        document = json.loads(settings.read_file(path, LIMIT))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return f"{path} is not JSON"
    return document if isinstance(document, dict) else f"{path} has no fields"


def _declaration(name: str, row: Any, path: Path) -> Declaration:
    """Return a service as its fields have it.

    :param row: the fields; a text where they cannot be read: why.
    :param path: the file that has them, for messages.
    """
    trouble = row if isinstance(row, str) else _trouble(name, row)
    if trouble:
        hidden = row.get("secrets") if isinstance(row, dict) else ()
        return Declaration(name, trouble=trouble if isinstance(row, str) else f"{path}: {name} {trouble}", secrets=_words(hidden))
    ((scheme, expected),) = row["health"].items()
    return Declaration(
        name=name,
        command=_words(row.get("command")),
        port=row["port"],
        variable=row.get("port_variable") or f"{name.upper().replace('-', '_')}_PORT",
        scheme=scheme,
        expected="" if scheme == "tcp" else expected,
        asked=row.get("starts") == "asked",
        ready=row.get("ready") or f"{name} is ready: {{url}}",
        secrets=_words(row.get("secrets")),
        variables=_words(row.get("variables")),
        quiet=_words(row.get("quiet")),
        module=row.get("module") or "",
    )


def _trouble(name: str, row: Any) -> str:
    """Return what is wrong with the fields of a service; empty if nothing is."""
    if not NAME.fullmatch(name):
        return "is not a name of small letters, digits and dashes"
    if not isinstance(row, dict):
        return "has no fields"
    required = REQUIRED if row.get("module") else ("command", *REQUIRED)
    missing = next((field for field in required if not row.get(field)), None)
    if missing:
        return f"has no {missing}"
    unknown = next((field for field in row if field not in FIELDS), None)
    if unknown:
        return f"has {settings.shown(unknown)}, which is no field of a service"
    wrong = next((field for field, value in row.items() if field in FIELDS and value is not None and not FIELDS[field].fits(value)), None)
    return f"has a {wrong} that is not {FIELDS[wrong].words}" if wrong else ""


def _words(value: Any) -> tuple[str, ...]:
    """Return a list of words as it is; nothing in the place of any other value."""
    return tuple(value) if _is_list(value) else ()


def _is_list(value: Any, form: re.Pattern[str] | None = None) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word and (form is None or form.fullmatch(word)) for word in value)


def _is_health(value: Any) -> bool:
    """Return whether this is one question of the probe, with the path to ask for or the answer to expect."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((scheme, expected),) = value.items()
    if scheme in {"http", "https"}:
        return isinstance(expected, str) and re.fullmatch(r"/[\x21-\x7e]*", expected) is not None
    return expected is True if scheme == "tcp" else scheme == "banner" and isinstance(expected, str) and bool(expected)


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= settings.HIGHEST_PORT


def _is_text(form: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(form, value) is not None


VARIABLES: Final = Field(lambda value: _is_list(value, VARIABLE), "a list of names of variables")
FIELDS: Final[Mapping[str, Field]] = {
    "flavour": Field(_is_text(".+"), "a name"),
    "command": Field(
        lambda value: _is_list(value) and all(word.startswith("/") for word in value[:1]), "a list of words that begins with the path of a program"
    ),
    "port": Field(_is_port, f"a number from 1 to {settings.HIGHEST_PORT}"),
    "port_variable": Field(_is_text(VARIABLE.pattern), "the name of a variable"),
    "health": Field(_is_health, "one of http: /PATH, https: /PATH, banner: TEXT, tcp: true"),
    "starts": Field(_is_text("always|asked"), "always or asked"),
    "ready": Field(_is_text("[^\r\n]+"), "a line"),
    "secrets": VARIABLES,
    "variables": VARIABLES,
    "quiet": Field(_is_list, "a list of texts"),
    "module": Field(_is_text("[a-z][a-z0-9_]*"), "the name of a module"),
}
REQUIRED: Final = ("port", "health")
