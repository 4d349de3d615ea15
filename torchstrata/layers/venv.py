"""The virtual environment at ``/opt/venv`` and CUDA beside it: where files of wheels lie, and how they get there.

Whatever a CUDA wheel brings as a top-level directory (``nvidia/``, in older ones ``cusparselt/``) lies in
``/opt/cuda``, whatever the Python; site-packages has a link for each such directory, so RECORD paths and torch's
RPATH hold as they are. The rest of such a wheel (dist-info, scripts) is small and goes to a layer of each Python's
own; see :class:`Aside`.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from installer.destinations import WheelDestination
from installer.records import Hash, RecordEntry
from installer.scripts import Script
from installer.utils import SCHEME_NAMES, Scheme, construct_record_file, copyfileobj_with_hashing, fix_shebang

from torchstrata.errors import IntegrityError
from torchstrata.layers.wheel_archive import BadWheelError
from torchstrata.layers.wheel_file import Member
from torchstrata.store.paths import UnsafePathError, member_path
from torchstrata.store.tarball import LayerWriter
from torchstrata.text import printable

VENV: Final = "opt/venv"
CUDA: Final = "opt/cuda"
PYTHON: Final = f"/{VENV}/bin/python"

SITE_SCHEMES: Final = ("purelib", "platlib")

DESCRIBING: Final = (".dist-info", ".egg-info", ".egg-link")
"""Endings, in lower case, by which importlib.metadata and pip know what describes a package."""

LIBRARY: Final = re.compile(r".+/lib/(lib[^/]+\.so[^/]*)")
NVCC: Final = re.compile(rf"({CUDA}/nvidia/cu(\d+))/bin/nvcc")

PLACEHOLDER: Final = b"#!python"
"""How a script begins whose interpreter the installer has to name."""

INTERPRETER: Final = re.compile(rf"{VENV}/(pyvenv\.cfg|lib64(/.*)?|bin/python(\d+(\.\d+)*t?)?)")
"""What the environment itself consists of; no wheel may bring it."""

BACK_DOOR: Final = re.compile(rf"{VENV}/lib/python[^/]*(/.*)?")
"""Where packages lie, which the scheme ``data`` must not reach: their own schemes have rules."""

SCRIPT: Final = 16 << 20
"""Bytes of a script at most that has to be changed; the largest that has not, uv, has 38 million."""

ASIDE: Final = 32 << 20
"""Bytes at most that the CUDA wheels of a layer set aside; those of the locks come to 61 thousand each."""

METADATA: Final = {"INSTALLER": b"torchstrata\n", "REQUESTED": b""}
"""Files that an installer adds to dist-info: its name, and that the wheel was asked for, as every line of a lock is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stray:
    """A file of a CUDA wheel that depends on the Python."""

    scheme: str
    path: str
    executable: bool
    content: bytes


@dataclass(kw_only=True, slots=True)
class Aside:
    """What CUDA wheels bring for each Python's own layer.

    :param tops: their top-level directories, which site-packages links to.
    """

    tops: list[str] = field(default_factory=list)
    files: list[Stray] = field(default_factory=list)


