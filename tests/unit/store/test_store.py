"""The content store: complete or absent, whoever is interrupted, and however many use it."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from tests import tars
from tests.limits import files_of_at_most
from tests.scripts import script
from tests.waiting import PATIENCE, until
from torchstrata import errors, progress
from torchstrata.errors import IntegrityError, StoreError
from torchstrata.host import filesystem
from torchstrata.host.filesystem import disk
from torchstrata.store import store as stores
from torchstrata.store.codec import Codec
from torchstrata.store.layer import EPOCH
from torchstrata.store.part import Part
from torchstrata.store.store import Store

CODEC = Codec()
GZIP = Codec(name="gzip", level=6)

HOLDER = """
import sys, io
from pathlib import Path
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store
with Store(Path(sys.argv[1])).layer("unfinished", Codec()) as writer:
    writer.file("opt/venv/big", 0o664, 8, io.BytesIO(b"unfinish"))
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(store):
    """Start another process that is in the middle of a layer."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


def write(store, content=b"hello", title="one", codec=CODEC):
    """Write a layer with one file."""
    with store.layer(title, codec) as writer:
        writer.file("opt/venv/lib/file", 0o664, len(content), io.BytesIO(content))
    return writer.layer


def keep(store, *contents):
    """Remember a part for each content; return their identities."""
    names = []
    for content in contents:
        names.append(stores.identity(content=content.decode()))
        store.remember(names[-1], Part(layers=(write(store, content),)))
    return names


def members(store, layer):
    """Return the members of a layer's tar by path."""
    with tars.opened(store, layer) as archive:
        return {member.name: member for member in archive}


