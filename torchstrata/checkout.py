"""The checkout that verbs work on: where this package lies, or what a variable names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from torchstrata.errors import CheckoutError
from torchstrata.text import printable

VARIABLE: Final = "TORCHSTRATA_ROOT"
"""Names the checkout where the package is installed elsewhere; a package in a checkout works on that one anyway."""

MARK: Final = "matrix.schema.json"
"""A file that every checkout has at its top, and that nobody edits."""

BESIDE: Final = Path(__file__).parents[1]
"""The directory that the package lies in: a checkout, or that of installed packages."""


def root(beside: Path = BESIDE) -> Path:
    """Return the checkout beside the package, else the one that is named; without either, where it would lie."""
    named = os.environ.get(VARIABLE)
    return beside if _is_checkout(beside) or not named else Path(named).absolute()


def require(place: Path | None = None) -> None:
    """Refuse to go on without a checkout.

    :param place: where it is looked for; :data:`ROOT` if ``None``.
    :raises CheckoutError: there is none, or the variable names something else.
    """
    place = place or ROOT
    if _is_checkout(place):
        return
    fix = f"change to a checkout, or name one: export {VARIABLE}=DIRECTORY"
    if place != BESIDE:
        raise CheckoutError(f"{VARIABLE} names {printable(str(place), 200)}, which is no checkout of torchstrata", fix=fix)
    raise CheckoutError("torchstrata is installed outside a checkout, and needs one: it has the matrix, the locks and the images", fix=fix)


def _is_checkout(directory: Path) -> bool:
    return os.path.isfile(directory / MARK)  # noqa: PTH113  # unlike Path's it is false also where this user may not look, or a name is too long


ROOT: Final = root()
