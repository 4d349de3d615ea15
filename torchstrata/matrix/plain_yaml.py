"""YAML that people write, as values that look like what stands there: ``matrix.yaml`` and ``images/*/flavour.yaml``."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from torchstrata import files
from torchstrata.errors import MatrixError
from torchstrata.text import printable

LIMIT: Final = 1_000_000
"""Bytes of a file."""

DEPTH: Final = 12
"""Levels of mappings and lists in one another."""


def read(path: Path, name: str) -> object:
    """Return what a file holds; see :func:`parse`.

    :raises MatrixError: it cannot be read, or :func:`parse` refuses it.
    """
    try:
        return parse(files.read(path, LIMIT), name)
    except files.UnreadableError as error:
        raise MatrixError(error.what, fix="run from a checkout of the repository") from error


def parse(content: bytes, name: str) -> object:
    """Return what a file in YAML holds: mappings, lists, text, numbers and truth values as they stand there.

    :param name: of the file.
    :raises MatrixError: it is no YAML, or uses what makes values of other values: tags, anchors, aliases, merged keys.
    """
    try:
        _check_events(content, name)
        return yaml.load(content, Loader=_loader(name))  # noqa: S506  # a subclass of the safe loader
    except yaml.YAMLError as error:
        raise MatrixError(f"{name} is not YAML: {printable(' '.join(str(error).split()))}", fix="correct it at that line") from error
    except ValueError as error:  # text that looks like a date or a number
        raise MatrixError(f"{name} has a date or a number that is none: {printable(str(error))}", fix="put text in quotes") from error


def replaced(text: str, key: str, line: str) -> str:
    """Return a file with another line for a key of its top level, at its end if it is new; all else stays.

    :param line: key and value, without a line end.
    """
    top = yaml.compose(text, Loader=_Loader)
    places = [(name.start_mark.line, value.end_mark) for name, value in getattr(top, "value", ()) if name.value == key]
    lines = text.splitlines(keepends=True)
    if not places:
        return "".join([*lines[:-1], *(f"{last.rstrip()}\n" for last in lines[-1:]), f"{line}\n"])
    start, end = places[0][0], places[0][1].line + (places[0][1].column > 0)
    while not lines[end - 1].partition("#")[0].strip():  # a mapping in lines ends, for YAML, where the next key begins
        end -= 1
    return "".join([*lines[:start], f"{line}\n", *lines[end:]])


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's loader, if it was built with it
    """The safe loader, without its silence about keys given twice."""

    document = ""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        """Return the mapping of ``node``."""
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                where = f"the second time in line {node.start_mark.line + 1} or below"
                raise MatrixError(f"{self.document}: key {printable(str(name), 80)} is given twice, {where}", fix="remove one")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _loader(name: str) -> type[_Loader]:
    """Return the loader of a file, which names it in errors."""
    return type("_NamedLoader", (_Loader,), {"document": name})


def _check_events(content: bytes, name: str) -> None:
    """Refuse what the loader would make of the text otherwise: libyaml itself dies of some thousands of brackets."""
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        wrong = _wrong(event) or (f"more than {DEPTH} levels of lists and mappings" if depth > DEPTH else "")
        if wrong:
            where = f" line {event.start_mark.line + 1}" if event.start_mark else ""
            raise MatrixError(f"{name}{where} has {wrong}", fix="write the value itself, as plain or quoted text")


def _wrong(event: yaml.Event) -> str:
    """Return what an event has that no such file needs, in words."""
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return "an anchor or an alias"
    if getattr(event, "tag", None):
        return "a tag"
    if isinstance(event, yaml.ScalarEvent):
        if event.value == "<<":
            return "a merged key"
        return "" if event.value.isprintable() else "a value with control characters or line ends"
    return ""
