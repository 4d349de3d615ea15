"""The root file system of a machine: what README's "Needed" names, and what an administrator would have set."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import platformdirs

from tests.fresh import cgroups
from tests.fresh.given import CERTIFICATE, SYSTEM_BUNDLE, Given
from torchstrata import process
from torchstrata.errors import CommandError

SUITES: Final = {"debian12": "bookworm", "debian13": "trixie"}
NEEDED: Final = ("python3", "python3-venv", "git")
"""README's "Needed", in Debian's names; a virtual environment is in its first command."""

NAME: Final = "fresh"
PREFIX: Final = "torchstrata-fresh-"
"""Beginning of the names of what a machine has on the host; the number of the process that cares for it follows."""

AUTHORITIES: Final = "usr/local/share/ca-certificates"


def bootstrap(system: str, given: Given, *, cold: bool) -> Path:
    """Return a tar of the root file system; it is kept for the rest of the day.

    :param system: as in :data:`SUITES`.
    :param cold: make it anew even if there is one of today.
    :raises Failed: mmdebstrap failed.
    """
    kept = platformdirs.user_cache_path("torchstrata-fresh", ensure_exists=True)
    tar = kept / f"{datetime.now(UTC):%Y-%m-%d}-{system}.tar"
    if cold or not tar.exists():
        for old in (path for path in kept.iterdir() if not path.name.startswith(tar.name[:11])):
            old.unlink(missing_ok=True)
        _make(tar, SUITES[system], given)
    return tar


def _make(tar: Path, suite: str, given: Given) -> None:
    sources = given.sources(suite).encode()
    options = ["--quiet", "--variant=minbase", "--format=tar", f"--include={','.join(NEEDED)}"]
    options += [f'--aptopt={name} "{value}"' for name, value in given.apt.items()]
    partial = tar.with_name(f"{tar.name}.{os.getpid()}")
    try:
        with partial.open("wb") as out:
            process.run("mmdebstrap", *options, suite, str(partial), *(["-"] if sources else []), stdin=sources or None)
            os.fsync(out.fileno())
        partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)


def unpack(tar: Path, root: Path, given: Given) -> None:
    """Make the root file system at ``root`` of a tar, and set what an administrator would have set."""
    process.run("tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--file", tar, "--directory", root)
    files = {
        "etc/hostname": f"{NAME}\n",
        "etc/hosts": f"127.0.0.1 localhost {NAME}\n::1 localhost\n",
        "etc/pip.conf": given.pip_conf,
        "etc/environment": given.environment,
        "etc/apt/apt.conf.d/50administrator": given.apt_conf,
    }
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    _trust(root, given)


def _trust(root: Path, given: Given) -> None:
    """Install the authorities that the distribution does not know."""
    known = set(CERTIFICATE.findall((root / SYSTEM_BUNDLE.lstrip("/")).read_text(encoding="ascii")))
    for number, text in enumerate(text for text in given.certificates if text not in known):
        (root / AUTHORITIES / f"administrator-{number}.crt").write_text(text, encoding="ascii")
    process.run("chroot", root, "/usr/sbin/update-ca-certificates")


@contextlib.contextmanager
def place(directory: Path, size: int | None) -> Iterator[Path]:
    """Yield an empty directory for a root file system, and remove all of it at the end.

    :param directory: where it is made.
    :param size: bytes of a disk of its own; None for as much as there is.
    :raises CommandError: programs in it could not have the rights that su needs, or there is no loop device.
    """
    if os.statvfs(directory).f_flag & (os.ST_NOSUID | os.ST_NODEV):
        raise CommandError(f"{directory} is mounted nosuid or nodev", fix="name a directory of another file system with --in")
    sweep(directory)
    work = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=directory))
    try:
        root = work / "root"
        root.mkdir(mode=0o755)
        if size is not None:
            _mount(work / "disk", root, size)
        yield root
    finally:
        _remove(work)


def _mount(image: Path, root: Path, size: int) -> None:
    """Mount a disk of ``size`` bytes at ``root``; it takes no more of this host's disk than its files take."""
    with image.open("wb") as file:
        file.truncate(size)
    process.run("mkfs.ext4", "-q", "-m", "0", image)
    process.run("mount", "-o", "loop,discard", image, root)


def free_loops(root: Path) -> None:
    """Detach the loop devices whose files lie in a root file system; the kernel keeps them when a machine is gone."""
    for device in _loops(root):
        process.run("losetup", "--detach", device)


def _loops(root: Path) -> Iterator[str]:
    status = root.stat()
    own = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    for line in process.run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-MAJ:MIN,BACK-INO").splitlines():
        device, disk, inode = line.split()
        if disk == own and process.run("find", root, "-xdev", "-inum", inode):
            yield device


def sweep(directory: Path) -> None:
    """Remove what killed harnesses left in ``directory``; what they ran died with them."""
    for left in directory.glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            cgroups.remove(left.name)
            _remove(left)


def _remove(work: Path) -> None:
    root = work / "root"
    free_loops(root)
    if root.is_mount():
        process.run("umount", root)
    process.run("rm", "--recursive", "--force", "--one-file-system", work)
