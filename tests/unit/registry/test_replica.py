"""What is copied of images, in which order, and what a directory says of itself; over directories and an origin in memory."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
import threading

import pytest

from tests.unit.registry.test_directory import recorded
from tests.waiting import PATIENCE, until
from torchstrata.attestations import handover
from torchstrata.attestations.offline import verify
from torchstrata.attestations.signing import BUNDLE
from torchstrata.commands import mirror
from torchstrata.commands.release_options import MirrorOptions
from torchstrata.errors import AbsentError, IntegrityError, MirrorError
from torchstrata.image import image_index, oci
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.image.image_index import PlatformImage
from torchstrata.matrix import matrix
from torchstrata.registry import replica
from torchstrata.registry.client import Manifest
from torchstrata.registry.directory import Directory
from torchstrata.registry.registry import TITLE, Attachment, Referrer
from torchstrata.registry.replica import Relay
from torchstrata.registry.upload import Source

CELL = "2.8-cu121-debian13"
MATRIX = matrix.load()


class Memory:
    """An origin in memory.

    :param tags: digest by tag.
    """

    def __init__(self):
        self.blobs, self.manifests, self.tags, self.opened = {}, {}, {}, []

    def blob(self, content, media_type="application/x", **more):
        """Keep a blob; return its descriptor."""
        self.blobs[sha256(content)] = content
        return {"mediaType": media_type, "digest": sha256(content), "size": len(content), **more}

    def add(self, *layers, config=b"{}", tag=None, **more):
        """Keep a manifest; return its digest."""
        body = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": self.blob(config), "layers": list(layers), **more})
        self.manifests[sha256(body)] = Manifest(body, MANIFEST, sha256(body))
        if tag:
            self.tags[tag] = sha256(body)
        return sha256(body)

    def attach(self, subject, content, title, media_type="text/plain"):
        """Attach a file."""
        blob = self.blob(content=content, media_type=media_type, annotations={TITLE: title})
        return self.add(blob, artifactType=media_type, subject={"digest": subject, "mediaType": MANIFEST, "size": 1})

    def find(self, reference):
        """Return what a tag or digest names."""
        return reference if reference in self.manifests else self.tags.get(reference)

    def manifest(self, digest):
        """Return a manifest."""
        return self.manifests[digest]

    def referrers(self, digest):
        """Return what refers to a manifest."""
        found = [each for each in self.manifests.values() if (json.loads(each.body).get("subject") or {}).get("digest") == digest]
        return tuple(Referrer(digest=each.digest, size=len(each.body), artifact_type="") for each in found)

    @contextlib.contextmanager
    def source(self, digest, size):
        """Yield a blob."""
        self.opened.append(digest)
        yield Source(digest=digest, size=size, open=lambda: io.BytesIO(self.blobs[digest]))


@pytest.fixture
def origin():
    """Keep an image with a document, a signed one, and a signature of that; return the origin and the image's digest."""
    memory = Memory()
    config = canonical({"config": {"Labels": {"torchstrata.cell": CELL}}})
    image = memory.add(memory.blob(b"layer"), config=config, tag="2.8.0-cu121-debian13-base-20261124.1")
    memory.tags["2.8-cu121-base"] = image
    document = memory.attach(image, b"document", "sbom.cdx.json")
    statement = {"predicateType": "x", "subject": [{"digest": {"sha256": image[7:]}}]}
    bundle = {"dsseEnvelope": {"payload": base64.b64encode(json.dumps(statement).encode()).decode()}}
    memory.attach(image, json.dumps(bundle).encode(), "sbom.cdx.json.sigstore.json", BUNDLE)
    memory.attach(document, b"about the document", "note")
    payload = memory.blob(json.dumps({"critical": {"image": {"docker-manifest-digest": image}}}).encode(), annotations={handover.SIGNATURE: "c2ln"})
    memory.add(payload, tag=f"sha256-{image[7:]}.sig")
    return memory, image


