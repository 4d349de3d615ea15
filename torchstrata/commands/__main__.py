"""``inv`` where this package is installed, and ``python -m torchstrata.commands``: the verbs from any directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from torchstrata.commands import cli, verbs


def main() -> None:
    """Run a verb with this package; be Invoke in a directory with tasks for it, of a checkout or of something else.

    A checkout's tasks import its own package, which a process that has this one could not.
    """
    words = sys.argv[1:]
    if _is_for_invoke(words, Path.cwd()):
        os.execv(sys.executable, [sys.executable, "-m", "invoke", *words])  # noqa: S606  # the same command, of the other package
    cli.answer_interrupts()
    verbs.run(words)


def _is_for_invoke(words: Sequence[str], directory: Path) -> bool:
    """Return whether Invoke would find tasks, or is given an option of its own, such as where to look for them."""
    if words and words[0].startswith("-") and words[0] not in {*verbs.HELP, *verbs.LIST}:
        return True
    places = (directory, *directory.parents)
    return any((place / "tasks.py").is_file() or (place / "tasks" / "__init__.py").is_file() for place in places)


if __name__ == "__main__":
    main()
