"""The program that compiles a payload, run by this Python as it runs inside a container, and the identity of what it makes."""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.parts import CODEC
from tests.tars import packed
from torchstrata.layers import bytecode
from torchstrata.store.codec import Codec
from torchstrata.store.layer import EPOCH
from torchstrata.store.store import Store

SITE = "opt/venv/lib/python3.13/site-packages"


def compiled(sources, *, cores=None, **environment):
    """Feed sources to the program, on some cores; return names and contents of what it gives back, in order."""
    command = [sys.executable, "-I", "-c", bytecode.PROGRAM.read_text(encoding="utf-8")]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        out = subprocess.run(command, input=packed(sources, mtime=EPOCH), capture_output=True, check=True, env={**os.environ, **environment}).stdout
    finally:
        os.sched_setaffinity(0, before)
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_pycs_lie_where_python_looks():
    """Each source gets its file in ``__pycache__``, named after the interpreter."""
    tag = sys.implementation.cache_tag
    assert list(compiled({f"{SITE}/a.py": b"", f"{SITE}/b/c.py": b"X = 1\n"})) == [f"{SITE}/__pycache__/a.{tag}.pyc", f"{SITE}/b/__pycache__/c.{tag}.pyc"]


def test_pycs_are_valid_for_their_sources():
    """The header is that of PEP 552's timestamp kind, with the source's time and size, so that edits are honoured; the code knows its path."""
    source = b"X = 41 + 1\n"
    ((_, content),) = compiled({f"{SITE}/a.py": source}).items()
    assert content[:16] == importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, EPOCH, len(source))
    code = marshal.loads(content[16:])
    found = {}
    exec(code, found)
    assert (code.co_filename, found["X"]) == (f"/{SITE}/a.py", 42)


def test_sources_that_do_not_compile_are_left_out():
    """Test files of packages may be for other Pythons; pip leaves them as they are too."""
    assert [name.rpartition("/")[2] for name in compiled({f"{SITE}/bad.py": b"print 'x'\n", f"{SITE}/null.py": b"\0", f"{SITE}/good.py": b""})] == [
        f"good.{sys.implementation.cache_tag}.pyc"
    ]


def test_the_bytes_depend_on_the_sources_alone():
    """Neither the seed of hashes nor another run changes them."""
    sources = {f"{SITE}/m{number}.py": f"X = {{'a', 'b', 'c', {number}}}\ndef f(x): return x in {{'p', 'q'}}\n".encode() for number in range(50)}
    assert compiled(sources) == compiled(sources, PYTHONHASHSEED="7", TZ="Asia/Tokyo")


def test_the_number_of_cores_changes_nothing():
    """Modules of the standard library, several batches of short ones, give the same bytes on one core."""
    paths = sorted(Path(os.__file__).parent.glob("*.py"), key=lambda path: path.stat().st_size)[:140]
    sources = {f"{SITE}/{path.name}": path.read_bytes() for path in paths}
    assert compiled(sources, cores={min(os.sched_getaffinity(0))}) == compiled(sources)


def test_identity_follows_payload_interpreter_and_codec():
    """Another wheel, another patch of Python or another compression is another stratum; the order of layers counts."""
    identities = [
        bytecode.identity(["a", "b"], "3.13.5", CODEC),
        bytecode.identity(["b", "a"], "3.13.5", CODEC),
        bytecode.identity(["a"], "3.13.5", CODEC),
        bytecode.identity(["a", "b"], "3.13.6", CODEC),
        bytecode.identity(["a", "b"], "3.13.5", Codec(name="gzip", level=6)),
    ]
    assert len(set(identities)) == len(identities)
    assert identities[0] == bytecode.identity(iter(["a", "b"]), "3.13.5", CODEC)


def test_only_python_sources_are_collected(tmp_path):
    """The container gets the ``.py`` files of the layers, in their order, and nothing of their gigabytes of libraries."""
    store = Store(tmp_path / "store")
    with store.layer("payload", CODEC) as writer:
        for name, content in ((f"{SITE}/a.py", b"A"), (f"{SITE}/lib.so", b"x" * 1000), (f"{SITE}/z/b.py", b"B")):
            writer.file(name, 0o664, len(content), io.BytesIO(content))
        writer.link(f"{SITE}/link.py", "a.py")
    out = io.BytesIO()
    bytecode._collect([writer.layer], store, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert [(member.name, member.mtime, archive.extractfile(member).read()) for member in archive] == [
            (f"{SITE}/a.py", EPOCH, b"A"),
            (f"{SITE}/z/b.py", EPOCH, b"B"),
        ]
