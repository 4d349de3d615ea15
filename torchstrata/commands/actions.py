"""What a step tells GitHub Actions, in the files that the runner names; on any other machine nothing is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torchstrata import files
from torchstrata.errors import VariableError
from torchstrata.host import variables

OUTPUT: Final = "GITHUB_OUTPUT"
SUMMARY: Final = "GITHUB_STEP_SUMMARY"

MOST_JOBS: Final = 256
"""Jobs that one matrix may have."""


def output(**values: Any) -> None:
    """Give values to later steps and jobs, as JSON, words as they are."""
    lines = [f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}\n" for name, value in values.items()]
    _append(OUTPUT, "".join(lines))


def summary(markdown: str) -> None:
    """Add a paragraph to the summary of the run."""
    _append(SUMMARY, f"{markdown}\n\n")


def tonight(cells: Sequence[str], jobs_each: int) -> tuple[str, ...]:
    """Return the first ``cells``, as many as one matrix holds with so many jobs each; the rest is for the next run."""
    return tuple(cells[: MOST_JOBS // jobs_each])


def _append(variable: str, text: str) -> None:
    path = variables.text(variable)
    kind = files.kind(Path(path)) if path else None  # a pipe would be waited for
    if kind:
        raise VariableError(f"{variable} names {kind}, not a file", fix=f"unset {variable}: GitHub's runner sets it")
    try:
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise VariableError(f"{variable} names {path}, which cannot be written: {error.strerror}", fix=f"unset {variable}: GitHub's runner sets it") from error
