"""Wheels that mean harm, or that somebody has damaged: each is refused in one line, before anything of it is in a layer."""

from __future__ import annotations

import random
import struct
import threading
import zipfile
from pathlib import Path

import pytest

from tests.allocation import less_than
from tests.wheelhouse import forged, pin
from torchstrata.errors import ComposeError, IntegrityError
from torchstrata.image import compose
from torchstrata.layers import strata, venv, wheel_archive, wheel_file
from torchstrata.layers.venv import Aside, Stray
from torchstrata.locks.lockfile import Lock, Pin
from torchstrata.matrix.schema import Group, Strata
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM, Entry
from torchstrata.store.part import Part
from torchstrata.store.store import Store

CODEC = Codec(level=1)
INFO = "evil-1.0.dist-info"
DATA = "evil-1.0.data"
SITE = "opt/venv/lib/python3.13/site-packages"
WHEEL = "evil-1.0-py3-none-any.whl"
POINTS = f"{INFO}/entry_points.txt"


def planned(*pins: Pin, groups: tuple[Group, ...] = ()) -> tuple[strata.Stratum, ...]:
    """Plan a lock of pins, each large one a layer of its own."""
    lock = Lock(build="2.8.0", python="3.13", flavour="base", platform=PLATFORM, requires=(), exclude_newer="2026-01-01", uv="1", pins=pins)
    return strata.plan(lock, None, Strata(own_layer_over=1 << 40, cuda_groups=groups), "3.13")


def make(store: Store, directory: Path, *pins: Pin, groups: tuple[Group, ...] = ()) -> list[Part]:
    """Make all strata of a lock."""
    made = []
    for stratum in planned(*pins, groups=groups):
        files = {each.sha256: directory / each.filename for each in pins}
        made.append(strata.make(stratum, files, store, CODEC, threading.Event()))
        store.remember(stratum.identity(CODEC), made[-1])
    return made


def refuse(store: Store, directory: Path, evil: Pin, match: str | None = None) -> IntegrityError:
    """See that a wheel is refused in one printable line of what and of how, and that nothing of it stays."""
    (stratum,) = [each for each in planned(evil) if evil in each.pins]
    with pytest.raises(IntegrityError, match=match) as caught:
        strata.make(stratum, {evil.sha256: directory / evil.filename}, store, CODEC, threading.Event())
    assert caught.value.what.isprintable()
    assert caught.value.fix.isprintable()
    assert not list(store.root.glob("blobs/*/*")) + list(store.root.glob("tmp/*/*"))
    return caught.value


