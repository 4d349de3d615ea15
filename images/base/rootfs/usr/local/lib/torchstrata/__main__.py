"""``python3 -I -S /usr/local/lib/torchstrata VERB ARGUMENTS``: the runtime of an image, verb by verb.

Only the standard library, and each verb imports only what it needs: a container starts in a few hundredths of a second.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

VERBS: Final = ("start", "serve", "session", "health", "doctor", "generation")
"""Modules of ``container`` that have a ``main(arguments) -> exit status``."""


def main(arguments: list[str]) -> int:
    """Run the verb that the first argument names and return its exit status."""
    if not arguments or arguments[0] not in VERBS:
        sys.stderr.write(f"torchstrata: say what to do: {', '.join(VERBS)}\n")
        return 64
    verb = importlib.import_module(f"container.{arguments[0]}")
    return int(verb.main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