class Destination(WheelDestination):
    """Writes wheels into a layer.

    :param python: minor version of the Python; ``None`` in a CUDA layer, whose other files go to :attr:`aside`.
    """

    def __init__(self, writer: LayerWriter, python: str | None) -> None:
        self._writer, self._python = writer, python
        self._owners: dict[str, tuple[str, str]] = {}
        self._set_aside = 0
        self.wheel = self.dist_info = ""
        self.aside = Aside()

    def write_script(self, name: str, module: str, attr: str, section: Any) -> RecordEntry:
        """Write the launcher of an entry point."""
        name, content = Script(name, module, attr, section).generate(PYTHON, "posix")
        return self._write(Scheme("scripts"), name, io.BytesIO(content), executable=True)

    def write_file(self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO | Member, is_executable: bool) -> RecordEntry:  # noqa: FBT001  # the library's signature
        """Write a file of the wheel; scripts get the environment's Python."""
        if scheme == "scripts" and isinstance(stream, Member):
            return self._write(scheme, str(path), _launched(stream), executable=True)
        return self._write(scheme, str(path), stream, executable=is_executable)

    def finalize_installation(self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]) -> None:
        """Write RECORD."""
        with construct_record_file(records, self._prefix) as content:
            self._write(scheme, record_file_path, content, executable=False)

    def _prefix(self, scheme: Scheme) -> str | None:
        """Return the way from site-packages to a scheme, as RECORD needs it."""
        if scheme in SITE_SCHEMES:
            return None
        return posixpath.relpath(self._root(scheme), site_packages(self._python or "3")) + "/"

    def _root(self, scheme: str) -> str:
        if scheme == "headers":
            return f"{VENV}/include/site/python{self._python}/{self.wheel.partition('-')[0]}"
        return {"scripts": f"{VENV}/bin", "data": VENV}.get(scheme) or site_packages(self._python or "3")

    def _write(self, scheme: Scheme, path: str, stream: BinaryIO | Member, *, executable: bool) -> RecordEntry:
        """Write a file where it belongs and return its row for RECORD; hashes of the wheel's own RECORD are kept."""
        self._check_place(scheme, path)
        content, entry = _recorded(stream, path)
        top = self._top(scheme, path)
        if top:
            self._share(top, path, content, entry, executable=executable)
        elif self._python is None:
            self.aside.files.append(Stray(scheme=scheme, path=path, executable=executable, content=self._small(content, entry)))
        else:
            self._place(posixpath.join(self._root(scheme), path), content, entry, executable=executable)
        return entry

    def _check_place(self, scheme: Scheme, path: str) -> None:
        """Refuse what would take the place of the environment itself, or of another wheel's dist-info.

        :raises IntegrityError: it would.
        """
        try:
            place = posixpath.join(self._root(scheme), member_path(path))
        except UnsafePathError as error:
            raise self._refused(str(error)) from error
        if INTERPRETER.fullmatch(place):
            raise self._refused(f"it would replace /{place}, which belongs to the environment")
        if scheme == "data" and BACK_DOOR.fullmatch(place):
            raise self._refused(f"it would write {path} among the packages as if it were data")
        top = path.partition("/")[0]
        if scheme in SITE_SCHEMES and top.lower().endswith(DESCRIBING) and top != self.dist_info:
            raise self._refused(f"it would write {path}, which describes another package")

    def _refused(self, why: str) -> IntegrityError:
        return IntegrityError(f"{self.wheel} cannot be installed: {why}", fix="leave it out of images/*/requirements.in, and report it to its authors")

    def _small(self, content: Any, entry: RecordEntry) -> bytes:
        """Return the content of a file that is set aside, if there is still room for it."""
        assert entry.size is not None
        self._set_aside += entry.size
        if self._set_aside > ASIDE:
            raise self._refused(f"CUDA wheels bring more than {ASIDE} bytes beside CUDA itself")
        data: bytes = content.read()
        return data

    def _top(self, scheme: Scheme, path: str) -> str:
        """Return the top-level directory of a file that lies in ``/opt/cuda``; nothing for others."""
        top, slash, _ = path.partition("/")
        in_cuda = top == "nvidia" or (self._python is None and not top.endswith(".dist-info"))
        return top if slash and scheme in SITE_SCHEMES and in_cuda else ""

    def _share(self, top: str, path: str, content: Any, entry: RecordEntry, *, executable: bool) -> None:
        """Write a file below ``/opt/cuda``, and the links by which loaders, compilers and Python find it."""
        place = f"{CUDA}/{path}"
        self._place(place, content, entry, executable=executable)
        if library := LIBRARY.fullmatch(place):
            self._link(f"{CUDA}/lib/{library[1]}", posixpath.relpath(place, f"{CUDA}/lib"))
        if nvcc := NVCC.fullmatch(place):
            self._link(f"{nvcc[1]}/lib64", "lib")
            self._link(f"{nvcc[1]}/lib/libcudart.so", f"libcudart.so.{nvcc[2]}")
        if self._python:
            self.link_tops([top])
        elif top not in self.aside.tops:
            self.aside.tops.append(top)

    def _place(self, path: str, content: Any, entry: RecordEntry, *, executable: bool) -> None:
        identity = f"{entry.hash_} {entry.size}"
        if self._claim(path, identity):
            assert entry.size is not None
            self._writer.file(path, 0o775 if executable else 0o664, entry.size, content, content=identity)
        if isinstance(content, Member):
            content.drain()  # the same file again, or an empty one: nobody has read it

    def _link(self, path: str, target: str) -> None:
        if self._claim(path, f"-> {target}"):
            self._writer.link(path, target)

    def _claim(self, path: str, identity: str) -> bool:
        """Return whether a path is still free; the same content again is fine, other content is refused."""
        owner, known = self._owners.setdefault(path, (self.wheel, ""))
        if known and known != identity:
            raise IntegrityError(
                f"{owner} and {self.wheel} both bring /{path}, with different contents",
                fix="leave one of them out of images/*/requirements.in, then run inv lock",
            )
        self._owners[path] = (owner, identity)
        return not known

    def link_tops(self, tops: Collection[str]) -> None:
        """Link top-level directories of CUDA wheels into site-packages."""
        for top in tops:
            self._link(f"{site_packages(self._python or '3')}/{top}", f"/{CUDA}/{top}")

    def write_aside(self, aside: Aside) -> None:
        """Write what CUDA wheels have set aside, which may come from somebody else's store.

        :raises IntegrityError: it names a place that no wheel may write.
        """
        for top in aside.tops:
            if "/" in top or top.lower().endswith(DESCRIBING):
                raise self._refused(f"{printable(top)} is no directory of CUDA")
            self._check_place(Scheme("purelib"), top)
        self.link_tops(aside.tops)
        for stray in aside.files:
            if stray.scheme not in SCHEME_NAMES:
                raise self._refused(f"{printable(stray.scheme)} is no scheme of wheels")
            self.dist_info = stray.path.partition("/")[0]  # checked when its own wheel was read
            self._write(Scheme(stray.scheme), stray.path, io.BytesIO(stray.content), executable=stray.executable)


