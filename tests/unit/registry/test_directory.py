"""Directories that somebody else has made: whatever lies there, one line and a code, and nothing is written elsewhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from itertools import product

import msgspec
import pytest

from tests import hostile, records
from tests.hostile import IMAGE, INDEX, MANIFEST, TEN, described
from tests.unit.registry.test_hostile import SHAPES, is_one_line
from torchstrata.attestations import handover, record
from torchstrata.attestations.offline import verify
from torchstrata.commands import mirror
from torchstrata.errors import IntegrityError, MirrorError, RegistryError, StoreError, UntrustedError
from torchstrata.image.compose import canonical, sha256
from torchstrata.registry import replica
from torchstrata.registry.directory import Directory
from torchstrata.registry.registry import TITLE

VERIFY = verify.__file__


def layout(root, *blobs, index=None):
    """Write a layout; return it."""
    (root / "blobs/sha256").mkdir(parents=True)
    for blob in blobs:
        (root / "blobs/sha256" / sha256(blob)[7:]).write_bytes(blob)
    (root / "index.json").write_bytes(canonical({"manifests": [described(blob) for blob in blobs if blob.startswith(b'{"')]}) if index is None else index)
    return Directory(root=root)


def tagged(blob, tag="v1", media_type=MANIFEST):
    """Return an index that gives something a tag."""
    return canonical({"manifests": [described(blob, media_type, annotations={"org.opencontainers.image.ref.name": tag})]})


def use(directory):
    """Read all that a copy would read; return what is wrong, nothing if it was read."""
    try:
        for digest in list(directory.tags.values()):
            replica.copy(directory, Directory(root=directory.root.with_name("copy")), replica.gather(directory, [digest], {}), lambda _: None)
            mirror._cell_of(directory, digest)
    except (IntegrityError, RegistryError, MirrorError) as error:
        return error.what
    return ""


@pytest.mark.parametrize("place", ["index", "manifest", "config"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[:40].decode("latin-1").encode("unicode_escape").decode())
def test_documents_of_any_shape_are_a_value_or_a_line(tmp_path, shape, place):
    """No shape of JSON is a traceback, wherever it lies."""
    image = canonical({"mediaType": MANIFEST, "config": described(shape, "x"), "layers": []})
    blobs = {"index": [], "manifest": [shape], "config": [shape, image]}[place]
    index = shape if place == "index" else tagged(shape if place == "manifest" else image)
    assert is_one_line(use(layout(tmp_path / "layout", *blobs, index=index)))


ENDLESS = "/proc/self/pagemap"
"""A regular file of no bytes, from which terabytes can be read."""
LINKS = {
    "device": "/dev/zero",
    "endless": ENDLESS,
    "waiting": "/proc/kmsg",  # one that keeps its reader waiting
    "file": "/etc/passwd",
    "loop": "",  # to itself
}


def _large(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


PLANTS = {
    "fifo": os.mkfifo,
    "directory": os.mkdir,
    "large": _large,
    **{name: lambda path, to=to: path.symlink_to(to or path) for name, to in LINKS.items()},
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
@pytest.mark.parametrize("what", ["index", "manifest", "layer"])
def test_only_files_are_read_and_no_more_than_they_may_have(tmp_path, plant, what, capsys):
    """A pipe, a device, a directory, a terabyte, and whatever a link leads to: refused before the first byte, by both programs."""
    image = canonical({"mediaType": MANIFEST, "config": described(b"{}", "x"), "layers": [described(TEN, "x.tar")]})
    directory = layout(tmp_path / "layout", b"{}", TEN, image, index=tagged(image))
    path = {"index": directory.root / "index.json", "manifest": directory.path(sha256(image)), "layer": directory.path(sha256(TEN))}[what]
    path.unlink()
    plant(path)
    message = use(directory)
    assert message
    assert is_one_line(message)
    assert not (tmp_path / "copy/index.json").exists()
    assert verify.main([str(directory.root)]) == 1
    assert is_one_line(capsys.readouterr().err.rstrip("\n"))


@pytest.mark.parametrize("size", [0, 1 << 40])
def test_a_blob_ends_where_its_descriptor_says(tmp_path, size):
    """A link to an endless file that says no bytes, and a terabyte where nothing says so: refused at once."""
    directory = layout(tmp_path / "layout", index=canonical({"manifests": []}))
    path = directory.path(sha256(TEN))
    path.symlink_to(ENDLESS) if not size else _large(path)
    with pytest.raises(IntegrityError), directory.source(sha256(TEN), 0):
        pass


@pytest.mark.parametrize("link", ["blobs", "blobs/sha256"])
def test_a_layout_is_read_through_no_link(tmp_path, link, capsys):
    """Whatever its directories lead to is not part of it."""
    directory = layout(tmp_path / "layout", b"{}", TEN, index=canonical({"manifests": []}))
    (directory.root / link).rename(tmp_path / "elsewhere")
    (directory.root / link).symlink_to(tmp_path / "elsewhere")
    for read in (directory.content, lambda digest: directory.source(digest, len(TEN)).__enter__(), lambda digest: directory.has(digest, len(TEN))):
        with pytest.raises(StoreError, match=f"{link} is a link"):
            read(sha256(TEN))
    assert verify.main([str(directory.root)]) == 1
    assert capsys.readouterr().err == f"WRONG: {link} is no file\n"


def test_a_manifest_that_is_listed_as_something_else(tmp_path):
    """Readers would see different images in it."""
    directory = layout(tmp_path / "layout", IMAGE, index=tagged(IMAGE, media_type=INDEX))
    with pytest.raises(IntegrityError, match="calls itself"):
        directory.manifest(sha256(IMAGE))


@pytest.mark.parametrize("tag", ["../x", "a/b", "v1\n", "\x1b[2J", "", ".x", "x" * 129])
def test_a_tag_that_is_none_names_nothing(tmp_path, tag):
    """Tags become names of files beside images."""
    assert layout(tmp_path / "layout", IMAGE, index=tagged(IMAGE, tag)).tags == {}


def test_towers_of_indexes_are_climbed_so_far(tmp_path):
    """200 indexes that each list the next."""
    tower = hostile.towers(200)
    directory = layout(tmp_path / "layout", *tower.values(), index=tagged(tower["top"], media_type=INDEX))
    with pytest.raises(MirrorError, match="too deeply"):
        replica.gather(directory, [sha256(tower["top"])], {})


TITLES = ["../../escaped", "/etc/escaped", "..", ".", "a\0b", "a\nb", "\x1b[2J", "x" * 300, "\udcff".encode("utf-8", "replace").decode(), ".hidden", "a b"]


@pytest.mark.parametrize("title", TITLES)
def test_a_title_that_is_no_name_becomes_no_file(tmp_path, title):
    """What is attached under it is in the layout alone; nothing is written elsewhere."""
    subject = described(IMAGE)
    attached = canonical({"mediaType": MANIFEST, "artifactType": "x/y", "config": described(b"{}", "x"), "subject": subject,
                          "layers": [described(TEN, "x/y", annotations={TITLE: title})]})  # fmt: skip
    index = canonical({"manifests": [described(IMAGE), described(attached)]})
    origin = layout(tmp_path / "a/b/layout", b"{}", TEN, IMAGE, attached, index=index)
    target = Directory(root=tmp_path / "a/b/target", complete=handover.completer(None))
    replica.copy(origin, target, replica.gather(origin, [sha256(IMAGE)], {}), lambda _: None)
    written = {path.relative_to(tmp_path / "a/b/target").as_posix() for path in target.root.rglob("*") if path.is_file()}
    assert {path for path in written if path.startswith("documents/")} <= {f"documents/{sha256(IMAGE).replace(':', '-')}/escaped"}
    assert not [path for path in tmp_path.rglob("escaped") if target.root not in path.parents]


@pytest.mark.parametrize("write", [lambda one, path: one.write(path, b"x"), lambda one, path: one.take(hostile.Source.of(TEN), lambda _: None)])
def test_what_is_unfinished_leads_nowhere(tmp_path, write):
    """A link that lies where a file is begun is not followed."""
    target = Directory(root=tmp_path / "target")
    path = target.path(sha256(TEN))
    path.parent.mkdir(parents=True)
    (tmp_path / "victim").write_bytes(b"mine")
    path.with_name(f".{path.name}.partial").symlink_to(tmp_path / "victim")
    write(target, path)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert path.exists()


@pytest.mark.parametrize("link", ["blobs", "blobs/sha256", "documents", "documents/image", "locks"])
def test_a_link_below_a_target_leads_nowhere(tmp_path, link):
    """Nothing is written where a directory leads elsewhere: 14, one line, and a cure that cures."""
    target, victim = Directory(root=tmp_path / "target"), tmp_path / "victim"
    path = {"blobs": target.path(sha256(TEN)), "locks": target.root / "locks/a.lock"}.get(link.partition("/")[0], target.root / "documents/image/record.json")
    victim.mkdir()
    (target.root / link).parent.mkdir(parents=True)
    (target.root / link).symlink_to(victim)
    for write in (
        lambda: target.write(path, b"x"),
        lambda: target.take(hostile.Source.of(TEN), lambda _: None) if "blobs" in link else target.write(path, b"y"),
    ):
        with pytest.raises(StoreError, match=f"{link} is a link"):
            write()
    assert list(victim.iterdir()) == []
    (target.root / link).unlink()
    (target.root / link).mkdir()
    target.write(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_target_may_be_a_link_itself(tmp_path):
    """Whoever names it has chosen where it leads."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "target").symlink_to(tmp_path / "disk")
    target = Directory(root=tmp_path / "target")
    target.write(target.root / "locks/a.lock", b"x")
    assert (tmp_path / "disk/locks/a.lock").read_bytes() == b"x"


