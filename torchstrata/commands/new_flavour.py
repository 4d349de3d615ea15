"""``inv new-flavour``: a flavour in a folder of its own, which locks, builds and passes, and its line in README."""

from __future__ import annotations

import difflib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torchstrata import files, progress
from torchstrata.commands.options import NewFlavourOptions
from torchstrata.errors import FlavourError
from torchstrata.host.filesystem import disk
from torchstrata.locks import lockfile
from torchstrata.matrix import entries, flavours, matrix, schema
from torchstrata.matrix.matrix import Matrix
from torchstrata.verification import required
from torchstrata.verification.required import Required

README: Final = "README.md"

LIMIT: Final = 16 << 20
"""Bytes of README."""

DESCRIBED: Final = """\
# yaml-language-server: $schema=../../{schema}
parent: {parent}
# One sentence for README's table, which a test compares. Services, budgets and all else that may stand here: docs/adding.md.
summary: "`{parent}`, and what you add"
"""

DOCKERFILE: Final = """\
# What {name} needs from the OS, with files from rootfs/. Contexts: {parent}, apt = images/apt. Nothing yet; what it may have:
#   RUN --mount=from=apt,source=/apt,target=/mnt \\
#       /mnt/install package another-package
#   COPY rootfs /
FROM {parent}
ARG SOURCE_DATE_EPOCH
LABEL torchstrata.flavour={name}
"""

REQUIREMENTS: Final = "# Python packages of {name} beside those of {parent}, one a line. Nothing yet.\n"

TEST: Final = '''\
"""What images of {name} promise beside what their parents do; `nox -s required` writes the list of what must run."""

from __future__ import annotations


def test_torch_computes(shared):
    """Python of the image has torch, and multiplies with it."""
    done = shared.run("python", "-c", "import torch; print((torch.ones(2, 3) @ torch.ones(3, 2)).sum().item())")
    assert done.out == "12.0\\n", done.err
'''

PROMISE: Final = "test_torch_computes"


def run(options: NewFlavourOptions, root: Path = matrix.ROOT) -> None:
    """Make a flavour, all of it or nothing.

    :raises FlavourError: the name is taken or cannot be one, there is no such parent, or README lacks the table.
    """
    table, home = matrix.load(root / matrix.MATRIX.name), root / flavours.FOLDER / options.name
    _check(table, options, home)
    readme = _readme(root)
    with disk(home, lockfile.OTHER_CHECKOUT):
        work = Path(tempfile.mkdtemp(prefix=flavours.HIDDEN, dir=home.parent))
        try:
            _write(work, contents(options.name, options.parent))
            work.chmod(home.parent.stat().st_mode & 0o777)
            work.rename(home)
            lockfile.replaced(root / README, entries.with_flavours(readme, matrix.load(root / matrix.MATRIX.name)))
        except BaseException:
            shutil.rmtree(home if home.exists() and not work.exists() else work)
            raise
    _say(options, table)


def _check(table: Matrix, options: NewFlavourOptions, home: Path) -> None:
    flavours.check_name(options.name, table.systems)
    if options.name in table.flavours or home.exists():
        raise FlavourError(f"there is {flavours.FOLDER}/{options.name} already", fix="choose another name, or edit what is there")
    if options.parent not in table.flavours:
        near = difflib.get_close_matches(options.parent, table.flavours, cutoff=0.4) or list(table.flavours)
        raise FlavourError(f"unknown flavour {options.parent}", fix=f"nearest: {', '.join(near)}")


def _readme(root: Path) -> str:
    try:
        text = files.text(root / README, LIMIT)
    except files.UnreadableError as error:
        raise FlavourError(error.what, fix=error.fix) from error
    entries.flavour_rows(text)
    return text


def contents(name: str, parent: str) -> Mapping[str, str]:
    """Return the files of a new flavour, by their path in its folder."""
    module = f"test_{name.replace('-', '_')}"
    promised = Required(tier="free", cases={(name, module, PROMISE): 1})
    texts = {
        flavours.FILE: DESCRIBED,
        "Dockerfile": DOCKERFILE,
        "requirements.in": REQUIREMENTS,
        f"tests/{module}.py": TEST,
    }
    made = {path: text.format(name=name, parent=parent, schema=schema.FLAVOUR_SCHEMA.name) for path, text in texts.items()}
    return {**made, f"tests/required/{promised.tier}.toml": required.render(promised)}


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _say(options: NewFlavourOptions, table: Matrix) -> None:
    """Tell what was made, and what to do with it, on the cell that weighs least."""
    weights = {cell.short: table.budget(options.parent, cell.short) for cell in table.cells if cell.is_default_os and cell.os.verified}
    cell = min(weights, key=lambda short: weights[short] or float("inf"))
    progress.say(
        f"{flavours.FOLDER}/{options.name}/ is made: {', '.join(contents(options.name, options.parent))}; {README} has its line",
        f"it builds and passes as it is: nox -s build-{cell} test-{cell} -- --flavour {options.name}",
        "the first build locks it; commit locks/ with it. How to go on: docs/adding.md",
    )