NAMES = [
    ".wh.torch",
    "evil/.wh..wh..opq",
    ".wh.x/y.py",
    f"{DATA}/scripts/.wh.python",
    f"{DATA}/data/.wh.lib",
    ".",
    "..",
    "./evil.py",
    "evil/..",
    "evil/./x.py",
    "evil//x.py",
    "/etc/passwd",
    "../evil.py",
    f"{DATA}/data/.",
    f"{DATA}/data/../../../etc/cron.d/x",
    "evil\\x.py",
    "evil/\x1b[2J.py",
    "evil/\u202egpj.py",
    "evil/a\nb.py",
    "evil/\x00.py",
    f"evil/{'a' * 256}",
    f"evil/{'b/' * 600}x",
    "",
]
"""Names that lead elsewhere, erase files of other layers, or hide what they are."""
IN_THE_WAY = [DATA, f"{DATA}/scripts", f"{DATA}/data", f"{DATA}/unknown/x"]
"""Files that are named as ``.data`` itself, or as a directory of it: the library that installs does not end on them."""
THEFT = [
    ({f"{DATA}/scripts/python": b"x"}, "belongs to the environment"),
    ({f"{DATA}/scripts/python3.13": b"x"}, "belongs to the environment"),
    ({f"{DATA}/data/pyvenv.cfg": b"x"}, "belongs to the environment"),
    ({f"{DATA}/data/bin/python3": b"x"}, "belongs to the environment"),
    ({f"{DATA}/data/lib64/python3.13/site-packages/torch/__init__.py": b"x"}, "belongs to the environment"),
    ({POINTS: b"[console_scripts]\npython = evil:main\n"}, "belongs to the environment"),
    ({POINTS: b"[gui_scripts]\npython3 = evil:main\n"}, "belongs to the environment"),
    ({f"{DATA}/data/lib/python3.13/site-packages/torch/__init__.py": b"x"}, "as if it were data"),
    ({f"{DATA}/data/lib/python3.13": b"x"}, "as if it were data"),
    ({f"{DATA}/purelib/torch-2.8.0.dist-info/METADATA": b"Name: torch\n"}, "describes another package"),
    ({"torch-9.9.DIST-INFO/METADATA": b"Name: torch\n"}, "describes another package"),
    ({"torch-9.9.egg-info/PKG-INFO": b"Name: torch\n"}, "describes another package"),
    ({"torch.egg-link": b"/tmp\n"}, "describes another package"),
]
"""What takes the place of the interpreter, of the environment's files or of another package, and what is said of it."""
SCRIPTS = [
    b"no section\n",
    b"[console_scripts]\na = evil:main\na = evil:main\n",
    b"[console_scripts]\na\n",
    b"[console_scripts]\na = \n",
    b"[console_scripts]\na = evil\n",
    b"[console_scripts]\na = os;system('id'):main\n",
    b"[console_scripts]\n../../lib/x = evil:main\n",
    b"[console_scripts]\nsub/x = evil:main\n",
    b"[console_scripts]\n.wh.pip = evil:main\n",
    b"[console_scripts]\n\xff = evil:main\n",
    b"[console_scripts]\na = %(b)s\nb = evil:main\n",
    b"[console_scripts]\n" + b"".join(b"%c = " % (97 + level) + b"%%(%c)s" % (98 + level) * 9 + b"\n" for level in range(20)),
    b"[console_scripts]\na = evil:main" + b"x" * (1 << 20),
]
"""Entry points of bad syntax, to no module, with names that are no file name, and references that grow without end."""
METADATA = [
    b"Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n",
    b"Metadata-Version: 2.1\nName: evil\nVersion: 2.0\n",
    b"Metadata-Version: 2.1\nName: evil\nVersion: none\n",
    b"Metadata-Version: 2.1\n",
    b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n\n\xff\xfe",
    b"\x00",
    b"",
    b"Name: evil\nVersion: 1.0\nX: " + b"y" * (4 << 20),
    b"Name: evil\nVersion: 1.0\n" + b"".join(b"X%d: y\n" % number for number in range(20_000)),
    b"Name: evil\nVersion: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n",
]
"""Those of another package or version than the lock asks for, and what is none."""


