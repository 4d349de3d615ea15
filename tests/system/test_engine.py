"""Loading images into real daemons, one with each image store, in network namespaces of their own: run as root, with dockerd."""

from __future__ import annotations

import io
import random
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tests.daemons import Daemon, own_daemon
from tests.tars import packed
from torchstrata.building import engine, loading
from torchstrata.building.engine import OnBytes
from torchstrata.errors import DiskFullError, EngineError
from torchstrata.image import compose
from torchstrata.image.loadable import Loadable
from torchstrata.store.layer import Layer

MB = 1_000_000


@pytest.fixture(scope="module", params=["containerd", "classic"])
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run a daemon with each image store."""
    made = Daemon(tmp_path_factory.mktemp("d"), request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", made.host)
        made.start()
        yield made
        made.stop()
    shutil.rmtree(made.root)


@pytest.fixture
def target(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[engine.Engine]:
    """Connect to the daemon, and leave it without images."""
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    found = engine.connect()
    yield found
    _remove_all(found)


def _remove_all(target: engine.Engine) -> None:
    for image in target.client.api.images():
        for name in image["RepoTags"] or [image["Id"]]:
            target.client.api.remove_image(name, force=True)


class Blobs:
    """Layers made for a test, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return the file of a blob."""
        return self.root / digest.removeprefix("sha256:")

    def layer(self, name: str, size: int = MB, level: int = 3) -> Layer:
        """Return a layer with one file of ``size`` bytes that do not compress well and depend on ``name`` alone."""
        return self.pack(name, {f"data/{name}": random.Random(name).randbytes(size // 2) * 2}, level)

    def program(self) -> Layer:
        """Return a layer with a program that needs no library: the system's own ldconfig."""
        found = next(path for path in (Path("/sbin/ldconfig.real"), Path("/sbin/ldconfig")) if path.exists())
        return self.pack("program", {"bin/ldconfig": found.read_bytes()}, 3)

    def pack(self, title: str, files: dict[str, bytes], level: int) -> Layer:
        """Return a layer with ``files``."""
        raw = packed(files, rights=0o755)
        blob = zstandard.ZstdCompressor(level=level).compress(raw)
        digest = compose.sha256(blob)
        self.path(digest).write_bytes(blob)
        media_type = "application/vnd.oci.image.layer.v1.tar+zstd"
        return Layer(digest=digest, diff_id=compose.sha256(raw), size=len(blob), unpacked=len(raw), media_type=media_type, title=title)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """Give a folder for blobs."""
    return Blobs(tmp_path)


def image(tag: str, *layers: Layer) -> Loadable:
    """Compose an image of ``layers``."""
    runtime = compose.Runtime(
        env={}, labels={"tag": tag}, user="0:0", entrypoint=(), command=("/bin/ldconfig", "--version"), workdir="/", ports=(), created="2026-01-01T00:00:00Z"
    )
    made = compose.compose(tag, [compose.Section(origin="payload", label="test", layers=layers)], runtime)
    return Loadable(config=made.config, manifest=made.manifest, tags=(f"ts-test:{tag}",), layers=layers)


def run(target: engine.Engine, tag: str) -> str:
    """Run the command of an image and return its output."""
    return target.client.containers.run(f"ts-test:{tag}", remove=True, network_mode="none").decode()


def is_current(target: engine.Engine, images: list[Loadable]) -> bool:
    """Tell whether every image is there, whole, and under all its names."""
    here = target.whole()
    return all(target.id_of(each) in here and all(target.image_id(tag) == target.id_of(each) for tag in each.tags) for each in images)


def saved(target: engine.Engine, tag: str) -> set[str]:
    """Return the names of everything that the engine can give back of an image: it fails on one that lacks blobs."""
    data = b"".join(target.client.images.get(f"ts-test:{tag}").save())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return set(tar.getnames())


@pytest.mark.quick
def test_images_are_loaded_in_one_go_and_run(target: engine.Engine, blobs: Blobs) -> None:
    """All flavours go up in one archive, get their names and IDs, and run; what several share is sent once."""
    shared, upper = blobs.program(), blobs.layer("upper")
    images = [image("base", shared), image("devel", shared, upper)]
    report = loading.load(target, images, blobs.path)
    assert report.way == "lean"
    assert shared.size + upper.size < report.sent < shared.size + upper.size + 20_000
    assert [target.image_id(f"ts-test:{tag}") for tag in ("base", "devel")] == [target.id_of(each) for each in images]
    assert run(target, "devel").startswith("ldconfig")