MARKED = ("x\n--index-url https://other.example/", "\x1b[2J", "x\u202ey", "x\u2028y")
NO_WORDS = ("x --hash=sha256:0", "x @ https://other.example/x.whl", "-r other", "x;y", "")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        *product(("name", "wheel", "package", "licence"), MARKED),
        *product(("wheel", "package"), NO_WORDS),
    ],
)
def test_a_record_has_no_lines_and_no_marks_and_names_are_words(place, text):
    """Locks for pip and apt are written from it, where white space would begin an option; and people are shown it."""
    with pytest.raises(UntrustedError, match="this is no record"):
        record.decode(msgspec.json.encode(recorded(**{place: text})))


def recorded(name="x", wheel="torch", package="libc6", licence="MIT"):
    """Return a record as JSON has it."""
    honest = msgspec.structs.replace(
        records.RECORD,
        name=name,
        wheels=(msgspec.structs.replace(records.wheel(wheel, "1"), licence=licence),),
        packages=(msgspec.structs.replace(records.package(package, "1", "x"), licence=licence),),
        licences={"MIT": licence},
    )
    return msgspec.to_builtins(honest)


def test_an_honest_record_is_read():
    """The shape that the tests above break."""
    assert record.decode(msgspec.json.encode(recorded())).wheels[0].name == "torch"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[:40].decode("latin-1").encode("unicode_escape").decode())
