"""The shape of files that people write: where one has another, in words, and what may stand there."""

from __future__ import annotations

import bisect
import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from torchstrata import decoding
from torchstrata.errors import MatrixError
from torchstrata.matrix import schema
from torchstrata.text import printable

T = TypeVar("T", bound=schema.Raw)

PLACE: Final = re.compile(r" - at `(key` in `)?(\$[^`]*)`\Z")
"""How msgspec ends a message about a part of a document."""

ANY_KEY: Final = "[...]"
"""What msgspec writes for a key of a mapping whose keys are names."""

SHAPES: Final[Mapping[str, type[schema.Raw]]] = {
    "$": schema.MatrixFile,
    "$.systems": schema.SystemSettings,
    "$.rows": schema.Row,
    "$.strata": schema.Strata,
    "$.channels": schema.ChannelSettings,
    "$.strata.cuda_groups": schema.Group,
}

KINDS: Final[Mapping[str, str]] = {"date": "date", "datetime": "time", "bool": "truth value", "null": "missing value"}
"""What YAML makes of unquoted text, in words."""


def convert(document: object, kind: type[T], name: str, shapes: Mapping[str, type[schema.Raw]] = SHAPES, described: Path = schema.SCHEMA) -> T:
    """Return what a file holds, in its shape.

    :param name: of the file.
    :param shapes: of its mappings.
    :param described: where its JSON schema is.
    :raises MatrixError: it has another shape; one line says where, another what may stand there.
    """
    try:
        return decoding.convert(document, kind)
    except msgspec.ValidationError as error:
        mistake = Mistake.of(str(error))
        raise _explain(mistake, name, _keys_on_the_way(document, kind, mistake), shapes, described) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """What msgspec says, in parts. Without a place it is about the whole document.

    :param is_key: whether a key is wrong, and not what stands under it.
    :param place: such as ``$.rows[0].os``.
    """

    message: str
    problem: str
    is_key: bool
    place: str

    @classmethod
    def of(cls, message: str) -> Self:
        """Return its parts; what people wrote, which may look like a place, is in the problem."""
        found = PLACE.search(message)
        problem = message[: found.start()] if found else message
        return cls(message=message, problem=problem, is_key=bool(found and found[1]), place=found[2] if found else "$")


def _keys_on_the_way(document: object, kind: type[T], mistake: Mistake) -> list[str]:
    """Return the keys for which msgspec writes :data:`ANY_KEY`, and last the one that is wrong itself; fewer where its words mislead."""
    rest: Any = copy.deepcopy(document)
    place, keys = rest, []
    steps: list[str] = [*re.findall(r"\[\.\.\.\]|[^.\[\]]+", mistake.place.removeprefix("$")), *([ANY_KEY] if mistake.is_key else [])]
    for step in steps:
        if step == ANY_KEY and isinstance(place, dict) and place:
            step = _first_wrong(rest, place, kind, mistake.message)  # noqa: PLW2901  # the key itself
            keys.append(printable(str(step)))
        try:
            place = place[int(step) if isinstance(place, list) else step]
        except (LookupError, TypeError, ValueError):
            break
    return keys


def _first_wrong(document: object, place: dict[Any, object], kind: type[T], message: str) -> Any:
    """Return the key of one of a document's mappings with which the mistake comes; nothing that follows stays in it."""
    items = [*place.items()]

    def is_wrong(count: int) -> bool:
        place.clear()
        place.update(items[:count])
        try:
            decoding.convert(document, kind)
        except msgspec.ValidationError as error:
            return str(error) == message
        return False

    count = min(1 + bisect.bisect_left(range(1, len(items)), x=True, key=is_wrong), len(items))
    is_wrong(count)
    return items[count - 1][0]


def _explain(mistake: Mistake, name: str, keys: Iterable[str], shapes: Mapping[str, type[schema.Raw]], described: Path) -> MatrixError:
    """Return a mistake in file ``name`` as an error that says what to do.

    :param keys: that stand where its place has :data:`ANY_KEY`, and the one that is wrong itself.
    """
    names, place, problem = [*keys], mistake.place, mistake.problem
    key = names.pop() if mistake.is_key and names else "a key"
    for each in names:
        place = place.replace(ANY_KEY, f".{each}", 1)
    where = f"{name}: {f'{key} of ' if mistake.is_key else ''}{place.removeprefix('$').removeprefix('.') or 'top level'}"
    if re.match(r"Expected `str.*`, got `(float|int)`", problem):
        fix = "write it without the dot, such as cu128" if mistake.place.endswith((".cuda", ".serves")) else 'put it in quotes, such as "2.10"'
        return MatrixError(f"{where} is an unquoted number, so that 2.10 would be read as 2.1", fix=fix)
    if unquoted := re.match(r"Expected `str.*`, got `(date|datetime|bool|null)`", problem):
        fix = "write it" if unquoted[1] == "null" else 'put it in quotes, such as "2026-01-01"'
        return MatrixError(f"{where} is read as a {KINDS[unquoted[1]]}, and text is wanted", fix=fix)
    if "unknown field" in problem or "missing required field" in problem:
        return MatrixError(f"{where}: {_about_key(problem)}", fix=f"keys are {_keys(mistake.place, shapes)}")
    return MatrixError(f"{where}: {problem}", fix=f"see {described.name} for what may stand there")


def _about_key(problem: str) -> str:
    key = printable(problem.partition("`")[2].rpartition("`")[0])
    return f"unknown key {key}" if "unknown" in problem else f"key {key} is missing"


def _keys(path: str, shapes: Mapping[str, type[schema.Raw]]) -> str:
    shape = shapes.get(re.sub(r"\[[^]]*\]", "", path), shapes["$"])
    return ", ".join(field.encode_name if field.required else f"{field.encode_name} (optional)" for field in msgspec.structs.fields(shape))