def files(root):
    """Return all files below a directory that hold something."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)


def test_owners_and_modes_follow_from_the_path(store):
    """The payload is the user's, with equal group rights; what lies above it is root's; all of it has one time."""
    with store.layer("all", CODEC) as writer:
        writer.file("opt/venv/bin/tool", 0o775, 1, io.BytesIO(b"x"))
        writer.link("opt/cuda-12.4/lib64", "lib")
        writer.file("etc/torchstrata/image.json", 0o644, 2, io.BytesIO(b"{}"))
    found = {name: (member.mode, member.uid, member.gid, member.mtime) for name, member in members(store, writer.layer).items()}
    assert found == {
        "opt": (0o755, 0, 0, EPOCH),
        "opt/venv": (0o775, 1000, 0, EPOCH),
        "opt/venv/bin": (0o775, 1000, 0, EPOCH),
        "opt/venv/bin/tool": (0o775, 1000, 0, EPOCH),
        "opt/cuda-12.4": (0o775, 1000, 0, EPOCH),
        "opt/cuda-12.4/lib64": (0o777, 1000, 0, EPOCH),
        "etc": (0o755, 0, 0, EPOCH),
        "etc/torchstrata": (0o755, 0, 0, EPOCH),
        "etc/torchstrata/image.json": (0o644, 0, 0, EPOCH),
    }


def test_a_listing_is_what_the_tar_holds(store):
    """Compose reads listings; they name every member in order, long and non-ASCII names too."""
    with store.layer("names", CODEC) as writer:
        writer.file("opt/venv/" + "long/" * 40 + "ü.py", 0o664, 0, io.BytesIO())
    assert [entry.path for entry in store.listing(writer.layer.diff_id)] == list(members(store, writer.layer))
    assert store.listing(writer.layer.diff_id)[-1].kind == "file"


@pytest.mark.parametrize("codec", [CODEC, GZIP], ids=["zstd", "gzip"])
def test_bytes_depend_on_the_calls_alone(store, tmp_path, monkeypatch, codec):
    """Another umask, directory and time give the same blob."""
    first = write(store, codec=codec)
    monkeypatch.chdir("/")
    before = os.umask(0o077)
    try:
        assert write(Store(tmp_path / "other"), codec=codec) == first
    finally:
        os.umask(before)


@pytest.mark.parametrize("again", ["file", "directory", "link"])
def test_a_path_is_written_once(store, again):
    """A second entry of a path, of whatever kind, is refused and names the path."""
    with store.layer("twice", CODEC) as writer:
        writer.file("opt/venv/x", 0o664, 0, io.BytesIO())
        write = {
            "file": lambda: writer.file("opt/venv/x", 0o664, 0, io.BytesIO()),
            "directory": lambda: writer.file("opt/venv/x/y", 0o664, 0, io.BytesIO()),
            "link": lambda: writer.link("opt/venv/x", "y"),
        }[again]
        with pytest.raises(IntegrityError, match="/opt/venv/x twice"):
            write()


def test_a_short_source_is_an_error(store):
    """A file that ends before its announced size spoils no layer silently."""
    with pytest.raises(IntegrityError, match="ends 3 bytes early"), store.layer("short", CODEC) as writer:
        writer.file("opt/venv/x", 0o664, 5, io.BytesIO(b"ab"))


def test_an_exception_leaves_nothing(store):
    """A layer that was not finished is in no directory of the store."""
    with pytest.raises(IntegrityError), store.layer("broken", CODEC) as writer:
        writer.file("opt/venv/x", 0o664, 9_000_000, io.BytesIO(bytes(3_000_000)))
    assert files(store.root) == []
    assert all(thread.name != "layer" for thread in threading.enumerate())


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.note("a" * 64, Part(layers=(), notes={"title": "x" * 1000})),
        lambda store: store.add_blob(bytes(1000)),
        lambda store: write(store, os.urandom(1000)),
    ],
    ids=["note", "blob", "layer"],
)
def test_what_a_full_disk_does_not_take_leaves_nothing(store, write):
    """Its bytes are wanted elsewhere, the more so now."""
    store.scratch()
    with files_of_at_most(100), pytest.raises(StoreError, match="File too large"):
        write(store)
    assert files(store.root) == []


def test_setting_the_event_ends_a_layer(store):
    """Whoever cancels does not wait for the rest of a large file."""
    with store.layer("cancelled", CODEC) as writer:
        writer.cancelled = threading.Event()
        writer.cancelled.set()
        with pytest.raises(CancelledError):
            writer.file("opt/venv/x", 0o664, 1, io.BytesIO(b"x"))


def test_a_part_is_found_again(store):
    """What was remembered is found, also by another process's store."""
    part = Part(layers=(write(store),), extras={"more": store.add_blob(b"more")}, notes={"torch": "2.8.0"})
    store.remember("a" * 64, part)
    assert Store(store.root).find("a" * 64) == part
    assert store.find("b" * 64) is None


@pytest.mark.parametrize("damage", ["remove", "truncate", "listing", "part"])
def test_what_is_damaged_counts_as_missing(store, damage):
    """A blob that is gone or shorter, or a lost listing, means: make the part again, and then it is whole."""
    (name,) = keep(store, b"content")
    layer = store.find(name).layers[0]
    blob, listing = store.open_blob(layer.digest), store.root / "listings" / layer.diff_id.removeprefix("sha256:")
    {
        "remove": blob.unlink,
        "truncate": lambda: os.truncate(blob, layer.size - 1),
        "listing": listing.unlink,
        "part": lambda: (store.root / "parts" / f"{name}.json").write_text("{"),
    }[damage]()
    assert store.find(name) is None
    assert keep(store, b"content") == [name]
    assert store.find(name).layers == (layer,)


def test_a_part_without_its_blobs_is_not_remembered(store):
    """A record never promises what is not there."""
    layer = write(store)
    store.open_blob(layer.digest).unlink()
    with pytest.raises(StoreError, match="lacks blobs"):
        store.remember("a" * 64, Part(layers=(layer,)))


def test_content_must_have_its_digest(store):
    """Content with another digest than promised stays out."""
    with pytest.raises(IntegrityError, match="instead of"):
        store.add_blob(b"tampered", "sha256:" + "0" * 64)
    assert files(store.root) == []


