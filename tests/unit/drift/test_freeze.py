"""The files that make a difference an image."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from torchstrata.drift import freeze
from torchstrata.drift.comparison import Drift
from torchstrata.drift.contents import InstalledWheel
from torchstrata.drift.reading import Drifted, InspectedContainer
from torchstrata.errors import FreezeError

SITE = "/opt/venv/lib/python3.11/site-packages"
USER = "/home/dev/.local/lib/python3.11/site-packages"
DIGEST = "pytorch-cuda@sha256:" + "a" * 64
OURS = "registry.example:5000/team/pytorch-cuda@sha256:" + "a" * 64


def wheel(name, version, place=SITE, source="", *, editable=False):
    """Return an installed package."""
    return InstalledWheel(name, version, f"{place}/{name}-{version}.dist-info", source, editable, 1000)


def added(one, was=""):
    """Return that a package came, or became another."""
    kind = "torch" if one.name == "torch" else "wheel"
    return Drift("changed" if was else "added", kind, one.name, was, one.version, "", one.place)


def drifted(*drifts, wheels=(), records=None, named="pytorch-cuda:v2.13", digests=(DIGEST,), user="1000:0"):
    """Return a container that differs."""
    subject = InspectedContainer(id="c" * 64, name="desk", image="sha256:" + "a" * 64, named=named, digests=digests, labels={}, user=user)
    return Drifted(container=subject, against=subject.image, drifts=drifts, wheels=wheels, records=records or {})


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (wheel("six", "1.16"), "six==1.16"),
        (wheel("six", "1.16", source="git+https://example/six@abc"), "six @ git+https://example/six@abc"),
        (wheel("six", "1.16", source="https://example/six.whl"), "six @ https://example/six.whl"),
    ],
)
def test_packages_that_can_be_had_again(one, line):
    """Are requirements, installed by the user without what they depend on, which has lines of its own."""
    made = freeze.plan(drifted(added(one), wheels=(one,)))
    assert (made.requirements, made.taken, made.open_) == ((line,), (), ())
    assert "pip install --no-cache-dir --no-deps -r /tmp/requirements.txt" in freeze.dockerfile(made)
    assert "PIP_CONSTRAINT" not in freeze.dockerfile(made)


def test_torch_is_replaced_on_purpose():
    """The constraint that holds it is left aside."""
    one = wheel("torch", "2.99")
    assert "env -u PIP_CONSTRAINT pip install" in freeze.dockerfile(freeze.plan(drifted(added(one, "2.13"), wheels=(one,))))


@pytest.mark.parametrize("one", [wheel("six", "1", source="file:///tmp/six.whl"), wheel("six", "1", USER)])
def test_packages_on_no_index_are_copied(one):
    """And those elsewhere, where they are; without bytecode. What the image had in its place goes first."""
    records = {f"{one.place}/six.py": "wheel six", f"{one.place}/__pycache__/six.pyc": "wheel six", f"{one.place}/b.py": "wheel other"}
    made = freeze.plan(drifted(added(one, "0.9" if one.place == SITE else ""), wheels=(one,), records=records))
    assert (made.requirements, made.taken) == ((), (f"{one.place}/six.py",))
    assert made.uninstalled == (("six",) if one.place == SITE else ())
    assert "ADD files.tar /" in freeze.dockerfile(made)


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/gshadow", "/etc/ssh/ssh_host_ed25519_key"])
def test_secrets_are_not_frozen(path):
    """Passwords and private keys are named, and stay in the container."""
    made = freeze.plan(drifted(Drift("edited", "file", path), Drift("edited", "file", "/etc/profile")))
    assert made.taken == ("/etc/profile",)
    assert [why.partition(":")[0] for why in made.open_] == [path]


def test_what_cannot_be_frozen_is_named():
    """Code of an editable installation, and environments, with what to do."""
    one = wheel("mine", "1", source="file:///workspace/mine", editable=True)
    made = freeze.plan(drifted(added(one), Drift("added", "environment", "/opt/conda"), wheels=(one,)))
    assert [why.partition(":")[0] for why in made.open_] == ["mine", "/opt/conda"]
    assert (made.requirements, made.taken) == ((), ())
    assert "# Not here: mine: its code is at file:///workspace/mine" in freeze.dockerfile(made)


def test_new_directories_of_files_are_copied():
    """With their owner: a build would make them for root. Those of the image stay, as do new ones with nothing to copy."""
    named = drifted(Drift("added", "file", "/opt/mine/deep/a"), Drift("removed", "file", "/opt/x/b"))
    made = frozenset({"/opt/mine", "/opt/mine/deep", "/opt/else"})
    assert freeze.plan(replace(named, made=made)).taken == ("/opt/mine", "/opt/mine/deep", "/opt/mine/deep/a")


def test_what_was_removed_goes():
    """Python packages, OS packages and files."""
    drifts = (
        Drift("removed", "wheel", "pillow", "13", place=SITE),
        Drift("removed", "package", "less:amd64", "590"),
        Drift("changed", "package", "tree:amd64", "1", "2"),
        Drift("removed", "file", "/etc/a b"),
    )
    text = freeze.dockerfile(freeze.plan(drifted(*drifts)))
    assert "RUN pip uninstall -y pillow\n" in text
    assert "less:amd64- tree:amd64=2 &&" in text
    assert "RUN rm -rf -- '/etc/a b'\n" in text


@pytest.mark.parametrize(
    ("one", "was"),
    [
        (Drift("removed", "file", "/etc/x\nRUN evil"), ()),
        (Drift("added", "wheel", "--index-url=evil", "", "1", "", SITE), (wheel("--index-url=evil", "1"),)),
        (Drift("added", "wheel", "six", "", "1 --pre", "", SITE), (wheel("six", "1 --pre"),)),
        (Drift("added", "wheel", "six", "", "1", "", SITE), (wheel("six", "1", source="https://example/a\nevil"),)),
        (Drift("added", "wheel", "six", "", "1", "", SITE), (wheel("six", "1", source="file:///a\nRUN evil", editable=True),)),
        (Drift("added", "package", "-oAPT::Update=evil", "", "1"), ()),
    ],
)
def test_names_from_a_container_begin_no_line(one, was):
    """What would be an option or a step of its own is left, and said in one line."""
    made = freeze.plan(drifted(one, wheels=was))
    assert (made.requirements, made.packages, made.deleted) == ((), (), ())
    assert len(made.open_) == 1
    assert not [line for line in freeze.dockerfile(made).splitlines() if line.startswith(("RUN", "evil"))]


@pytest.mark.parametrize(
    ("named", "digests", "base"),
    [
        ("pytorch-cuda:v2.13", (OURS, DIGEST), DIGEST),
        ("registry.example:5000/team/pytorch-cuda:v2.13", (DIGEST, OURS), OURS),
        (OURS, (DIGEST, OURS), OURS),
        ("other:1", (DIGEST, OURS), DIGEST),
        ("pytorch-cuda:v2.13", (), "pytorch-cuda:v2.13"),
    ],
)
def test_the_image_is_named_by_digest(named, digests, base):
    """Of the repository that the container was made from; by its name where no repository knows it."""
    assert f"ARG BASE={base}\nFROM ${{BASE}}\n" in freeze.dockerfile(freeze.plan(drifted(named=named, digests=digests)))


@pytest.mark.parametrize(("user", "line"), [("1000:0", "USER 1000:0"), ("0:0", "USER 0:0"), ("", "USER 0:0")])
def test_the_image_starts_as_before(user, line):
    """By the same user."""
    assert freeze.dockerfile(freeze.plan(drifted(user=user))).splitlines()[-1] == line


class Taken:
    """Gives files as a container does."""

    def members(self, paths):
        """Yield head and content of each."""
        for path in paths:
            member = tarfile.TarInfo(path.rpartition("/")[2])
            member.size, member.mode, member.uid, member.mtime = len(path), 0o640, 1000, 99
            yield path, member, path.encode()


def test_files(tmp_path):
    """Lie in an archive with owner and rights, and without a time; a directory that has something is refused."""
    made = freeze.plan(drifted(Drift("edited", "file", "/etc/profile"), Drift("mode", "file", "/opt/x")))
    written = freeze.write(made, Taken(), tmp_path / "new")
    assert sorted(path.name for path in written) == ["Dockerfile", "files.tar", "requirements.txt"]
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "new" / "files.tar").read_bytes())) as archive:
        assert [(one.name, one.mode, one.uid, one.mtime) for one in archive] == [("etc/profile", 0o640, 1000, 0), ("opt/x", 0o640, 1000, 0)]
    with pytest.raises(FreezeError, match="is not empty"):
        freeze.write(made, Taken(), tmp_path / "new")


@pytest.mark.parametrize("path", ["/etc/ünï", f"/opt/venv/{'deep/' * 30}mine.py"])
def test_files_whose_names_an_archive_writes_in_records(path, tmp_path):
    """Engines name what they pack from the directory above it: letters beyond ASCII and long names as records, which beat the head (pax)."""

    class TakenWithRecords(Taken):
        def members(self, paths):
            for each, member, content in super().members(paths):
                member.pax_headers = {"path": member.name, "mtime": "9.5", "SCHILY.xattr.security.capability": "x"}
                yield each, member, content

    freeze.write(freeze.plan(drifted(Drift("added", "file", path))), TakenWithRecords(), tmp_path / "new")
    with tarfile.open(tmp_path / "new" / "files.tar") as archive:
        (member,) = archive
    assert (member.name, member.mtime) == (path[1:], 0)
    assert member.pax_headers["SCHILY.xattr.security.capability"] == "x"


@pytest.mark.parametrize("was_there", [True, False])
def test_nothing_is_left_of_files_that_were_not_all_written(tmp_path, monkeypatch, was_there):
    """After Ctrl-C the next call finds the directory as the first one did."""
    made, new = freeze.plan(drifted(Drift("edited", "file", "/etc/profile"))), tmp_path / "new"
    if was_there:
        new.mkdir()
    written = Path.write_bytes

    def interrupted(path, content):
        written(path, content)
        if path.name == "files.tar":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            freeze.write(made, Taken(), new)
    assert new.exists() == was_there
    assert freeze.write(made, Taken(), new)


def test_a_place_that_cannot_be_written(tmp_path):
    """Is an error in two lines."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FreezeError, match="cannot be written"):
        freeze.write(freeze.plan(drifted()), Taken(), tmp_path / "file" / "new")