@pytest.mark.parametrize(
    ("content", "match"),
    [
        *(({name: b"x"}, None) for name in (*NAMES, *IN_THE_WAY)),
        *THEFT,
        *(({POINTS: points}, None) for points in SCRIPTS),
        *(({f"{INFO}/METADATA": metadata}, None) for metadata in METADATA),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_files_that_no_wheel_may_have_are_refused(
    store: Store,
    tmp_path: Path,
    content: dict[str, bytes],
    match: str | None,
) -> None:
    """None of it reaches a layer."""
    refuse(store, tmp_path, forged(tmp_path / WHEEL, content), match)


ROW = f"{INFO}/METADATA,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"


@pytest.mark.parametrize(
    "record",
    [
        "",
        "one\n",
        "a,b,c,d\n",
        ROW,
        "evil.py,,\n",
        "evil.py,sha256=AAAA,1\n",
        "evil.py,md5=nUzlkRNAhaprVUTCZP18mQ,1\n",
        "evil.py,shake_128=AAAA,1\n",
        "evil.py,sha256,1\n",
        "evil.py,sha256=AAAA,-1\n",
        "evil.py,sha256=AAAA,1_0\n",
        f"evil.py,sha256=AAAA,{'9' * 5000}\n",
        "evil.py,sha256=AAAA,\u0661\n",
        f"evil.py,sha256=AAAA,1\n{ROW}{ROW}",
        f'"{"x" * 200_000}",,\n',
        'evil.py,"sha256=AAAA,1\n',
    ],
)
def test_what_record_says_is_checked(store: Store, tmp_path: Path, record: str) -> None:
    """A RECORD that is none, that lacks a file, or that has another size or hash of it, or one of a kind that is not allowed."""
    refuse(store, tmp_path, forged(tmp_path / WHEEL, {"evil.py": b"x"}, record=record))


def record_of(path: Path) -> str:
    """Return the RECORD of a wheel."""
    name, version, *_ = path.name.split("-")
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{name}-{version}.dist-info/RECORD").decode()


def test_what_record_lists_is_there(store: Store, tmp_path: Path) -> None:
    """A file that RECORD lists and the archive lacks was lost on the way, such as by a flipped length in the archive's directory."""
    forged(tmp_path / WHEEL, {"evil.py": b"x", "gone.py": b"x"})
    record = record_of(tmp_path / WHEEL)
    refuse(store, tmp_path, forged(tmp_path / WHEEL, {"evil.py": b"x"}, record=record), "RECORD lists gone.py")


@pytest.mark.parametrize("name", ["evil.py", "nvidia/__init__.py", f"{DATA}/scripts/run", f"{INFO}/entry_points.txt", f"{INFO}/WHEEL"])
@pytest.mark.parametrize("found", [b"", b"y", b"xx"], ids=["empty", "other", "longer"])
def test_every_file_has_the_hash_that_record_says(store: Store, tmp_path: Path, name: str, found: bytes) -> None:
    """Whatever becomes of a file, its bytes are those that RECORD lists."""
    forged(tmp_path / WHEEL, {name: b"x"})
    refuse(store, tmp_path, forged(tmp_path / WHEEL, {name: found}, record=record_of(tmp_path / WHEEL)))


def test_the_same_file_again_is_checked_too(store: Store, tmp_path: Path) -> None:
    """A second wheel that only says that it brings the same file is found out, though its file is not written."""
    honest = forged(tmp_path / "nvidia_a-1.0-py3-none-any.whl", {"nvidia/__init__.py": b"honest"})
    name = "nvidia_b-1.0-py3-none-any.whl"
    forged(tmp_path / name, {"nvidia/__init__.py": b"honest"})
    rows = record_of(tmp_path / name)
    assert record_of(tmp_path / honest.filename).splitlines()[2] in rows
    liar = forged(tmp_path / name, {"nvidia/__init__.py": b"liar!!"}, record=rows)
    renamed = [Pin(name=each.name.replace("_", "-"), version="1.0", filename=each.filename, sha256=each.sha256, size=each.size) for each in (honest, liar)]
    with pytest.raises(IntegrityError, match="another hash than RECORD says"):
        make(store, tmp_path, *renamed, groups=(Group(title="CUDA", wheels=("nvidia-*",)),))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flag_bits", 0x1),
        ("flag_bits", 0x40),
        ("flag_bits", 0x2000),
        ("compress_type", 99),
        ("compress_type", zipfile.ZIP_LZMA),
        ("compress_type", zipfile.ZIP_STORED),
        ("file_size", 1 << 40),
        ("file_size", (1 << 63) + 5),
        ("file_size", 0),
        ("compress_size", 1 << 40),
        ("compress_size", 0),
        ("header_offset", 1 << 40),
        ("header_offset", 3),
        ("header_offset", 0),
        ("CRC", 5),
        ("extra", b"\x01\x00\x08\x00" + b"\xff" * 8),
        ("extra", b"\x01\x00\xff\xff"),
        ("extract_version", 99),
        ("filename", "other.py"),
    ],
)
def test_what_the_directory_says_is_checked(store: Store, tmp_path: Path, field: str, value: object) -> None:
    """Encrypted and patched entries, other compressions, sizes and places that cannot be, zip64 fields that lie, two names of one file."""

    def change(info: zipfile.ZipInfo) -> None:
        if info.filename == "evil.py":
            setattr(info, field, value)

    evil = forged(tmp_path / WHEEL, {"evil.py": b"x" * 100}, change=change)
    if field == "extra" and value == b"\x01\x00\x08\x00" + b"\xff" * 8:
        evil = _all_ones(tmp_path / WHEEL)
    refuse(store, tmp_path, evil)


