"""What differs between two images by their records: torch, CUDA, packages, sizes, and bytes to pull. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from torchstrata import progress
from torchstrata.attestations.record import Record

FIX: Final = re.compile(r"[+~.-](deb\d+u\d+|ubuntu\d[\d.]*)")
"""Marks of versions that came into a stable release after its publication: what distributions take there are fixes, most of
them of security. Which suite a version came from is not in a record."""

NONE: Final = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A fact or package that differs; ``None`` where there is none.

    :param is_fix: an OS package that moved to another update of the same stable release.
    """

    name: str
    old: str | None
    new: str | None
    is_fix: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """All that differs.

    :param facts: torch, CUDA, OS, commit and so on.
    :param os: binary packages; those of one source move together.
    :param pull: compressed bytes of layers that who has the old image must fetch.
    """

    old: Record
    new: Record
    facts: tuple[Change, ...]
    python: tuple[Change, ...]
    os: tuple[Change, ...]
    pull: int

    @property
    def fixes(self) -> int:
        """The number of source packages with fixes of the distribution."""
        sources = {package.name: package.source for package in self.new.packages}
        return len({sources[change.name] for change in self.os if change.is_fix})


def of(old: Record, new: Record) -> Difference:
    """Return what differs between two images."""
    have = {layer.digest for layer in old.layers}
    return Difference(
        old=old,
        new=new,
        facts=_changes(_facts(old), _facts(new)),
        python=_changes({wheel.name: wheel.version for wheel in old.wheels}, {wheel.name: wheel.version for wheel in new.wheels}),
        os=tuple(_os_changes(old, new)),
        pull=sum({layer.digest: layer.size for layer in new.layers if layer.digest not in have}.values()),
    )


def of_platforms(old: Mapping[str, Record], new: Mapping[str, Record]) -> tuple[tuple[Difference, ...], tuple[Change, ...]]:
    """Return what differs for each platform that both have, and the platforms that only one has.

    :param old: by platform; one of an image, several of an index.
    """
    if len(old) == len(new) == 1:
        return (of(*old.values(), *new.values()),), ()
    both = sorted(set(old) & set(new))
    changes = (Change(name=platform, old=_digest(old, platform), new=_digest(new, platform)) for platform in sorted(set(old) ^ set(new)))
    return tuple(of(old[platform], new[platform]) for platform in both), tuple(changes)


def _digest(records: Mapping[str, Record], platform: str) -> str | None:
    return records[platform].digest if platform in records else None


def _facts(record: Record) -> dict[str, str]:
    torch = record.torch
    return {
        "image": record.name,
        "platform": record.platform,
        "torch": f"{torch.version} ({torch.wheels})",
        "CUDA": torch.cuda or "",
        "cuDNN": torch.cudnn or "",
        "NCCL": torch.nccl or "",
        "nvcc": torch.nvcc or "",
        "driver at least": torch.driver_floor or "",
        "GPU generations": " ".join(torch.architectures),
        "OS": record.os.id,
        "Python": record.os.python,
        "user": record.user,
        "commit": record.source.revision,
        "OS lock of": record.inputs.os_lock_date,
        "drift": ", ".join(record.inputs.drift),
    }


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Change, ...]:
    names = dict.fromkeys((*old, *new))
    return tuple(Change(name=name, old=old.get(name) or None, new=new.get(name) or None) for name in names if (old.get(name) or "") != (new.get(name) or ""))


def _os_changes(old: Record, new: Record) -> Iterable[Change]:
    same = old.os.id == new.os.id
    versions = [dict(sorted((package.name, package.version) for package in record.packages)) for record in (old, new)]
    for change in sorted(_changes(*versions), key=lambda change: change.name):
        is_fix = same and bool(change.old and change.new and FIX.search(change.new))
        yield Change(name=change.name, old=change.old, new=change.new, is_fix=is_fix)


def tables(difference: Difference) -> tuple[Table, ...]:
    """Return what differs for people: facts, Python packages, OS packages."""
    sections = (("", difference.facts), ("Python package", difference.python), ("OS package", difference.os))
    return tuple(_table(title, changes) for title, changes in sections if changes)


def _table(title: str, changes: Iterable[Change]) -> Table:
    view = progress.table(title, "from", "to", "")
    for change in changes:
        view.add_row(change.name, change.old or NONE, change.new or NONE, _word(change))
    return view


def _word(change: Change) -> str:
    if change.is_fix:
        return "fix"
    return "new" if change.old is None else "gone" if change.new is None else ""


def summary(difference: Difference) -> str:
    """Return sizes and counts in one line."""
    old, new = difference.old.size, difference.new.size
    grown = f"{'+' if new >= old else '-'}{progress.size(abs(new - old))}"
    counts = f"{len(difference.python)} Python packages, {len(difference.os)} OS packages differ, fixes in {difference.fixes} sources"
    return f"{progress.size(old)} to {progress.size(new)} ({grown}), of it {progress.size(difference.pull)} to pull; {counts}"


def markdown(difference: Difference) -> str:
    """Return what differs as Markdown, for release notes and pull requests."""
    sections = (("What", difference.facts), ("Python package", difference.python), ("OS package", difference.os))
    text = [f"### `{difference.old.name}` to `{difference.new.name}`", f"`{difference.old.digest}` to `{difference.new.digest}`. {summary(difference)}."]
    for title, changes in sections:
        if changes:
            rows = [f"| {change.name} | {_cell(change.old)} | {_cell(change.new)} | {_word(change)} |" for change in changes]
            text.append("\n".join((f"| {title} | from | to | |", "|---|---|---|---|", *rows)))
    return "\n\n".join(text) + "\n"


def platform_lines(changes: Iterable[Change]) -> list[str]:
    """Return a line for each platform that only one side has."""
    return [f"{change.name}: {_word(change)}, {change.new or change.old}" for change in changes]


def _cell(value: str | None) -> str:
    return f"`{value}`" if value else ""