def copied(origin, root, key=None):
    """Copy the image to a directory; return the directory, as it is read afresh."""
    memory, image = origin
    names = {tag: digest for tag, digest in memory.tags.items() if digest == image}
    replica.copy(memory, Directory(root=root, complete=handover.completer(key)), replica.gather(memory, [image], names), lambda _: None)
    return Directory(root=root)


def test_everything_that_belongs_to_an_image_is_found(origin):
    """Documents, what is attached to these, and cosign's signature; what others refer to comes first."""
    memory, image = origin
    what = replica.gather(memory, [image], {})
    assert set(what.manifests) == set(memory.manifests)
    assert next(iter(what.manifests)) == image
    assert what.tags == {f"sha256-{image[7:]}.sig": memory.tags[f"sha256-{image[7:]}.sig"]}
    assert set(what.blobs) == set(memory.blobs)


DATED = "2.8.0-cu121-debian13-base-20261124.1"


@pytest.fixture
def joined():
    """Keep an index of images for two platforms, each with a document; return the origin, the index's digest and the images'."""
    memory, images = Memory(), {}
    for platform in ("amd64", "arm64"):
        config = canonical({"config": {"Labels": {"torchstrata.cell": CELL}}, "os": "linux", "architecture": platform})
        images[platform] = memory.add(memory.blob(platform.encode()), config=config, tag=DATED.replace("-base-", f"-base_{platform}-"))
        memory.attach(images[platform], f"of {platform}".encode(), "sbom.cdx.json")
    listed = [PlatformImage(platform=f"linux/{each}", digest=digest, size=len(memory.manifests[digest].body)) for each, digest in images.items()]
    body = image_index.compose(listed)
    memory.manifests[sha256(body)] = Manifest(body, oci.INDEX, sha256(body))
    memory.tags |= {DATED: sha256(body), "2.8-cu121-base": sha256(body)}
    memory.attach(sha256(body), b"of all", "index.json")
    return memory, sha256(body), images


def index_copied(joined, root):
    """Copy the index to a directory; return what files are beside it."""
    memory, digest, _ = joined
    replica.copy(memory, Directory(root=root, complete=handover.completer(None)), replica.gather(memory, [digest], memory.tags), lambda _: None)
    return {path.relative_to(root / "documents").as_posix(): path.read_text() for path in (root / "documents").rglob("*.json")}


def test_an_index_is_copied_with_its_images_and_their_files(joined, tmp_path):
    """Every platform has its documents, under its own dated tag; the directory proves itself."""
    names = {each: DATED.replace("-base-", f"-base_{each}-") for each in ("amd64", "arm64")}
    assert index_copied(joined, tmp_path) == {f"{DATED}/index.json": "of all", **{f"{name}/sbom.cdx.json": f"of {each}" for each, name in names.items()}}
    assert verify.check(tmp_path).endswith("all have their digests")
    assert {Directory(root=tmp_path).find(name) for name in names.values()} == set(joined[2].values())


@pytest.mark.parametrize("gone", ["documents", "manifest"])
def test_a_directory_that_has_lost_a_platform_is_damaged(joined, tmp_path, gone):
    """Its documents, or the image itself: the check of the directory says so."""
    index_copied(joined, tmp_path)
    digest = joined[2]["arm64"]
    lost = {"documents": f"documents/{DATED.replace('-base-', '-base_arm64-')}/sbom.cdx.json", "manifest": f"blobs/sha256/{digest[7:]}"}
    (tmp_path / lost[gone]).unlink()
    with pytest.raises(verify.Damaged, match=r"is not there"):
        verify.check(tmp_path)


def test_cells_in_a_directory_may_be_indexes(joined, tmp_path):
    """Chosen by what their images say; images of an index are not copied a second time by themselves."""
    index_copied(joined, tmp_path)
    found = mirror.choose(MATRIX, Directory(root=tmp_path), "2.8-cu121", MirrorOptions(images="2.8-cu121", to="x"))
    assert found.images == (joined[1],)
    assert set(found.tags) == set(joined[0].tags)