def test_one_maker_works_and_the_others_find_it(store):
    """Of many who want the same part at the same time, one makes it."""
    made = []

    def maker(_):
        own = Store(store.root)
        with own.lock("a" * 64):
            if own.find("a" * 64) is None:
                made.append(1)
                own.remember("a" * 64, Part(layers=(write(own),)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(maker, range(8)))
    assert made == [1]


def test_somebody_who_waits_for_another_maker_is_told_once(store, monkeypatch, said):
    """Of several threads that wait, too; who need not wait reads nothing."""
    monkeypatch.setattr(progress, "QUIET", 0.0)
    other = Store(store.root)

    def make(identity):
        with other.lock(identity):
            return identity

    with ThreadPoolExecutor(2) as pool, store.lock("a" * 64), store.lock("b" * 64):
        assert make("c" * 64)
        assert said() == ""
        waiting = [pool.submit(make, identity) for identity in ("a" * 64, "b" * 64)]
        until(lambda: "waiting for it" in said(), "the line")
    assert [each.result() for each in waiting] == ["a" * 64, "b" * 64]
    assert said().count("\n") == 1


def test_waiting_for_another_maker_can_be_cancelled(store, monkeypatch):
    """Ctrl-C does not wait for the other build."""
    cancelled, asked = threading.Event(), threading.Event()
    monkeypatch.setattr(cancelled, "is_set", lambda: asked.set() or threading.Event.is_set(cancelled))
    with store.lock("a" * 64), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: Store(store.root).lock("a" * 64, cancelled).__enter__())
        assert asked.wait(PATIENCE), "it does not wait"
        cancelled.set()
        with pytest.raises(CancelledError):
            waiting.result(PATIENCE)


def test_only_dead_processes_lose_their_unfinished_files(store, holder):
    """The files of a living process stay; those of a killed one go when the next process writes."""
    write(store)
    assert len(list(store.root.glob("tmp/*/*"))) == 1
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    write(Store(store.root))
    assert list(store.root.glob("tmp/*/*")) == []


def test_what_a_killed_process_has_in_an_engine_goes_with_its_files(store, tmp_path, monkeypatch):
    """The next process removes containers and images that are on the list, once the engine answers; until then the list stays."""
    answers = f'[ -e "{tmp_path}/answers" ] || {{ echo cannot connect >&2; exit 1; }}'
    script(tmp_path / "docker", f'{answers}\necho "$@" >> "{tmp_path}/asked"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    code = "import os, sys; from pathlib import Path; from torchstrata.store.store import Store; store = Store(Path(sys.argv[1])); "
    code += "store.leave('container', 'one'); store.leave('image', 'two:2'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, store.root], check=False).returncode == -signal.SIGKILL
    write(Store(store.root))
    assert len(list(store.root.glob("tmp/*/leavings.jsonl"))) == 1
    (tmp_path / "answers").touch()
    write(Store(store.root))
    assert (tmp_path / "asked").read_text().splitlines() == ["rm --force --volumes -- one", "image rm --force -- two:2"]
    assert list(store.root.glob("tmp/*/leavings.jsonl")) == []


def link_to(target):
    """Return what makes a symbolic link."""
    return lambda path: path.symlink_to(target)


WRONG = {"file": Path.touch, "FIFO": os.mkfifo, "dangling link": link_to("/nowhere/at/all"), "link to itself": link_to("store")}
PLACES = ("", *stores.DIRECTORIES)


@pytest.mark.parametrize("place", ["wheels", "blobs", "blobs/sha256", "listings", "parts"])
def test_pruning_does_not_empty_what_a_link_leads_to(tmp_path, place):
    """A directory of the store that is a link to somebody's own files is refused; the root itself may lead elsewhere."""
    kept = tmp_path / "collection" / "kept.whl"
    kept.parent.mkdir()
    kept.touch()
    link = tmp_path / "store" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(kept.parent)
    with pytest.raises(StoreError, match="is a link"):
        Store.open(tmp_path / "store").prune()
    assert kept.exists()
    link.unlink()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "store")
    Store.open(tmp_path / "elsewhere").prune()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_directory_is_refused(tmp_path, wrong, place):
    """A file, a FIFO or a dangling link where the store or a directory of it must be ends with one line and a cure, before anything waits for it."""
    path = tmp_path / "store" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    WRONG[wrong](path)
    if wrong == "link to itself":
        path.unlink()
        path.symlink_to(path)
    with pytest.raises(StoreError, match="is no directory") as told:
        Store.open(tmp_path / "store")
    assert "remove it, or set TORCHSTRATA_CACHE" in told.value.fix


