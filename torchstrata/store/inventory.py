"""Which packages a part holds, with what they themselves say of their licences.

Noted while a part is made, when its wheels and dpkg's files pass by anyway; of a part that was made before that was
so, read from its layers, once. What the words mean is :mod:`torchstrata.attestations.licences`' business, so that
nothing is read again when that changes.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
from packaging.utils import canonicalize_name

from torchstrata import decoding
from torchstrata.errors import IntegrityError
from torchstrata.store import codec as codecs
from torchstrata.store import core_metadata, dpkg_status, tarball
from torchstrata.store.dpkg_status import OsPackage
from torchstrata.store.layer import Layer, OpenBlob
from torchstrata.store.part import Part
from torchstrata.store.store import Store
from torchstrata.text import printable

INVENTORY: Final = "inventory"
"""Name of the extra blob of a part that holds its :class:`Inventory`."""

METADATA: Final = re.compile(r"opt/venv/lib/python[\d.]+/site-packages/[^/]+\.dist-info/METADATA")
STATUS: Final = "var/lib/dpkg/status"
DOCUMENTS: Final = "usr/share/doc/"
COPYRIGHT: Final = re.compile(r"usr/share/doc/([^/]+)/copyright|opt/([^/]+)/LICENSE")
"""Licences of a Debian package, and of a toolchain that was made from one."""

LINE: Final = 120
"""Characters of a licence's name; what is longer is its text."""

EXPRESSION: Final = 1000
"""Characters of an SPDX expression at most; the longest of the locks at hand has 77."""

COMMON: Final = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
"""Where Debian keeps the texts that copyright files in free form refer to."""


class PythonPackage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What METADATA says: ``License-Expression``, the first line of ``License``, and the ``License ::`` classifiers."""

    name: str
    version: str
    expression: str = ""
    license: str = ""
    classifiers: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The packages of one part."""

    python: tuple[PythonPackage, ...] = ()
    os: tuple[OsPackage, ...] = ()
    """All that dpkg calls installed where the part's top layer ends; empty if the part changes nothing of it."""
    copyrights: Mapping[str, tuple[str, ...]] = {}
    """Names of licences by directory of ``/usr/share/doc``, or by toolchain."""
    documents: Mapping[str, str] = {}
    """Directories of ``/usr/share/doc`` that are links to others."""


@dataclass(kw_only=True, slots=True)
class Collector:
    """Takes note of the files of layers, bottom to top."""

    python: list[PythonPackage] = field(default_factory=list)
    os: tuple[OsPackage, ...] = ()
    copyrights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def wants(path: str) -> bool:
        """Return whether the content of the file at ``path`` says something of packages."""
        return path == STATUS or (path.startswith((DOCUMENTS, "opt/")) and bool(METADATA.fullmatch(path) or COPYRIGHT.fullmatch(path)))

    def file(self, path: str, content: bytes) -> None:
        """Take note of a file that is wanted."""
        if path == STATUS:
            self.os = tuple(dpkg_status.installed(content.decode()))
        elif match := COPYRIGHT.fullmatch(path):
            self.copyrights[match[1] or match[2]] = copyright_names(content.decode(errors="replace"))
        else:
            self.python.append(python_package(content))

    def link(self, path: str, target: str) -> None:
        """Take note of a symbolic link; only those of and in ``/usr/share/doc`` count."""
        if path.startswith(DOCUMENTS) and (path.count("/") == DOCUMENTS.count("/") or path.endswith("/copyright")):
            directory = path.removeprefix(DOCUMENTS).partition("/")[0]
            self.documents[directory] = target.removesuffix("/copyright").rpartition("/")[2]

    def done(self) -> Inventory:
        """Return what was noted."""
        by_name = {package.name: package for package in self.python}
        return Inventory(
            python=tuple(by_name[name] for name in sorted(by_name)),
            os=self.os,
            copyrights=dict(sorted(self.copyrights.items())),
            documents=dict(sorted(self.documents.items())),
        )