def test_children_of_an_index_come_before_it():
    """A registry takes an index only if it has what that lists."""
    memory = Memory()
    child = memory.add(memory.blob(b"layer"))
    body = canonical({"schemaVersion": 2, "manifests": [{"digest": child, "size": 1}]})
    memory.manifests[sha256(body)] = Manifest(body, "application/vnd.oci.image.index.v1+json", sha256(body))
    assert list(replica.gather(memory, [sha256(body)], {}).manifests) == [child, sha256(body)]


def test_a_directory_has_what_its_origin_had(origin, tmp_path):
    """Tags, manifests and what refers to them, with the same digests."""
    memory, image = origin
    there = copied(origin, tmp_path)
    assert there.tags == memory.tags
    assert {referrer.digest for referrer in there.referrers(image)} == {referrer.digest for referrer in memory.referrers(image)}
    assert there.manifest(image) == memory.manifest(image)
    again = replica.gather(there, [image], {})
    assert set(again.manifests) == set(memory.manifests)


def test_blobs_that_are_there_are_not_read_again(origin, tmp_path):
    """A copy that is run again opens nothing."""
    copied(origin, tmp_path)
    origin[0].opened.clear()
    copied(origin, tmp_path)
    assert origin[0].opened == []


def test_the_index_comes_last(origin, tmp_path):
    """A copy that breaks off names nothing."""
    memory, image = origin
    memory.blobs[sha256(b"layer")] = b"other"
    with pytest.raises(IntegrityError):
        copied(origin, tmp_path)
    assert not (tmp_path / "index.json").exists()
    assert not Directory(root=tmp_path).path(sha256(b"layer")).exists()
    assert Directory(root=tmp_path).find(image) is None


def test_of_two_copies_to_one_directory_none_loses_its_names(origin, tmp_path, said):
    """The second waits for the first, since it takes over what the index says."""
    memory, image = origin
    other = memory.add(memory.blob(b"another layer"))
    order = []

    def complete(directory, copy):
        order.append(copy.images)
        if len(order) == 1:
            assert directory.tags == {}
            second.start()
            until(lambda: "waiting for it" in said(), "the second waits", alive=second.is_alive)

    def copy(digest, tag):
        directory = Directory(root=tmp_path, complete=complete)
        replica.copy(memory, directory, replica.gather(memory, [digest], {tag: digest}), lambda _: None)

    second = threading.Thread(target=copy, args=(other, "other"))
    copy(image, "one")
    second.join(PATIENCE)
    assert order == [(image,), (other,)]
    assert {"one": image, "other": other}.items() <= Directory(root=tmp_path).tags.items()


def test_files_beside_images_have_the_names_that_they_were_attached_under(origin, tmp_path):
    """Below the dated tag; bundles and signatures apart from documents."""
    copied(origin, tmp_path, b"the key")
    title = "2.8.0-cu121-debian13-base-20261124.1"
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and "blobs" not in path.parts}
    beside = {f"signatures/{title}/{name}" for name in ("manifest.json", "sbom.cdx.json.sigstore.json", "image-1.payload", "image-1.sig")}
    assert found == {f"documents/{title}/sbom.cdx.json", *beside, "cosign.pub", "index.json", "oci-layout", "verify", "verify.py"}
    assert (tmp_path / f"signatures/{title}/image-1.sig").read_text() == "c2ln"


def test_names_of_files_lead_nowhere_else(origin, tmp_path):
    """Whoever may attach something must not write where they like."""
    memory, image = origin
    memory.attach(image, b"evil", "../../../evil")
    memory.attach(image, b"no file", "..")
    copied(origin, tmp_path / "cell")
    assert [path.parent.parent.name for path in tmp_path.rglob("evil*")] == ["documents"]


