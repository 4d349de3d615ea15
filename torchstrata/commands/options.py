"""What can be asked of verbs and sessions: each option is declared once, as a field of the value that the work gets.

:mod:`torchstrata.arguments` makes parsers of these classes, for ``inv`` and for nox. A field without a declaration is
not on the command line. The first line of a docstring is the sentence in ``inv --list``. Here are the options
about the matrix, its locks and images of this machine, and those that several verbs have; the others are in
:mod:`torchstrata.commands.release_options` and :mod:`torchstrata.commands.container_options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from torchstrata.arguments import option, required, switch, words
from torchstrata.store.layer import PLATFORM

CELLS: Final = "cell ids or globs, with spaces or commas between them, such as 2.8-cu121 or '2.8-*' (default: all)"
NAMES: Final = "push also under the names that the images have in an engine, which moves these tags"
WRITE: Final = "do it; without, only what would change is shown"


def cell_words() -> Any:
    """Declare which cells a verb is about."""
    return words(CELLS, "CELL")


def platform_option() -> Any:
    """Declare the platform of images."""
    return option("platform of the images, such as linux/arm64 (default: linux/amd64)", "OS/ARCHITECTURE", PLATFORM)


def registry_option() -> Any:
    """Declare the registry that a verb uses."""
    return option("registry of the team (default: TORCHSTRATA_REGISTRY, then registry: in matrix.yaml, if any)", "HOST[/PATH]")


def flavour_option(text: str) -> Any:
    """Declare which flavours a verb is about."""
    return option(f"{text}; with commas between them, or given more than once (default: all)", "FLAVOUR", ())


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """Show what a build would reuse and make; needs no engine, writes nothing."""

    cells: tuple[str, ...] = cell_words()
    platform: str = platform_option()
    json: bool = switch("print JSON instead of a table")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """Which images are made, and how.

    :param flavour: flavours to make, with their parents; all if empty.
    """

    flavour: tuple[str, ...] = flavour_option("only this flavour and its parents")
    platform: str = platform_option()
    locked: bool = switch("refuse OS packages that are not to be had at their locked version")
    names: bool = switch(NAMES)
    registry: str | None = registry_option()
    trust_unsealed_parts: bool = switch(
        "use parts that nobody whom the build trusts has sealed: whoever may push to the registry then decides what is in the images"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions(ImageOptions):
    """Build the images of a cell, and load them into the engine, write them to a directory, or push them.

    :param load: load them into the engine.
    """

    to: Path | None = option("write an OCI image layout there (default: load the images into an engine)", "DIRECTORY")
    codec: Literal["zstd", "gzip"] = option("compression of new layers (default: zstd)", default="zstd")
    push: bool = switch("push the images to the registry afterwards")
    load: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class PushOptions(ImageOptions):
    """Push the images of a cell, without an engine; what neither the content store nor the registry has is built."""

    cells: tuple[str, ...] = required("cell ids or globs, such as 2.8-cu121", "CELL")
    gzip: bool = switch("compress new layers with gzip (default: zstd)")


@dataclass(frozen=True, kw_only=True, slots=True)
class LockOptions:
    """Write the locks that are missing or stale: exact versions with hashes per torch build, Python and flavour."""

    cells: tuple[str, ...] = words(f"{CELLS}; with --os also names of OSes, such as ubuntu24.04", "CELL")
    check: bool = switch("only check all committed locks: that they match matrix.yaml, images/*/requirements.in and pyproject.toml", group="what")
    os: bool = switch("lock the OS packages instead of the wheels", group="what")
    toolchain: bool = switch("lock the CUDA 12 compiler instead of the wheels", group="what")
    tool: bool = switch("lock what torchstrata itself needs instead of the wheels", group="what")
    platform: str | None = option("only for this platform (default: for all on which a row is offered; with --os: linux/amd64)", "OS/ARCHITECTURE")
    upgrade: bool = switch("take newer wheels, also where locks are right; without, only locks that are missing or stale are written")
    exclude_newer: str | None = option("upgrade to what there was on a day (default: a week ago)", "YYYY-MM-DD")

    def contradiction(self) -> str:
        """Return which options were given that what is locked has no use for."""
        chosen = next((name for name in ("check", "os", "toolchain", "tool") if getattr(self, name)), "")
        dated, alone = ("upgrade", "exclude_newer"), ("upgrade", "cells", "platform")
        useless = {"check": (*dated, "platform"), "os": dated, "toolchain": alone, "tool": alone}
        given = [name for name in useless.get(chosen, ()) if getattr(self, name)]
        names = {"cells": "cells"} | {name: f"--{name.replace('_', '-')}" for name in ("upgrade", "exclude_newer", "platform")}
        return f"--{chosen} takes no {' and no '.join(names[name] for name in given)}" if given else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddTorchOptions:
    """Add a torch: read what indexes publish of it, show the change to facts, matrix.yaml and README, and write it."""

    torch: str = required("minor version, such as 2.9", "TORCH")
    cuda: str | None = option("build, such as cu126 (default: the one that the default index carries)", "CUDA")
    os: tuple[str, ...] = option("OSes, the default one first, with commas between them (default: all verified ones that fit)", "OS", ())
    architectures: str | None = option("compute capabilities of the wheel, such as '7.5 8.0' (default: read from it)", "LIST")
    source: str | None = option("where these architectures stand (default: measured)", "TEXT")
    released: str | None = option("day of the release (default: that of its first upload)", "YYYY-MM-DD")
    yes: bool = switch(WRITE)


@dataclass(frozen=True, kw_only=True, slots=True)
class DropTorchOptions:
    """Take a torch out again: its rows, their locks, its lines in README, sizes of its images, and the facts that add-torch brought."""

    torch: str = required("minor version, such as 2.9", "TORCH")
    yes: bool = switch(WRITE)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFlavourOptions:
    """Make a flavour in a folder of its own, which locks, builds and passes as it is: images/NAME."""

    name: str = required("lower-case letters, digits and hyphens", "NAME")
    parent: str = required("the flavour that it contains (must be given)", "FLAVOUR", positional=False, name="from")


@dataclass(frozen=True, kw_only=True, slots=True)
class TryOsOptions:
    """Lock, build and verify a cell of each OS that nobody has verified, and write `verified: true` into matrix.yaml."""

    cells: tuple[str, ...] = words("names of OSes, or cell ids or globs (default: all)", "OS")
    only_lock: bool = switch("only lock them, where no image fits on the disk")


@dataclass(frozen=True, kw_only=True, slots=True)
class SizesOptions:
    """Show what images in the engine weigh, compressed, and their budgets."""

    cells: tuple[str, ...] = cell_words()
    platform: str = platform_option()
    write: bool = switch("record the layers' sizes, and make the images' sizes the budgets of their flavours")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOptions:
    """Show the content store (size, age), or prune it."""

    prune: bool = switch("remove parts, those unused longest first")
    days: float | None = option("remove only what was not used for so many days (default: everything)", "DAYS")
    max_gb: float | None = option("remove only until the store is this small (default: everything)", "GB")

    def contradiction(self) -> str:
        """Return what limits a removal that was not asked for."""
        limits = [name for name, value in (("--days", self.days), ("--max-gb", self.max_gb)) if value is not None]
        return f"{' and '.join(limits)}: only with --prune" if limits and not self.prune else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordOptions:
    """Run a tier of tests: see CONTRIBUTING.md."""

    record: bool = switch("keep the CPU times in bench/results/tests.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class TierOptions(RecordOptions):
    """Run a tier of tests: see CONTRIBUTING.md."""

    cells: tuple[str, ...] = option("only these cells, with commas between them, for a small disk (default: all)", "CELL", ())
    again: bool = switch("test images though they have passed the same tests before")