def _launched(script: Member) -> BinaryIO | Member:
    """Return a script that runs the environment's Python if it says ``#!python``; return others as they are."""
    start = b""
    while len(start) < len(PLACEHOLDER) and (more := script.read(len(PLACEHOLDER) - len(start))):
        start += more
    if start != PLACEHOLDER:
        return script.again()
    if script.size > SCRIPT:
        raise BadWheelError(f"a script for Python has more than {SCRIPT} bytes")
    with fix_shebang(io.BytesIO(script.again().read()), PYTHON) as changed:
        return io.BytesIO(changed.read())


def _recorded(stream: BinaryIO | Member, path: str) -> tuple[Any, RecordEntry]:
    """Return the content, from its start, with its row for RECORD."""
    if isinstance(stream, Member) and stream.recorded:
        return stream, RecordEntry(path, Hash(stream.recorded.algorithm, stream.recorded.value), stream.size)
    data = stream.read()
    digest, size = copyfileobj_with_hashing(io.BytesIO(data), io.BytesIO(), "sha256")
    return io.BytesIO(data), RecordEntry(path, Hash("sha256", digest), size)


def site_packages(python: str) -> str:
    """Return the directory of Python packages, without the leading slash."""
    return f"{VENV}/lib/python{python}/site-packages"


def write_skeleton(writer: LayerWriter, python: str) -> None:
    """Write the environment without any package, as ``python -m venv --without-pip`` would."""
    config = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n".encode()
    writer.file(f"{VENV}/pyvenv.cfg", 0o664, len(config), io.BytesIO(config))
    writer.link(f"{VENV}/bin/python", f"/usr/bin/python{python}")
    writer.link(f"{VENV}/bin/python3", "python")
    writer.link(f"{VENV}/bin/python{python}", "python")
    writer.link(f"{VENV}/lib64", "lib")
    writer.directory(site_packages(python))
