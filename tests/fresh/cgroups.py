"""The control groups of a machine: one in each hierarchy, which hold all its processes and tell what they cost."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.waiting import until

TOP: Final = Path("/sys/fs/cgroup")
OFFERED: Final = re.compile(r" - (?P<type>cgroup2?) \S+ (?P<options>\S+)$")
CPUSET: Final = ("cpuset.mems", "cpuset.cpus")
"""Without these a new group of version 1 takes no process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A machine's group in one hierarchy.

    :param type: ``cgroup`` or ``cgroup2``.
    :param options: what the hierarchy is mounted with: its controllers.
    :param place: where it is mounted below ``/sys/fs/cgroup``; ``.`` where it is the only one.
    :param path: the group's directory.
    """

    type: str
    options: str
    place: str
    path: Path

    @property
    def processes(self) -> Path:
        """The file that takes processes which are to join."""
        inner = self.path / "init"
        return (inner if inner.is_dir() else self.path) / "cgroup.procs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """A machine's groups in all hierarchies."""

    groups: tuple[Group, ...]

    @property
    def hierarchies(self) -> str:
        """What the machine itself has to mount: lines of type, options and directory."""
        return "".join(f"{group.type} {group.options} {group.place}\n" for group in self.groups)

    def joining(self) -> tuple[str, ...]:
        """Return the beginning of a command line whose rest runs in these groups."""
        files = [str(group.processes) for group in self.groups]
        return (
            "sh",
            "-c",
            'while [ "$1" != -- ]; do echo $$ > "$1" || exit; shift; done; shift; exec "$@"',
            "sh",
            *files,
            "--",
        )

    def cpu_seconds(self) -> float:
        """Return the processor time, in seconds, of all that ever ran in them."""
        for group in self.groups:
            if (usage := group.path / "cpuacct.usage").exists():
                return int(usage.read_text()) / 1e9
        (unified,) = [group for group in self.groups if group.type == "cgroup2"]
        used = dict(line.split() for line in (unified.path / "cpu.stat").read_text().splitlines())
        return int(used["usage_usec"]) / 1e6


@contextlib.contextmanager
def groups(name: str) -> Iterator[Groups]:
    """Make the groups of a machine, and remove them when its last process is gone."""
    made = Groups(groups=tuple(_offered(name)))
    try:
        for group in made.groups:
            group.path.mkdir()
            _inherit(group.path)
        yield made
    finally:
        remove(name)


def remove(name: str) -> None:
    """Remove the groups of a machine whose processes are gone."""
    for group in _offered(name):
        _remove(group.path)


def _remove(path: Path) -> None:
    """Remove a group and those in it; the kernel takes a moment to let go of one whose processes have just died."""
    for directory, _, _ in os.walk(path, topdown=False):
        until(partial(_try_to_remove, Path(directory)), f"the end of all processes of {directory}")


def _try_to_remove(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def _offered(name: str) -> Iterator[Group]:
    """Yield a group for each hierarchy that is mounted.

    They are below this process's own, except in version 2, where a group with processes shares out nothing.
    """
    mounts = list(_mounts())
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        kind = "cgroup" if controllers else "cgroup2"
        wanted = set(filter(None, controllers.split(",")))
        for mount in (place for place, offered, options in mounts if offered == kind and wanted <= options):
            options = f"none,{controllers}" if controllers.startswith("name=") else controllers or "rw"
            above = mount / own.lstrip("/") if controllers else mount
            yield Group(type=kind, options=options, place=str(mount.relative_to(TOP)), path=above / name)


def _mounts() -> Iterator[tuple[Path, str, frozenset[str]]]:
    """Yield where hierarchies are mounted, their version and their options, the controllers among them."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, offered = Path(line.split()[4]), OFFERED.search(line)
        if offered is not None and place.is_relative_to(TOP):
            yield place, offered["type"], frozenset(offered["options"].split(","))


def _inherit(path: Path) -> None:
    """Let a new group use the processors of the one above."""
    for name in CPUSET:
        if (path / name).exists() and (path.parent / name).exists():
            (path / name).write_text((path.parent / name).read_text())