@pytest.mark.quick
def test_second_load_sends_nothing(target: engine.Engine, blobs: Blobs) -> None:
    """What is there is neither sent nor named again."""
    images = [image("again", blobs.layer("a"))]
    assert not is_current(target, images)
    loading.load(target, images, blobs.path)
    assert is_current(target, images)
    assert loading.load(target, images, blobs.path) == loading.LoadReport(way="nothing", sent=0)


def test_lost_name_is_given_again_without_sending(target: engine.Engine, blobs: Blobs) -> None:
    """A name that was removed, or points to another image, comes back by naming alone."""
    one, two = image("one", blobs.layer("a")), image("two", blobs.layer("a"))
    loading.load(target, [one, two], blobs.path)
    target.client.api.tag(target.id_of(two), "ts-test", "one")
    target.client.api.tag(target.id_of(one), "ts-test", "spare")
    assert loading.load(target, [one], blobs.path) == loading.LoadReport(way="nothing", sent=0)
    assert is_current(target, [one, two])


@pytest.mark.quick
def test_only_layers_above_a_known_chain_are_sent(target: engine.Engine, blobs: Blobs) -> None:
    """A new upper layer costs its own size, whatever lies below it."""
    below, old, new = blobs.layer("below", 5 * MB), blobs.layer("old"), blobs.layer("new")
    loading.load(target, [image("old", below, old)], blobs.path)
    report = loading.load(target, [image("new", below, new)], blobs.path)
    assert report.way == "lean"
    assert new.size < report.sent < new.size + 20_000
    assert target.lacks([(below, old)]) == ()
    assert target.lacks([(old, below)]) == (old, below), "the same layers in another order are another chain"
    assert target.lacks([(below, old), (old,), (old, below)]) == (old, below), "what two stacks share is unpacked once"


def test_nothing_is_assumed_after_images_were_removed(target: engine.Engine, blobs: Blobs) -> None:
    """After ``docker rmi`` the next load is complete again."""
    layers = (blobs.layer("a"), blobs.program())
    loading.load(target, [image("gone", *layers)], blobs.path)
    target.client.api.remove_image("ts-test:gone")
    report = loading.load(target, [image("gone", *layers)], blobs.path)
    assert report.sent > sum(layer.size for layer in layers)
    assert run(target, "gone").startswith("ldconfig")


def test_layers_that_went_with_another_image_come_back(target: engine.Engine, blobs: Blobs) -> None:
    """Of two images of the same layers the one that stays is whole after the next load, though the engine dropped what they shared."""
    layers = blobs.layer("below"), blobs.layer("above")
    first, second = image("first", *layers), image("second", *layers)
    loading.load(target, [first, second], blobs.path)
    for gone, kept in ((first, second), (second, first)):
        loading.load(target, [first, second], blobs.path)
        target.client.api.remove_image(target.id_of(gone), force=True)
        assert loading.load(target, [kept], blobs.path).sent == 0
        assert len(target.client.api.history(target.id_of(kept))) == len(layers)


def test_same_layers_compressed_otherwise_give_a_whole_image(target: engine.Engine, blobs: Blobs) -> None:
    """The engine has the layers unpacked but not these blobs (it pulled them compressed otherwise): the image is whole all the same."""
    slow, fast = blobs.layer("a", level=9), blobs.layer("a", level=1)
    assert (slow.diff_id, slow.digest != fast.digest) == (fast.diff_id, True)
    top = blobs.program()
    loading.load(target, [image("slow", slow, top)], blobs.path)
    report = loading.load(target, [image("fast", fast, top)], blobs.path)
    assert report.way == ("full" if target.store == "containerd" else "lean")
    names = saved(target, "fast")
    assert target.store == "classic" or f"blobs/sha256/{fast.digest.removeprefix('sha256:')}" in names
    assert run(target, "fast").startswith("ldconfig")


