"""How a container differs from an image, as a pure function; Python 3.10's library alone, for ``same-image``."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from torchstrata.drift.contents import VENV, Contents, FileState, InstalledWheel

TORCH = re.compile(r"torch|torchvision|torchaudio|triton|(nvidia|cuda)-.*")
"""What makes an image's torch, as its constraints have it."""

ENVIRONMENT = re.compile(r"(?P<prefix>/.+)/(?:conda-meta|pyvenv\.cfg)")
"""What shows that a directory is an environment of Python's own: conda's records, or the file of PEP 405."""

TRACKED = re.compile(r"/(?:opt|usr|etc|bin|sbin|lib\w*)(?:/|$)")
"""What belongs to an image. Elsewhere people have their data."""

BY_THE_WAY = re.compile(
    r".*/__pycache__(?:/.*)?|.*/~[^/]+\.dist-info(?:/.*)?|/opt|/usr|/etc"
    r"|/etc/(?:hostname|hosts|resolv\.conf|mtab|ld\.so\.cache|\.pwd\.lock|(?:passwd|group|shadow|gshadow)-)"
)
"""Bytecode, and what engines and the start of a container write."""

MADE_BY_SCRIPTS = re.compile(r"/(?:etc|usr(?!/local/)|bin|sbin|lib\w*)/.*")
"""Where scripts of OS packages make files that no package lists: links of alternatives, certificates."""

SHARED_BY_SCRIPTS = re.compile(
    r"/etc/(?:passwd|group|g?shadow|subuid|subgid|shells|alternatives/.*|ssl/certs/.*)|/usr/.*cache.*|/usr/share/(?:info/dir|mime/.*)"
)
"""What they change though it was there."""


class Drift(NamedTuple):
    """One difference.

    :param change: ``added``, ``removed``, ``changed``, ``edited``, or ``mode`` where only rights or owner are others.
    :param kind: ``torch``, ``wheel``, ``package``, ``file`` or ``environment``.
    :param was: version in the image; empty if it has none.
    :param now: version in the container.
    :param note: how it came there, or who brought the file.
    :param place: directory of a Python package.
    """

    change: str
    kind: str
    name: str
    was: str = ""
    now: str = ""
    note: str = ""
    place: str = ""

    def line(self) -> str:
        """Return it in one line."""
        versions = " -> ".join(filter(None, (self.was, self.now)))
        note = f" ({self.note})" if self.note else ""
        return f"{self.change:8} {self.kind:11} {self.name}{f' {versions}' if versions else ''}{note}"


def versions(kind: str, image: Mapping[str, str], here: Mapping[str, str]) -> list[Drift]:
    """Return a difference for each name that has not the same version."""
    names = (name for name in sorted(image.keys() | here.keys()) if image.get(name) != here.get(name))
    return [Drift(_change(name, image, here), kind, name, image.get(name, ""), here.get(name, "")) for name in names]


def _change(key: object, image: Container[object], here: Container[object]) -> str:
    return "added" if key not in image else "removed" if key not in here else "changed"


def compare(image: Contents, here: Contents, brought: Mapping[str, str]) -> list[Drift]:
    """Return all in which a container differs from an image.

    :param brought: owner, as in :class:`FileState`, of files that packages brought and that only the container has.
    """
    named = [*_wheels(image, here), *versions("package", image.packages, here.packages)]
    environments = environments_of(here)
    named += [Drift("added", "environment", prefix, note="a Python beside the image's") for prefix in environments]
    others = _Explained(named, brought, environments)
    return named + [drift for path in sorted(here.files) if (drift := _file(path, image.files.get(path, FileState()), here.files[path], others))]


def environments_of(here: Contents) -> list[str]:
    """Return the directories that have become environments of Python's own, without those within others."""
    added = (path for path, state in here.files.items() if state.kind)
    prefixes = sorted({match["prefix"] for path in added if (match := ENVIRONMENT.fullmatch(path))} - {VENV})
    return [prefix for prefix in prefixes if not any(prefix.startswith(f"{other}/") for other in prefixes)]


def _wheels(image: Contents, here: Contents) -> Iterator[Drift]:
    """Yield the Python packages that differ."""
    was, now = _by_key(image.wheels), _by_key(here.wheels)
    for key in sorted(was.keys() | now.keys()):
        before, after = was.get(key), now.get(key)
        if before and after and before[:2] + before[3:5] == after[:2] + after[3:5]:
            continue
        place, name = key
        kind = "torch" if TORCH.fullmatch(name) else "wheel"
        versions = (before.version if before else "", after.version if after else "")
        yield Drift(_change(key, was, now), kind, name, *versions, _note(after) if after else "", place)


def _by_key(wheels: Iterable[InstalledWheel]) -> dict[tuple[str, str], InstalledWheel]:
    return {(wheel.place, wheel.name): wheel for wheel in wheels}


def _note(wheel: InstalledWheel) -> str:
    """Return how a package came there."""
    parts = [f"editable, its code is at {wheel.source}" if wheel.editable else f"from {wheel.source}" if wheel.source else ""]
    parts += [f"in {wheel.place}" if not wheel.place.startswith(f"{VENV}/") else "by root" if wheel.uid == 0 else ""]
    return ", ".join(filter(None, parts))


class _Explained:
    """What need not be named file by file, since a package or an environment is."""

    def __init__(self, drifts: Iterable[Drift], brought: Mapping[str, str], environments: Iterable[str]) -> None:
        named = list(drifts)
        self._brought = brought
        self._below = tuple(f"{prefix}/" for prefix in environments)
        self._owners = {f"{'package' if drift.kind == 'package' else 'wheel'} {drift.name}" for drift in named}
        self._owners |= {owner.rpartition(":")[0] for owner in self._owners if owner.startswith("package ")}
        self._scripts = any(drift.kind == "package" for drift in named)

    def holds(self, path: str, before: FileState) -> bool:
        """Return whether a path belongs to what is named already."""
        if path.startswith(self._below) or before.owner in self._owners or self._brought.get(path) in self._owners:
            return True
        made = SHARED_BY_SCRIPTS if before.kind else MADE_BY_SCRIPTS
        return self._scripts and not before.owner and made.fullmatch(path) is not None


def is_tracked(path: str) -> bool:
    """Return whether a change at a path can be drift; data, logs, caches and what a start writes cannot."""
    return TRACKED.match(path) is not None and BY_THE_WAY.fullmatch(path) is None


def _file(path: str, before: FileState, after: FileState, others: _Explained) -> Drift | None:
    if not is_tracked(path) or others.holds(path, before):
        return None
    return _differing(path, before, after)


def _differing(path: str, before: FileState, after: FileState) -> Drift | None:
    """Return how one path differs; a new directory does by what is in it."""
    if before[:5] == after[:5] or (after.kind == "directory" and not before.kind):
        return None
    if not before.kind or not after.kind:
        return Drift("added" if after.kind else "removed", "file", path, note=before.owner)
    if (before.kind, before.digest) == (after.kind, after.digest):
        rights = f"{before.mode:o} {before.uid}:{before.gid} -> {after.mode:o} {after.uid}:{after.gid}"
        return Drift("mode", "file", path, note=", ".join(filter(None, (rights, before.owner))))
    return Drift("edited", "file", path, note=before.owner)