def merged(inventories: Iterable[Inventory]) -> Inventory:
    """Return the inventory of parts that lie on each other, bottom to top."""
    collector = Collector()
    for inventory in inventories:
        collector.python += inventory.python
        collector.os = inventory.os or collector.os
        collector.copyrights |= inventory.copyrights
        collector.documents |= inventory.documents
    return collector.done()


def copyright_of(package: OsPackage, of: Inventory) -> tuple[str, ...]:
    """Return the names of the licences of an OS package; none if its copyright file is in no part."""
    directory = package.name
    for _ in range(3):
        if directory in of.copyrights:
            return of.copyrights[directory]
        directory = of.documents.get(directory, directory)
    return ()


def python_package(metadata: bytes) -> PythonPackage:
    """Return what the METADATA of a wheel says.

    :raises IntegrityError: it cannot be read.
    """
    try:
        fields = core_metadata.parse(metadata)
    except ValueError as error:
        raise IntegrityError(f"METADATA in a layer {error}", fix="have the layer made anew: inv cache --prune, then build") from error
    first = next((line.strip() for line in (fields.get("license") or "").splitlines() if line.strip(" =")), "")
    return PythonPackage(
        name=canonicalize_name(fields.get("name", "")),
        version=fields.get("version", ""),
        expression=printable(fields.get("license_expression", ""), EXPRESSION),
        license=printable(first[:LINE], LINE),
        classifiers=tuple(printable(name) for name in fields.get("classifiers", ()) if name.startswith("License ::")),
    )


def copyright_names(text: str) -> tuple[str, ...]:
    """Return the names of licences in a copyright file, in its order.

    These are those of its ``Files`` paragraphs if it is machine-readable (DEP-5); else the texts in
    ``/usr/share/common-licenses`` that it refers to, which says less.

    The fields are read here, since python-debian needs 2.5 s for the 216 files of an image, and this 0.04 s.
    """
    if not re.match(r"\s*Format(-Specification)?:", text):
        return tuple(dict.fromkeys(f"refers to {name}" for name in COMMON.findall(text)))
    paragraphs = [paragraph for paragraph in re.split(r"\n[ \t]*\n", text) if re.search(r"^(Files|Format):", paragraph, re.MULTILINE)]
    names = re.findall(r"^License:[ \t]*(\S.*)$", "\n\n".join(paragraphs), re.MULTILINE)
    return tuple(dict.fromkeys(map(str.strip, names)))


def stored(inventory: Inventory, store: Store) -> dict[str, str]:
    """Put an inventory into the store; return it as an extra blob of a part."""
    return {INVENTORY: store.add_blob(msgspec.json.encode(inventory))}


def of(part: Part, open_blob: OpenBlob) -> Inventory:
    """Return the inventory of a part: its own, else what its layers hold, which takes about a second for each GB.

    :raises StoreError: a blob is missing.
    """
    if INVENTORY in part.extras:
        return decoding.decode(open_blob(part.extras[INVENTORY]).read_bytes(), Inventory)
    return look(part.layers, open_blob)


def ensure(identity: str, part: Part, store: Store, open_blob: OpenBlob) -> Part:
    """Return a part with its inventory; one without gets it, and is noted so.

    :raises StoreError: a blob is missing.
    """
    if INVENTORY in part.extras:
        return part
    with store.lock(identity):
        known = store.known(identity)
        if known and INVENTORY in known.extras:
            return known
        complete = replace(part, extras={**part.extras, **stored(of(part, open_blob), store)})
        store.note(identity, complete)
    return complete


def look(layers: Sequence[Layer], open_blob: OpenBlob) -> Inventory:
    """Return what the layers hold, read from their blobs."""
    collector = Collector()
    for layer in layers:
        with open_blob(layer.digest).open("rb") as blob, tarball.reading(codecs.decompressor(blob, layer.media_type)) as archive:
            for member in archive:
                _see(member, archive, collector)
    return collector.done()


def _see(member: tarfile.TarInfo, archive: tarfile.TarFile, collector: Collector) -> None:
    path = member.name.removeprefix("./").strip("/")
    if member.issym():
        collector.link(path, member.linkname)
    elif member.isreg() and collector.wants(path):
        collector.file(path, tarball.content(archive, member).read())
