"""The commands of README.md, as they stand in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from torchstrata.matrix.matrix import ROOT

BLOCK: Final = re.compile(r"^## Two commands$.*?^```sh$\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT: Final = re.compile(r"\s+#\s.*$")
BUILDS: Final = re.compile(r"\bbuild-\S+(?: build-\S+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Commands:
    """What README tells a new user to type.

    :param install: brings nox.
    :param first: builds images.
    :param second: tests them.
    """

    install: str
    first: str
    second: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the commands of a README.

        :raises ValueError: it does not have these three.
        """
        block = BLOCK.search(text)
        install, first, second = (COMMENT.sub("", line) for line in (block["lines"] if block else "").splitlines())
        return cls(install=install, first=first, second=second)

    @classmethod
    def here(cls) -> Self:
        """Return those of this checkout."""
        return cls.read((ROOT / "README.md").read_text(encoding="utf-8"))

    def building(self, cells: Sequence[str]) -> str:
        """Return the first command for other cells; as it stands where none are given."""
        return BUILDS.sub(" ".join(f"build-{cell}" for cell in cells), self.first) if cells else self.first

    def asked(self, cells: Sequence[str], *, only_first: bool) -> tuple[str, ...]:
        """Return the first command and, unless it is left out, the second one."""
        return (self.building(cells), *([] if only_first else [self.second]))