@pytest.mark.parametrize("wrong", [*WRONG, "directory"])
def test_a_part_that_is_no_file_counts_as_damaged(store, wrong):
    """Nobody waits for a FIFO; such a part is not found, its usage is shown, and pruning removes it."""
    keep(store, b"one")
    (path,) = (store.root / "parts").iterdir()
    path.unlink()
    WRONG.get(wrong, Path.mkdir)(path)
    assert Store.open(store.root).find(path.stem) is None
    assert [kept.identity for kept in store.usage().parts] == [path.stem]
    store.prune()
    assert not os.path.lexists(path)


@pytest.mark.parametrize("wrong", [*WRONG, "directory"])
def test_a_blob_that_is_no_file_counts_as_missing(store, wrong):
    """And pruning removes it, whatever it is."""
    layer = write(store)
    path = store.open_blob(layer.digest)
    path.unlink()
    WRONG.get(wrong, Path.mkdir)(path)
    with pytest.raises(StoreError, match=r"missing or damaged|symbolic links"):
        store.open_blob(layer.digest, layer.size)
    store.prune()
    assert not os.path.lexists(path)


@pytest.mark.parametrize(
    ("number", "code", "cure"),
    [
        (errno.ENOSPC, errors.DiskFullError, "inv cache --prune"),
        (errno.EDQUOT, errors.DiskFullError, "inv cache --prune"),
        (errno.EROFS, StoreError, "mounted for writing"),
        (errno.EACCES, StoreError, "its owner"),
        (errno.ENAMETOOLONG, StoreError, "shorter"),
        (errno.EIO, StoreError, "log of the system"),
    ],
)
def test_what_the_system_refuses_has_a_cure(tmp_path, number, code, cure):
    """Each kind of refusal is one line with the path, and one that says what to do about that kind."""
    with pytest.raises(code) as told, disk(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in told.value.what
    assert cure in told.value.fix
    assert "TORCHSTRATA_CACHE" in told.value.fix


def test_a_lock_that_cannot_be_had_is_told(store):
    """A directory where a lock must be, as somebody has made it, is no traceback."""
    (store.root / "locks" / "tmp.lock").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"tmp\.lock"):
        write(store)


def test_nobody_else_can_hold_a_lock(store):
    """The store that is made here and all its locks are their owner's alone, whatever the umask is; locks of older versions become so."""
    old = os.umask(0)
    try:
        with store.lock("one"):
            store.scratch()
    finally:
        os.umask(old)
    assert store.root.stat().st_mode & 0o777 == 0o700
    locks = [store.root / "locks" / "one.lock", store.root / "locks" / "tmp.lock", *(store.root / "tmp").glob("*.lock")]
    assert {path.stat().st_mode & 0o777 for path in locks} == {0o600}
    locks[0].chmod(0o666)
    with store.lock("one"):
        assert locks[0].stat().st_mode & 0o777 == 0o600


def test_a_store_that_is_there_keeps_its_mode(store):
    """Whoever has made it may have had reasons."""
    store.root.mkdir()
    store.root.chmod(0o755)
    store.scratch()
    assert store.root.stat().st_mode & 0o777 == 0o755


def test_a_name_that_is_too_long_is_told(tmp_path):
    """As a variable that was expanded twice may give it."""
    with pytest.raises(StoreError, match="too long"):
        Store.open(tmp_path / ("x" * 300)).scratch()


