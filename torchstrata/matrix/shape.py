"""The shape of files that people write: where one has another, in words, and what may stand there."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from torchstrata import decoding
from torchstrata.errors import MatrixError
from torchstrata.matrix import schema
from torchstrata.text import printable

T = TypeVar("T", bound=schema.Raw)

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
        raise _explain(str(error), name, _keys_on_the_way(document, kind, str(error)), shapes, described) from error


def _keys_on_the_way(document: object, kind: type[T], message: str) -> list[str]:
    """Return the keys for which msgspec's ``message`` has :data:`ANY_KEY`: of each mapping the first one that alone is wrong in the same way."""
    rest: Any = copy.deepcopy(document)
    place, keys = rest, []
    for step in re.findall(r"\[\.\.\.\]|[^.\[\]]+", _place(message).removeprefix("$")):
        if step == ANY_KEY:
            step = next(key for key, value in dict(place).items() if _is_wrong(rest, place, {key: value}, kind, message))  # noqa: PLW2901  # the key itself
            keys.append(printable(str(step)))
        place = place[int(step) if isinstance(place, list) else step]
    return keys


def _is_wrong(document: object, place: dict[str, object], only: dict[str, object], kind: type[T], message: str) -> bool:
    """Return whether a document is wrong in the same way with nothing else in one of its mappings; leave it so."""
    place.clear()
    place.update(only)
    try:
        decoding.convert(document, kind)
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _place(message: str) -> str:
    """Return where in a document the mistake is that msgspec's ``message`` is about, as in ``$.rows[0].os``."""
    return message.partition(" - at `")[2].rstrip("`").rpartition("` in `")[2]


def _explain(message: str, name: str, keys: Iterable[str], shapes: Mapping[str, type[schema.Raw]], described: Path) -> MatrixError:
    """Return msgspec's ``message`` about file ``name`` as an error that says what to do.

    :param keys: that stand where it has :data:`ANY_KEY`.
    """
    problem, _, path = message.partition(" - at `")
    path, place = path.rstrip("`"), _place(message)
    for key in keys:
        place = place.replace(ANY_KEY, f".{key}", 1)
    where = f"{name}: {'a key of ' if path.startswith('key` in `') else ''}{place.removeprefix('$').removeprefix('.') or 'top level'}"
    if re.match(r"Expected `str.*`, got `(float|int)`", problem):
        fix = "write it without the dot, such as cu128" if path.endswith((".cuda", ".serves")) else 'put it in quotes, such as "2.10"'
        return MatrixError(f"{where} is an unquoted number, so that 2.10 would be read as 2.1", fix=fix)
    if unquoted := re.match(r"Expected `str.*`, got `(date|datetime|bool|null)`", problem):
        fix = "write it" if unquoted[1] == "null" else 'put it in quotes, such as "2026-01-01"'
        return MatrixError(f"{where} is read as a {KINDS[unquoted[1]]}, and text is wanted", fix=fix)
    if "unknown field" in problem or "missing required field" in problem:
        return MatrixError(f"{where}: {_about_key(problem)}", fix=f"keys are {_keys(path, shapes)}")
    return MatrixError(f"{where}: {problem}", fix=f"see {described.name} for what may stand there")


def _about_key(problem: str) -> str:
    key = problem.split("`")[1]
    return f"unknown key {key}" if "unknown" in problem else f"key {key} is missing"


def _keys(path: str, shapes: Mapping[str, type[schema.Raw]]) -> str:
    shape = shapes[re.sub(r"\[[^]]*\]", "", path) or "$"]
    return ", ".join(field.encode_name if field.required else f"{field.encode_name} (optional)" for field in msgspec.structs.fields(shape))