def _all_ones(path: Path) -> Pin:
    """Let the sizes of the first entry that has an extra field stand in that field (APPNOTE 4.5.3)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"\x01\x00\x08\x00" + b"\xff" * 8, data.index(b"PK\x01\x02"))
    start = data.rindex(b"PK\x01\x02", 0, place)
    data[start + 24 : start + 28] = b"\xff" * 4
    path.write_bytes(data)
    return pin(path, "evil", "1.0")


def test_a_name_twice_is_refused(store: Store, tmp_path: Path) -> None:
    """Readers differ in which of two entries of one name they take."""
    forged(tmp_path / WHEEL, {"evil.py": b"x", "evil.pz": b"x"})
    data = (tmp_path / WHEEL).read_bytes().replace(b"evil.pz", b"evil.py")
    (tmp_path / WHEEL).write_bytes(data)
    refuse(store, tmp_path, pin(tmp_path / WHEEL, "evil", "1.0"), "two entries of one name")


def test_a_small_wheel_does_not_become_a_large_layer(store: Store, tmp_path: Path) -> None:
    """Noughts that a few kilobytes inflate to are refused before they are written."""
    refuse(store, tmp_path, forged(tmp_path / WHEEL, {"evil.bin": bytes(80_000_000)}), "would inflate to 800")


@pytest.mark.parametrize("name", [f"{DATA}/scripts/big", f"{INFO}/METADATA", f"{INFO}/RECORD", f"{INFO}/RECORD.jws", f"{INFO}/WHEEL", POINTS, "unlisted.bin"])
def test_what_is_read_as_a_whole_has_a_limit(store: Store, tmp_path: Path, name: str) -> None:
    """A file that must be read into memory, since it is text or has to be changed, is refused by its size before it is read."""
    record = f"{INFO}/RECORD,,\n" if name.endswith((".jws", ".bin")) else None
    evil = forged(tmp_path / WHEEL, {name: b"#!python\n" + bytes(25_000_000)}, record=record)
    with less_than(20_000_000):
        refuse(store, tmp_path, evil)


def test_text_that_inflates_to_more_than_it_says_is_given_up(store: Store, tmp_path: Path) -> None:
    """A METADATA of "100 bytes" that stands for 100 MB is not inflated to its end."""

    def change(info: zipfile.ZipInfo) -> None:
        if info.filename == f"{INFO}/METADATA":
            info.file_size = 100

    evil = forged(tmp_path / WHEEL, {f"{INFO}/METADATA": bytes(100_000_000)}, change=change, record=f"{INFO}/METADATA,sha256=A,100\n")
    with less_than(20_000_000):
        refuse(store, tmp_path, evil, "checksum")


@pytest.mark.parametrize("size", [17 << 20, 64 << 20])
def test_a_directory_that_fills_the_memory_is_not_read(store: Store, tmp_path: Path, size: int) -> None:
    """A zip archive may consist of its directory alone, which readers take into memory as a whole."""
    with (tmp_path / WHEEL).open("wb") as file:
        file.truncate(size)  # takes no room: nothing is written there
        file.seek(0, 2)
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, size, 0, 0))
    evil = Pin(name="evil", version="1.0", filename=WHEEL, sha256="0" * 64, size=size + 22)
    refused = pytest.raises(IntegrityError, match="its directory has more than")
    with less_than(60_000_000), refused, wheel_file.pinned(evil, tmp_path / WHEEL):
        pass


def test_more_entries_than_any_wheel_has_are_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry takes time and memory, however small it is."""
    monkeypatch.setattr(wheel_archive, "ENTRIES", 10)
    refuse(store, tmp_path, forged(tmp_path / WHEEL, {f"evil/{number}": b"" for number in range(10)}), "more than 10 entries")


