"""What an image or a container has: Python packages, OS packages, files; with the library of Python 3.10 alone.

This runs as a program in an image (``python3 -I -S -c``, a question on standard input), whose Python is as released;
and the action ``same-image`` imports it in a job's container, where there is nothing else.
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import io
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.parser import HeaderParser
from itertools import chain
from typing import Any, NamedTuple

VENV = "/opt/venv"
PLACES = (f"{VENV}/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages", "/home/*/.local/lib/python3*/site-packages")
"""Where people's Python packages lie: the image's environment, root's pip of the system, and each user's own."""

STATUS = "/var/lib/dpkg/status"
LISTS = "/var/lib/dpkg/info"
CUDA = "/opt/cuda"
SHARED = ("nvidia", "cusparselt")
"""What is a link in an image's site-packages, and leads below :data:`CUDA`: top-level directories of CUDA's wheels, if it has them.

Where it has not, pip makes a directory of that name.
"""

CHUNK = 1 << 20


class InstalledWheel(NamedTuple):
    """An installed Python package.

    :param info: its directory ``.dist-info``.
    :param source: where it was installed from, if not from an index (``direct_url.json``, PEP 610), for a requirement.
    :param editable: its code is elsewhere, at :attr:`source`.
    :param uid: owner of the directory.
    """

    name: str
    version: str
    info: str
    source: str = ""
    editable: bool = False
    uid: int = 0

    @property
    def place(self) -> str:
        """The directory that it lies in."""
        return os.path.dirname(self.info)  # noqa: PTH120  # a path in another file system


class FileState(NamedTuple):
    """A file, link or directory; its kind is empty where there is none.

    :param digest: SHA-256 of the content in hex, or where a link leads.
    :param owner: ``wheel NAME`` or ``package NAME:ARCHITECTURE``, if one of these brought it.
    """

    kind: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    digest: str = ""
    owner: str = ""


class Contents(NamedTuple):
    """What was found.

    :param wheels: by place and name.
    :param packages: version by ``NAME:ARCHITECTURE``.
    :param files: by path.
    """

    wheels: tuple[InstalledWheel, ...] = ()
    packages: Mapping[str, str] = {}
    files: Mapping[str, FileState] = {}


def normal(name: str) -> str:
    """Return a Python package's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheel(info: str, metadata: str, direct_url: str | None, uid: int) -> InstalledWheel:
    """Return what a ``.dist-info`` directory says.

    :param metadata: content of its ``METADATA`` (core metadata).
    :param direct_url: content of its ``direct_url.json``, if it has one.
    """
    fields = HeaderParser().parsestr(metadata)
    source, editable = _source(direct_url) if direct_url else ("", False)
    return InstalledWheel(normal(str(fields["Name"])), str(fields["Version"]), info, source, editable, uid)