def test_large_images_go_up_in_steps_that_leave_nothing(target: engine.Engine, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps overlap sending and unpacking; each blob is sent once, and no nameless image stays."""
    monkeypatch.setattr(loading, "STEP", MB)
    layers = (*(blobs.layer(f"s{number}", 3 * MB) for number in range(6)), blobs.program())
    report = loading.load(target, [image("steps", *layers)], blobs.path)
    size = sum(layer.size for layer in layers)
    assert (report.way, size < report.sent < size + 100_000) == ("lean", True)
    assert [found["RepoTags"] for found in target.client.api.images()] == [["ts-test:steps"]]
    assert run(target, "steps").startswith("ldconfig")


def test_load_can_begin_before_the_upper_layers_exist(target: engine.Engine, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are fed as they become ready; the images come last."""
    monkeypatch.setattr(loading, "STEP", MB)
    low = blobs.layer("low", 3 * MB)
    with loading.Loading(target, blobs.path) as feed:
        feed.add(low)
        high, top = blobs.layer("high", 3 * MB), blobs.program()
        feed.add(high, top)
        feed.finish([image("fed", low, high, top), image("part", low, top)])
    assert run(target, "fed").startswith("ldconfig")
    assert run(target, "part").startswith("ldconfig")


def test_load_given_up_names_nothing_and_the_next_one_goes_on(target: engine.Engine, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was unpacked before an interruption is not sent again."""
    monkeypatch.setattr(loading, "STEP", MB)
    low, high = blobs.layer("low", 3 * MB), blobs.program()
    with loading.Loading(target, blobs.path) as feed:
        feed.add(low)
        feed._steps[0].result()
    assert [found["RepoTags"] or [] for found in target.client.api.images()] == [[]]
    report = loading.load(target, [image("on", low, high)], blobs.path)
    assert report.sent < high.size + 20_000
    assert run(target, "on").startswith("ldconfig")
    assert [found["RepoTags"] for found in target.client.api.images()] == [["ts-test:on"]]


@pytest.mark.quick
def test_spoilt_blob_never_gets_a_name(target: engine.Engine, blobs: Blobs) -> None:
    """A blob with wrong bytes is refused, and the name keeps pointing to the good image."""
    good = image("kept", blobs.layer("good"))
    loading.load(target, [good], blobs.path)
    bad = blobs.layer("bad")
    spoilt = bytearray(blobs.path(bad.digest).read_bytes())
    spoilt[len(spoilt) // 2] ^= 255
    blobs.path(bad.digest).write_bytes(spoilt)
    with pytest.raises(EngineError):
        loading.load(target, [image("kept", bad)], blobs.path)
    assert target.image_id("ts-test:kept") == target.id_of(good)


def test_callback_can_end_a_load(target: engine.Engine, blobs: Blobs) -> None:
    """What the progress callback raises ends the load and comes out as it is; the engine stays usable."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _load_counted(target, image("stopped", blobs.layer("a", 9 * MB)), blobs, interrupt)
    assert loading.load(target, [image("stopped", blobs.layer("a", 9 * MB))], blobs.path).way == "lean"


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a directory with a short name: a socket's path has at most 104 bytes."""
    with tempfile.TemporaryDirectory(prefix="ts-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.mark.parametrize("store", ["containerd", "classic"])
def test_full_disk_of_the_engine_is_told(root: Path, blobs: Blobs, store: str) -> None:
    """An engine without space is an error of its own, with the cure, and the engine can be used afterwards."""
    (root / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "none", root / "data"], check=True)
    try:
        with own_daemon(root, store):
            target = engine.connect()
            layers = tuple(blobs.layer(f"f{number}", 30 * MB) for number in range(4))
            free = target.free_space()
            assert free is not None
            assert target.space_for(layers) > free
            with pytest.raises(DiskFullError, match="full"):
                loading.load(target, [image("big", *layers)], blobs.path)
            assert target.image_id("ts-test:big") is None
            small = image("small", blobs.layer("small", MB // 10))
            _remove_all(target)
            loading.load(target, [small], blobs.path)
            assert is_current(target, [small])
    finally:
        subprocess.run(["umount", "--lazy", root / "data"], stderr=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("store", ["containerd", "classic"])
def test_engine_that_dies_during_a_load_is_told(root: Path, blobs: Blobs, store: str) -> None:
    """A daemon killed mid-load is an error that says so; started again, it takes the same images."""
    with own_daemon(root, store) as made:
        wanted = image("whole", *(blobs.layer(f"k{number}", 20 * MB) for number in range(3)))
        with pytest.raises(EngineError, match="died"):
            _load_counted(engine.connect(), wanted, blobs, _after(30 * MB, lambda: made.stop(signal.SIGKILL)))
        made.start()
        target = engine.connect()
        loading.load(target, [wanted], blobs.path)
        assert is_current(target, [wanted])


def _load_counted(target: engine.Engine, one: Loadable, blobs: Blobs, on_bytes: OnBytes) -> None:
    """Load an image as a build does, which is told of the bytes that have gone."""
    with loading.Loading(target, blobs.path, on_bytes) as started:
        started.add(*one.layers)
        started.finish([one])


def _after(count: int, action: Callable[[], None]) -> Callable[[int], None]:
    """Return a byte counter that acts once when ``count`` bytes have passed."""
    seen = 0

    def on_bytes(size: int) -> None:
        nonlocal seen
        before, seen = seen, seen + size
        if before < count <= seen:
            action()

    return on_bytes