def test_a_large_program_among_the_scripts_is_streamed(store: Store, tmp_path: Path) -> None:
    """Uv's wheel has a program of 38 MB; one that is not for Python goes through as it is, in pieces."""
    tool = forged(tmp_path / WHEEL, {f"{DATA}/scripts/tool": b"\x7fELF" + bytes(40_000_000)})
    with less_than(20_000_000):
        make(store, tmp_path, tool)


def test_cuda_wheels_set_little_aside(store: Store, tmp_path: Path) -> None:
    """What lies beside CUDA in a wheel is kept in memory until each Python's layer is made, so there is a limit."""
    name = "nvidia_evil-1.0-py3-none-any.whl"
    evil = forged(tmp_path / name, {"nvidia_evil-1.0.data/data/big": bytes(40_000_000), "nvidia/x.h": b""})
    evil = Pin(name="nvidia-evil", version="1.0", filename=name, sha256=evil.sha256, size=evil.size)
    with pytest.raises(IntegrityError, match="beside CUDA itself"):
        make(store, tmp_path, evil, groups=(Group(title="CUDA", wheels=("nvidia-*",)),))


@pytest.mark.parametrize(
    "aside",
    [
        Aside(tops=["../../../../../etc/cron.d"]),
        Aside(tops=["a/b"]),
        Aside(tops=["torch-2.8.0.dist-info"]),
        Aside(tops=[".wh.torch"]),
        Aside(files=[Stray(scheme="scripts", path="python", executable=True, content=b"x")]),
        Aside(files=[Stray(scheme="root", path="x", executable=True, content=b"x")]),
        Aside(files=[Stray(scheme="data", path="../../etc/passwd", executable=False, content=b"x")]),
    ],
)
def test_what_was_set_aside_elsewhere_is_checked(store: Store, aside: Aside) -> None:
    """A part from a registry brings what its CUDA wheels set aside: the same rules hold for it."""
    with pytest.raises(IntegrityError), store.layer("group", CODEC) as writer:
        venv.Destination(writer, "3.13").write_aside(aside)


@pytest.mark.parametrize("seed", range(5))
def test_random_flips_end_in_one_line(store: Store, tmp_path: Path, seed: int) -> None:
    """Of a wheel with any one byte changed, either the same layer comes out, or an error of ours."""
    rng = random.Random(seed)
    honest = forged(tmp_path / WHEEL, {"evil/a.py": b"a = 1\n" * 50, f"{DATA}/scripts/run": b"#!python\n", POINTS: b"[console_scripts]\ne = evil:main\n"})
    data = (tmp_path / WHEEL).read_bytes()
    stratum = next(each for each in planned(honest) if honest in each.pins)
    good = strata.make(stratum, {honest.sha256: tmp_path / WHEEL}, store, CODEC, threading.Event()).layers
    for _ in range(40):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / WHEEL).write_bytes(flipped)
        try:
            made = strata.make(stratum, {honest.sha256: tmp_path / WHEEL}, store, CODEC, threading.Event())
            assert {layer.unpacked for layer in made.layers} == {layer.unpacked for layer in good}
        except IntegrityError as error:
            assert "damaged" in error.what  # noqa: PT017  # either outcome is right


def test_a_bad_wheel_that_the_lock_pins_is_not_fetched_again(store: Store, tmp_path: Path) -> None:
    """The advice cures: what has the hash of the lock is not damaged, so another version must be locked."""
    assert "inv lock" in refuse(store, tmp_path, forged(tmp_path / WHEEL, {".": b""}), "cannot be used").fix


# Layers on each other