def test_pruning_everything_leaves_nothing(store):
    """Without a limit all parts, blobs, listings and downloads go, and the bytes are counted."""
    keep(store, b"one", b"two")
    store.downloads.mkdir()
    (store.downloads / "wheel").write_bytes(b"12345")
    size = store.usage().size
    assert store.usage().downloads == 5
    assert store.prune() == size
    assert files(store.root) == []


@pytest.fixture
def file_clock(tmp_path, monkeypatch):
    """Let the time be that of the file system, whose clock may be another than that of programs."""
    (tmp_path / "now").touch()
    monkeypatch.setattr(stores.time, "time", lambda: (tmp_path / "now").stat().st_mtime)


@pytest.mark.usefixtures("file_clock")
def test_a_shared_blob_stays_while_a_part_needs_it(store):
    """Two parts of the same layer: one goes, the blob stays for the other."""
    layer = write(store)
    for name in ("a" * 64, "b" * 64):
        store.remember(name, Part(layers=(layer,)))
    os.utime(store.root / "parts" / f"{'a' * 64}.json", (1, 1))
    store.prune(older_than=timedelta(days=1))
    assert store.find("a" * 64) is None
    assert store.find("b" * 64) is not None


@pytest.mark.usefixtures("file_clock")
def test_pruning_by_age_goes_by_last_use(store):
    """A part that was used is young, whenever it was made."""
    old, used = keep(store, b"old", b"used")
    for name in (old, used):
        os.utime(store.root / "parts" / f"{name}.json", (1, 1))
    store.touch(used)
    store.prune(older_than=timedelta(days=1))
    assert (store.find(old), store.find(used) is None) == (None, False)


def test_pruning_to_a_size_keeps_what_was_used_last(store):
    """The parts used longest ago go first."""
    names = keep(store, *(os.urandom(10_000).hex().encode() for _ in range(3)))
    for age, name in enumerate(names):
        os.utime(store.root / "parts" / f"{name}.json", (1000 - age, 1000 - age))
    store.prune(max_bytes=25_000)
    assert [store.find(name) is not None for name in names] == [True, True, False]


def test_pruning_waits_for_no_one(store, holder):
    """While another build is at work, pruning is refused: it may be about to use what looks unneeded."""
    with pytest.raises(StoreError, match="another build is using"):
        store.prune()


def test_what_goes_while_somebody_looks_does_not_count(store):
    """Another process prunes: a part is gone after it was read, and a directory after it was listed."""
    keep(store, b"one")

    class Pruned(Store):
        def _read(self, path):
            part = super()._read(path)
            shutil.rmtree(self.root)
            return part

    assert Pruned(store.root).usage().parts == ()
    (store.root / "wheels" / "one").mkdir(parents=True)
    (store.root / "file").touch()
    walk = filesystem._files(store.root)
    next(walk)
    shutil.rmtree(store.root / "wheels")
    assert list(walk) == []


def test_looking_writes_nothing(tmp_path):
    """A plan looks into a store that need not exist, and leaves no trace."""
    store = Store.open(tmp_path / "none")
    assert store.find("a" * 64) is None
    assert store.usage().parts == ()
    assert not store.root.exists()


def test_the_root_is_where_the_variable_says(monkeypatch, tmp_path):
    """TORCHSTRATA_CACHE moves the store."""
    monkeypatch.setenv(stores.CACHE_VARIABLE, str(tmp_path / "elsewhere"))
    assert Store.open().root == tmp_path / "elsewhere"


def test_a_home_of_nobody_is_no_place(monkeypatch):
    """``~user`` where there is no such user is an error, not a traceback."""
    monkeypatch.setenv("TORCHSTRATA_CACHE", "~nobody-has-this-name/x")
    with pytest.raises(StoreError, match="begins with the home of nobody here"):
        Store.open()


def test_identities_differ_by_every_input():
    """No input can change without changing the identity, and their order does not matter."""
    one = stores.identity(kind="x", pins=[1, 2])
    assert one == stores.identity(pins=[1, 2], kind="x")
    assert len({one, stores.identity(kind="x", pins=[2, 1]), stores.identity(kind="y", pins=[1, 2])}) == 3