def _source(document: str) -> tuple[str, bool]:
    """Return where a package came from, as a requirement names it, and whether its code is still there.

    A damaged document, as a full disk leaves it, says nothing; pip takes it so, too.
    """
    try:
        direct: Mapping[str, Any] = json.loads(document)
        url, subdirectory = str(direct["url"]), direct.get("subdirectory")
        if "vcs_info" in direct:
            url = f"{direct['vcs_info']['vcs']}+{url}@{direct['vcs_info']['commit_id']}"
        tail = f"#subdirectory={subdirectory}" if subdirectory else ""
        return url + tail, bool(direct.get("dir_info", {}).get("editable"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", False


def recorded(text: str, place: str, links: Iterable[str]) -> dict[str, str]:
    """Return the hash of each file in a RECORD (binary distribution format) by absolute path; empty if it has none.

    :param links: those of :data:`SHARED` that are links in that place.
    """
    linked = tuple(f"{place}/{top}/" for top in links)
    rows = (row for row in csv.reader(io.StringIO(text)) if row)
    return {_real(f"{place}/{row[0]}", place, linked): row[1] if len(row) > 1 else "" for row in rows}


def _real(path: str, place: str, linked: tuple[str, ...]) -> str:
    """Return where a path of a RECORD leads, without ``..`` and through the links of site-packages."""
    whole = os.path.normpath(path)
    return CUDA + whole[len(place) :] if whole.startswith(linked) else whole


def status(text: str) -> dict[str, str]:
    """Return the version of each package that dpkg's status file calls installed."""
    rows = (dict(_fields(stanza)) for stanza in text.split("\n\n") if stanza.strip())
    return {f"{row['Package']}:{row['Architecture']}": row["Version"] for row in rows if row.get("Status", "").endswith(" installed")}


def _fields(stanza: str) -> Iterator[tuple[str, str]]:
    for line in stanza.splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith(" "):
            yield name, value.strip()


def wheels(places: Sequence[str] = PLACES) -> tuple[InstalledWheel, ...]:
    """Return the Python packages here."""
    infos = sorted(chain.from_iterable(glob.glob(f"{place}/*.dist-info") for place in places))  # noqa: PTH207  # no Path for patterns with a root
    return tuple(_installed(info) for info in infos if os.path.isfile(f"{info}/METADATA"))  # noqa: PTH113


def _installed(info: str) -> InstalledWheel:
    direct = f"{info}/direct_url.json"
    return wheel(info, text(f"{info}/METADATA"), text(direct) if os.path.isfile(direct) else None, os.stat(info).st_uid)  # noqa: PTH113, PTH116


def packages() -> dict[str, str]:
    """Return the OS packages here."""
    return status(text(STATUS))


def text(path: str) -> str:
    """Return the content of a text file."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:  # noqa: PTH123  # thousands of files
        return file.read()


def state(path: str, owner: str = "") -> FileState:
    """Return what there is at a path."""
    try:
        entry = os.lstat(path)
    except OSError:
        return FileState(owner=owner)
    kind = kind_of(entry.st_mode)
    digest = content(path) if kind == "file" else os.readlink(path) if kind == "link" else ""  # noqa: PTH115
    return FileState(kind, stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid, digest, owner)


def kind_of(mode: int) -> str:
    """Return what a mode says that something is."""
    return "file" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode) else "directory" if stat.S_ISDIR(mode) else "other"


def content(path: str) -> str:
    """Return the SHA-256 of a file in hex."""
    with open(path, "rb") as file:  # noqa: PTH123
        return digest_of(iter(lambda: file.read(CHUNK), b""))


def digest_of(chunks: Iterable[bytes]) -> str:
    """Return the SHA-256 of some bytes in hex."""
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def edited(wheels: Iterable[InstalledWheel]) -> dict[str, str]:
    """Return the files that are not what their package's RECORD says, with the package's name: other content, or gone.

    Bytecode and what has no hash there, such as the RECORD itself, do not count.
    """
    owners: dict[str, str] = {}
    for installed in wheels:
        owners.update((path, installed.name) for path, expected in _record(installed).items() if expected and not _is_as(path, expected))
    return owners


def _is_as(path: str, expected: str) -> bool:
    kind, _, value = expected.partition("=")
    if kind != "sha256" or path.endswith(".pyc"):
        return True
    if not os.path.isfile(path):  # noqa: PTH113
        return False
    return base64.urlsafe_b64encode(bytes.fromhex(content(path))).rstrip(b"=").decode() == value


def _record(wheel: InstalledWheel) -> dict[str, str]:
    path = f"{wheel.info}/RECORD"
    links = [top for top in SHARED if os.path.realpath(f"{wheel.place}/{top}") == f"{CUDA}/{top}"]
    return recorded(text(path), wheel.place, links) if os.path.isfile(path) else {}  # noqa: PTH113


def owners(paths: Iterable[str], wheels: Iterable[InstalledWheel]) -> dict[str, str]:
    """Return who brought each of some paths; of a directory, whoever has something in it."""
    wanted = set(paths)
    owned: dict[str, str] = {}
    for path, owner in _owned(wheels):
        if path in wanted:
            owned[path] = owner
        for directory in above(path):
            if directory in wanted:
                owned.setdefault(directory, owner)
    return owned


def _owned(wheels: Iterable[InstalledWheel]) -> Iterator[tuple[str, str]]:
    """Yield every path that a package brought, and the package."""
    for wheel in wheels:
        yield from ((path, f"wheel {wheel.name}") for path in _record(wheel))
    for listing in sorted(glob.glob(f"{LISTS}/*.list")):  # noqa: PTH207
        name = os.path.basename(listing)[: -len(".list")]  # noqa: PTH119
        yield from ((path, f"package {name}") for path in text(listing).splitlines() if not os.path.isdir(path))  # noqa: PTH112


def above(path: str) -> Iterator[str]:
    """Yield the directories that a path lies in, from below, without the root."""
    while (path := path.rpartition("/")[0]) not in {"", "/"}:
        yield path


def answer(paths: Sequence[str]) -> Contents:
    """Return all that is here, with the state of some paths."""
    installed = wheels()
    owned = owners(paths, installed)
    return Contents(installed, packages(), {path: state(path, owned.get(path, "")) for path in paths})


def encode(contents: Contents) -> str:
    """Return contents as JSON."""
    return json.dumps({"wheels": contents.wheels, "packages": contents.packages, "files": contents.files})


def decode(document: str) -> Contents:
    """Return the contents that :func:`encode` wrote."""
    read = json.loads(document)
    files = {path: FileState(*row) for path, row in read["files"].items()}
    return Contents(tuple(InstalledWheel(*row) for row in read["wheels"]), read["packages"], files)


if __name__ == "__main__":
    sys.stdout.write(encode(answer(json.load(sys.stdin))))