def layers(*entries: tuple[str, tuple[Entry, ...]]) -> list[tuple[str, object, tuple[Entry, ...]]]:
    """Return layers of one origin each, as they are checked."""
    from tests.unit.image.test_compose import layer  # noqa: PLC0415  # both test the same function

    return [(origin, layer(f"layer {number}"), listed) for number, (origin, listed) in enumerate(entries)]


def entry(path: str, kind: str = "file", content: str = "") -> Entry:
    """Return an entry."""
    return Entry(path=path, kind=kind, content=content)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        entry(f"{SITE}/torch", "whiteout"),
        entry(SITE, "opaque"),
        entry("opt/venv", "whiteout"),
        entry("etc/ld.so.preload"),
        entry("opt", "file"),
        entry("root/.bashrc", "link"),
        entry("usr/bin", "dir"),
        entry(f"{SITE}/.wh.torch", "file"),
    ],
)
def test_a_payload_layer_that_erases_or_leaves_the_payload_is_refused(bad: Entry) -> None:
    """Wherever a payload layer came from, a registry say: it has no whiteout, and nothing outside of /opt/venv and /opt/cuda."""
    with pytest.raises(ComposeError):
        compose.check("image", layers(("payload", (entry("opt/venv/x"),)), ("payload", (bad,))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (entry(f"{SITE}/x.py", content="sha256=A 1"), entry(f"{SITE}/x.py", content="sha256=B 1")),
        (entry(f"{SITE}/x.py", content="sha256=A 1"), entry(f"{SITE}/x.py")),
        (entry("opt/venv/bin/python", "link", "-> /usr/bin/python3.13"), entry("opt/venv/bin/python", content="sha256=A 1")),
        (entry("opt/cuda/lib/l.so", "link", "-> ../a"), entry("opt/cuda/lib/l.so", "link", "-> ../b")),
        (entry("opt/cuda/nvidia/__init__.py", content="sha256=A 1"), entry("opt/cuda/nvidia/__init__.py", content="sha256=B 1")),
    ],
)
def test_one_path_with_two_contents_in_the_payload_is_refused(one: Entry, other: Entry) -> None:
    """The upper of two layers would replace a file of the lower one, unseen; so it is where nothing is known of a content."""
    with pytest.raises(IntegrityError, match="both bring /"):
        compose.check("image", layers(("payload", (one,)), ("payload", (other,))))


@pytest.mark.parametrize(
    "entries",
    [
        (entry(f"{SITE}/x.py", content="sha256=A 1"), entry(f"{SITE}/x.py", content="sha256=A 1")),
        (entry("opt/cuda/lib/l.so", "link", "-> ../a"), entry("opt/cuda/lib/l.so", "link", "-> ../a")),
        (entry("opt/cuda/nvidia/__init__.py"), entry("opt/cuda/nvidia/__init__.py")),
        (entry("opt/cuda/nvidia/__pycache__/__init__.pyc"), entry("opt/cuda/nvidia/__pycache__/__init__.pyc")),
        (entry("opt/venv", "dir"), entry("opt/venv", "dir")),
    ],
)
def test_one_path_with_one_content_in_the_payload_is_no_conflict(entries: tuple[Entry, Entry]) -> None:
    """Equal files and links fit; of layers listed before contents were noted, what happens in real locks does."""
    below, above = (("payload", (each,)) for each in entries)
    compose.check("image", layers(below, above))
    assert entries[0] == entries[1]


def test_two_wheels_in_two_layers_are_compared(store: Store, tmp_path: Path) -> None:
    """What a stratum's layer holds is noted in its listing, so that a file of another stratum's is found by its content."""
    first = forged(tmp_path / "one-1.0-py3-none-any.whl", {"shared.py": b"one"})
    second = forged(tmp_path / "two-1.0-py3-none-any.whl", {"shared.py": b"two"})
    listed = []
    for each in (first, second):
        (layer,) = make(store, tmp_path, each)[-1].layers
        listed.append(("payload", layer, store.listing(layer.diff_id)))
    with pytest.raises(IntegrityError, match=r"shared\.py, with different contents"):
        compose.check("image", listed)
