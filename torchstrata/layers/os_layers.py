"""Layers of OS packages, as they go into the store: the tar of BuildKit or mmdebstrap without what tells builds apart.

Times are clamped to the date of the OS lock (directories, whose times BuildKit does not keep, get that date), owners
are numbers, no file lends its owner's rights (:data:`LENT`), and :data:`LEFT_OUT` never gets into an image: logs,
caches, package lists, backup files, host keys, identities of machines, device nodes. So the bytes of a layer do not
depend on the version of the engine, and its compression is the store's.
"""

from __future__ import annotations

import io
import re
import stat
import tarfile
from dataclasses import dataclass
from typing import IO, Final

from torchstrata.store import tarball
from torchstrata.store.codec import Codec
from torchstrata.store.inventory import STATUS, Collector, Inventory
from torchstrata.store.layer import Layer
from torchstrata.store.store import Store

LEFT_OUT: Final = re.compile(
    r"""
      (dev | proc | run | sys | tmp | var/log | var/tmp | var/lib/apt/lists)/.+
    | var/cache/(?!debconf/[^/]*\.dat$).+
    | var/lib/dpkg/.*-old
    | etc/(passwd|group|shadow|gshadow|subuid|subgid)-
    | etc/(machine-id|hostname|hosts|resolv\.conf) | var/lib/dbus/machine-id
    | etc/ssh/ssh_host_.* | etc/apt/preferences\.d/torchstrata
    """,
    re.VERBOSE,
)
"""Files that no layer has; directories stay, so that packages find theirs (``dev`` excepted)."""


LENT: Final = stat.S_ISUID | stat.S_ISGID
"""Bits by which a program lends its owner's rights. No image needs them: who may be root there starts as root."""

CAPABILITIES: Final = "SCHILY.xattr.security.capability"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLayer:
    """A layer in the store.

    :param status: dpkg's status file, if the layer has it.
    :param inventory: the packages and licences that the layer tells of.
    """

    layer: Layer
    status: str | None
    inventory: Inventory


def take(tar: IO[bytes], store: Store, codec: Codec, *, title: str, epoch: int) -> StoredLayer:
    """Put a layer into the store.

    :param tar: a stream of the uncompressed tar.
    :param epoch: seconds since 1970; no file of the layer is younger.
    :raises IntegrityError: the tar is truncated, or has a path twice.
    """
    status, collector = None, Collector()
    with store.layer(title, codec) as writer, tarball.reading(tar) as archive:
        for member in archive:
            plain = _plain(member, epoch)
            if plain is None:
                continue
            content: IO[bytes] | None = archive.extractfile(member) if member.isreg() else None
            if content is not None and collector.wants(plain.name):
                read = content.read()
                collector.file(plain.name, read)
                status = read.decode() if plain.name == STATUS else status
                content = io.BytesIO(read)
            if plain.issym():
                collector.link(plain.name, plain.linkname)
            writer.add(plain, content)
    return StoredLayer(layer=writer.layer, status=status, inventory=collector.done())


def left_out(path: str, *, is_directory: bool) -> bool:
    """Return whether ``path`` (no leading slash), or the whiteout that removes it, stays out of every layer."""
    if is_directory and not path.startswith("dev/"):
        return False
    parent, slash, name = path.rpartition("/")
    return LEFT_OUT.fullmatch(f"{parent}{slash}{name.removeprefix('.wh.')}") is not None


def _plain(member: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo | None:
    """Return the member with nothing that differs between builds, or None if it stays out."""
    path = member.name.removeprefix("./").strip("/")
    if path in {"", "."} or left_out(path, is_directory=member.isdir()):
        return None
    attributes = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.") and key != CAPABILITIES}
    plain = tarfile.TarInfo(f"{path}/" if member.isdir() else path)
    plain.type, plain.size, plain.uid, plain.gid = member.type, member.size, member.uid, member.gid
    plain.mode = member.mode if member.isdir() else member.mode & ~LENT
    plain.devmajor, plain.devminor = member.devmajor, member.devminor
    plain.mtime = epoch if member.isdir() else min(int(member.mtime), epoch)
    plain.linkname = member.linkname.removeprefix("./") if member.islnk() else member.linkname
    plain.pax_headers = attributes
    return plain