def test_files_of_one_name_are_numbered(origin, tmp_path):
    """An image may have been tested twice."""
    memory, image = origin
    memory.attach(image, b"second", "sbom.cdx.json")
    copied(origin, tmp_path)
    assert {path.name for path in tmp_path.glob("documents/*/*")} == {"sbom.cdx.json", "sbom-2.cdx.json"}


# Checking a directory without this program


def test_the_script_is_content_with_a_copy(origin, tmp_path, capsys):
    """It counts what it has seen, and lists what cosign is to check."""
    copied(origin, tmp_path)
    assert verify.main([str(tmp_path)]) == 0
    assert "3 tags, 5 files beside them: all have their digests" in capsys.readouterr().out
    assert verify.main(["--signatures", str(tmp_path)]) == 0
    kinds = [line.split("\t")[:2] for line in capsys.readouterr().out.splitlines()]
    assert kinds == [["image", "-"], ["statement", "x"]]


@pytest.mark.parametrize("harm", ["change", "append", "remove"])
def test_the_script_finds_harm_to_any_blob(origin, tmp_path, capsys, harm):
    """Bytes changed, bytes more, a blob gone."""
    there = copied(origin, tmp_path)
    for digest in {**origin[0].blobs, **origin[0].manifests}:
        path = there.path(digest)
        before = path.read_bytes()
        path.unlink() if harm == "remove" else path.write_bytes(before[:-1] + b"X" if harm == "change" else before + b"X")
        assert verify.main([str(tmp_path)]) == 1, digest
        path.write_bytes(before)
    assert verify.main([str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("WRONG: ") == len({**origin[0].blobs, **origin[0].manifests})


def test_the_script_reads_no_blob_that_nothing_names(origin, tmp_path, capsys):
    """One of a terabyte would keep it for hours; it says that there is one."""
    there = copied(origin, tmp_path)
    with there.path("sha256:" + "0" * 64).open("wb") as file:
        file.truncate(1 << 40)
    assert verify.main([str(tmp_path)]) == 0
    assert "1 files among the blobs that nothing names were not read" in capsys.readouterr().out


@pytest.fixture
def pair(origin):
    """Keep a second image beside the first, each with a record and results of tests; return origin, and the images by tag."""
    memory, image = origin
    tags = {"2.8.0-cu121-debian13-base-20261124.1": image}
    tags["2.8.0-cu121-debian13-devel-20261124.1"] = memory.add(memory.blob(b"devel"))
    for tag, digest in tags.items():
        memory.attach(digest, json.dumps({**recorded(), "digest": digest}).encode(), "record.json")
        memory.attach(digest, json.dumps({"passed": tag.partition("-base-")[1] != ""}).encode(), "verify.json")
    return memory, tags


def handed_over(pair, root):
    """Copy both images to a directory."""
    memory, tags = pair
    gathered = replica.gather(memory, tuple(tags.values()), tags)
    replica.copy(memory, Directory(root=root, complete=handover.completer(b"the key")), gathered, lambda _: None)


def test_the_script_accepts_whatever_is_handed_over(pair, tmp_path, capsys):
    """By digest first, then by tag, with documents that came later and others that the origin has lost."""
    memory, tags = pair
    image = next(iter(tags.values()))
    for names in ({}, {next(iter(tags)): image}):
        what = replica.gather(memory, [image], names)
        replica.copy(memory, Directory(root=tmp_path, complete=handover.completer(None)), what, lambda _: None)
        memory.attach(image, f"later {names}".encode(), "sbom.cdx.json")
        assert verify.main([str(tmp_path)]) == 0, capsys.readouterr().err
    for digest in [digest for digest, each in memory.manifests.items() if b'sbom.cdx.json"' in each.body][:1]:
        del memory.manifests[digest]
    handed_over(pair, tmp_path)
    assert verify.main([str(tmp_path)]) == 0, capsys.readouterr().err
    assert len(list(tmp_path.glob("documents/*/sbom*.json"))) == 2 * 3


BASE, DEVEL = "2.8.0-cu121-debian13-base-20261124.1", "2.8.0-cu121-debian13-devel-20261124.1"

HARMS = {
    "packages for apt": (f"locks/{BASE}.packages", lambda _: b"-o\nDPkg::Pre-Invoke::=true\n./evil.deb\n"),
    "hashes in comments": (f"locks/{BASE}.lock", lambda old: b"# " + old.rstrip().replace(b"\n", b"\n# ") + b"\n--index-url http://evil.example\n"),
    "one more line": (f"locks/{BASE}.lock", lambda old: old + b"\n"),
    "another image's results": (f"documents/{DEVEL}/verify.json", lambda _: b'{"passed": true}'),
    "another image's locks": (f"locks/{BASE}.packages", lambda old: old.replace(b"libc6", b"libc7")),
    "a signature": (f"signatures/{BASE}/image-1.sig", lambda _: b"b3Ro"),
    "a document gone": (f"documents/{DEVEL}/verify.json", None),
    "a record gone": (f"documents/{DEVEL}/record.json", None),
    "a lock gone": (f"locks/{BASE}.packages", None),
    "a document more": (f"documents/{BASE}/README", lambda _: b"pip install evil"),
    "a signature more": ("documents/evil.sig", lambda _: b"x"),
    "a lock more": ("locks/evil.lock", lambda _: b""),
    "an image more": ("documents/evil/record.json", lambda _: b"{}"),
    "a file more": ("README", lambda _: b"pip install evil"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_the_script_finds_harm_to_any_file_beside(pair, tmp_path, capsys, harm):
    """Each is what belongs to its image, byte for byte; none is missing, and none is there without a reason."""
    handed_over(pair, tmp_path)
    assert verify.main([str(tmp_path)]) == 0, capsys.readouterr().err
    path, change = tmp_path / HARMS[harm][0], HARMS[harm][1]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(change(path.read_bytes() if path.exists() else b"")) if change else path.unlink()
    assert verify.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"WRONG: {HARMS[harm][0]} ")


def test_the_script_misses_all_files_of_an_image(pair, tmp_path, capsys):
    """Whoever removes them all leaves the image, to which they belong."""
    handed_over(pair, tmp_path)
    for path in [*tmp_path.glob(f"*/{DEVEL}/*"), *tmp_path.glob(f"locks/{DEVEL}.*")]:
        path.unlink()
    assert verify.main([str(tmp_path)]) == 1
    assert "is not there" in capsys.readouterr().err


def test_the_script_finds_a_referrer_without_its_image(origin, tmp_path, capsys):
    """Somebody has taken the image out of index and blobs."""
    there, image = copied(origin, tmp_path), origin[1]
    index = json.loads((tmp_path / "index.json").read_bytes())
    index["manifests"] = [each for each in index["manifests"] if each["digest"] != image]
    (tmp_path / "index.json").write_text(json.dumps(index))
    there.path(image).unlink()
    assert verify.main([str(tmp_path)]) == 1
    assert f"refers to {image}, which is not here" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"manifests": [{}]}'])
def test_the_script_needs_an_index(tmp_path, capsys, content):
    """One that is none is an error in one line."""
    (tmp_path / "index.json").write_text(content)
    assert verify.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("WRONG: the directory is not complete")


def test_the_script_needs_a_plain_shell_and_python_only(origin, tmp_path):
    """`sh` and `python3 -I` are enough, from any directory, under any name."""
    root = tmp_path / "a cell; with $odd name"
    copied(origin, root)
    ended = subprocess.run(["sh", root / "verify"], cwd="/", capture_output=True, text=True, check=False)
    assert (ended.returncode, "not checked" in ended.stdout) == (0, True), ended.stderr


# Reading directories


def test_a_damaged_directory_is_no_origin(origin, tmp_path):
    """Whatever is read of it is verified."""
    there, image = copied(origin, tmp_path), origin[1]
    layer = there.path(sha256(b"layer"))
    layer.write_bytes(b"other")
    with pytest.raises(IntegrityError), there.source(sha256(b"layer"), 5):
        pass
    layer.unlink()
    with pytest.raises(AbsentError), there.source(sha256(b"layer"), 5):
        pass
    there.path(image).write_bytes(b"{}")
    with pytest.raises(IntegrityError):
        there.manifest(image)


def test_a_tag_that_moved_names_the_new_image_only(origin, tmp_path):
    """The older image keeps its other names."""
    copied(origin, tmp_path)
    memory = Memory()
    new = memory.add(memory.blob(b"new"))
    target = Directory(root=tmp_path)
    replica.copy(memory, target, replica.gather(memory, [new], {"2.8-cu121-base": new}), lambda _: None)
    tags = Directory(root=tmp_path).tags
    assert (tags["2.8-cu121-base"], tags["2.8.0-cu121-debian13-base-20261124.1"]) == (new, origin[1])


# What words mean


@pytest.mark.parametrize(
    ("text", "is_directory"),
    [
        ("./x", True),
        ("/x/y", True),
        ("~/x", True),
        ("mirror", True),
        ("a/b", True),
        ("registry.example/team", False),
        ("localhost", False),
        ("host:5000", False),
        ("https://host", False),
    ],
)
def test_directories_are_told_from_registries(text, is_directory):
    """A host has a dot or a port, or is this machine."""
    assert mirror.is_directory(text) is is_directory


def test_a_directory_that_is_there_is_one(tmp_path, monkeypatch):
    """Even if it is called like a host."""
    monkeypatch.chdir(tmp_path)
    assert not mirror.is_directory("cells.2026")
    (tmp_path / "cells.2026").mkdir()
    assert mirror.is_directory("cells.2026")


def test_cells_of_a_directory_are_known_by_what_images_say(origin, tmp_path):
    """So are tags and digests; what is not there is refused."""
    there, table = copied(origin, tmp_path), mirror.matrix.load()
    options = MirrorOptions(images="", to="x")
    names = {tag: digest for tag, digest in there.tags.items() if digest == origin[1]}
    assert mirror.choose(table, there, "2.8-cu121", options) == mirror.Choice(images=(origin[1],), tags=names)
    assert mirror.choose(table, there, "2.8-cu121-base", options).tags == {"2.8-cu121-base": origin[1]}
    assert mirror.choose(table, there, origin[1], options) == mirror.Choice(images=(origin[1],), tags={})
    for word in ("2.13-cpu", "no-such-thing"):
        with pytest.raises(MirrorError):
            mirror.choose(table, there, word, options)


# Streams


class Stream(io.BytesIO):
    """A download, which gives few bytes at a time."""

    def read(self, size=-1, /):
        """Read three bytes at most."""
        return super().read(min(size, 3))


def test_a_relay_goes_on_where_it_is():
    """One download for an upload in pieces; going back costs another one."""
    begun = []

    def begin():
        begun.append(1)
        return Stream(b"0123456789")

    relay = Relay(begin)
    relay.seek(0)
    assert relay.read(2) == b"01"
    assert relay.read(0) == b""
    relay.seek(2)
    assert (relay.read(9), len(begun)) == (b"234", 1)
    relay.seek(8)
    assert (relay.read(9), len(begun)) == (b"89", 1)
    relay.seek(4)
    assert (relay.read(1), len(begun)) == (b"4", 2)


def test_attachments_are_listed_with_their_type():
    """As the specification says: the artifact type, else that of the config."""
    found = replica.referrer(Manifest(canonical({"config": {"mediaType": "x", "digest": sha256(b"x"), "size": 1}, "annotations": {"a": "b"}}), MANIFEST, "d"))
    assert (found.artifact_type, found.annotations) == ("x", {"a": "b"})
    assert Attachment(content=b"x", media_type="y").descriptor["digest"] == sha256(b"x")
