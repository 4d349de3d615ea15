"""Layers of OS packages: what stays out, and what no build changes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests import tars
from torchstrata.errors import StoreError
from torchstrata.layers import os_layers
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

EPOCH = 1_795_478_400


LEFT_OUT = (
    "dev/null",
    "run/lock",
    "tmp/x",
    "etc/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/passwd-",
    "etc/ssh/ssh_host_ed25519_key",
    "var/log/dpkg.log",
    "var/log/apt/.wh.history.log",
    "var/lib/apt/lists/lock",
    "var/lib/dpkg/status-old",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/config.dat-old",
    "var/cache/apt/archives/git.deb",
    "dev/pts/",
)
STAYS = (
    "etc/passwd",
    "usr/bin/git",
    "var/lib/dpkg/status",
    "var/cache/debconf/config.dat",
    "etc/ssh/sshd_config",
    "devel",
    "var/.wh.spool",
    "var/log/apt/",
    "run/sshd/",
)


@pytest.mark.parametrize("path", LEFT_OUT + STAYS)
def test_what_tells_builds_apart_is_left_out(path: str) -> None:
    """Logs, caches, lists, backups, keys, identities; what packages install stays, and directories of logs and sockets."""
    assert os_layers.left_out(path.rstrip("/"), is_directory=path.endswith("/")) == (path in LEFT_OUT)


def packed(prefix: str, mtime: float) -> io.BytesIO:
    """Return a tar as two builds make it: other names, times and owners' names for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, content in (
            ("etc", tarfile.DIRTYPE, b""),
            ("etc/x", tarfile.REGTYPE, b"x"),
            ("etc/y", tarfile.LNKTYPE, b""),
            ("etc/.wh.z", tarfile.REGTYPE, b""),
        ):
            member = tarfile.TarInfo(f"{prefix}{name}")
            member.type, member.mtime, member.size, member.uname = kind, mtime, len(content), prefix
            member.linkname = f"{prefix}etc/x" if kind == tarfile.LNKTYPE else ""
            archive.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def test_builds_at_other_times_give_the_same_layer(tmp_path: Path) -> None:
    """Times after the lock's, names of owners and a leading ./ leave no trace in the bytes."""
    store = Store(tmp_path)
    first, second = (os_layers.take(tar, store, Codec(), title="x", epoch=EPOCH).layer for tar in (packed("./", EPOCH + 5.5), packed("", EPOCH + 99)))
    assert first == second
    assert [(entry.path, entry.kind) for entry in store.listing(first.diff_id)] == [("etc", "dir"), ("etc/x", "file"), ("etc/y", "file"), ("etc/z", "whiteout")]


@pytest.mark.parametrize(("kind", "mode", "kept"), [(tarfile.REGTYPE, 0o4755, 0o755), (tarfile.LNKTYPE, 0o2755, 0o755), (tarfile.DIRTYPE, 0o2775, 0o2775)])
def test_no_file_of_a_layer_lends_rights(tmp_path: Path, kind: bytes, mode: int, kept: int) -> None:
    """Whatever package brings it, no program runs as its owner, group or with capabilities; directories hand their group on."""
    out, store = io.BytesIO(), Store(tmp_path)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("usr/bin/x")
        member.type, member.mode, member.linkname = kind, mode, "usr/bin/y" if kind == tarfile.LNKTYPE else ""
        member.pax_headers = {"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.kept": "y"}
        archive.addfile(member)
    out.seek(0)
    layer = os_layers.take(out, store, Codec(), title="x", epoch=EPOCH).layer
    with tars.opened(store, layer) as archive:
        found = next(iter(archive))
    assert (found.mode, found.pax_headers) == (kept, {"SCHILY.xattr.user.kept": "y"})


def test_a_tar_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    """A cut export is an error, and no blob."""
    cut = io.BytesIO(packed("", EPOCH).getvalue()[:1100])
    with pytest.raises((tarfile.TarError, StoreError)):
        os_layers.take(cut, Store(tmp_path), Codec(), title="x", epoch=EPOCH)
    assert not list((tmp_path / "blobs").rglob("*"))