def test_the_program_beside_images_says_in_one_line_what_is_wrong(tmp_path, shape, capsys):
    """It has no library to lean on, and ends with a line too."""
    directory = layout(tmp_path / "layout", shape, index=shape)
    assert verify.main([str(directory.root)]) in {0, 1}
    message = capsys.readouterr()
    assert is_one_line(message.err.rstrip("\n"))


@pytest.mark.parametrize("kind", ["x\timage\ty", "x\nimage\t-\tgood.sig\tgood", "", "x y", "\x1b[2J"])
def test_a_type_of_a_statement_is_a_word(tmp_path, kind, capsys):
    """It stands in a line from which cosign is called: tabs in it would name another signature to check."""
    directory = tmp_path / "signatures/x"
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_bytes(IMAGE)
    statement = {"predicateType": kind, "subject": [{"digest": {"sha256": sha256(IMAGE)[7:]}}]}
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    (directory / "a.sigstore.json").write_text(json.dumps({"dsseEnvelope": {"payload": payload}}))
    assert verify.main(["--signatures", str(tmp_path)]) == 1
    assert capsys.readouterr().out == ""


def test_the_program_beside_images_reads_nothing_outside(tmp_path):
    """Digests in its index name blobs, and no other files."""
    (tmp_path / "secret").write_text(json.dumps({"manifests": []}))
    listed = {"digest": "sha256:../../../secret", "size": 17, "mediaType": INDEX}
    directory = layout(tmp_path / "layout", index=canonical({"manifests": [listed]}))
    ended = subprocess.run([sys.executable, VERIFY, directory.root], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("WRONG: ")
