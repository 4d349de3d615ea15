"""Files of a container as the engine packs them, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from types import SimpleNamespace

import docker.errors
import pytest

from torchstrata.drift import reading
from torchstrata.drift.contents import Contents, FileState
from torchstrata.drift.reading import ContainerFiles
from torchstrata.errors import EngineError, ForeignContainerError, NoContainerError, NoImageError

SITE = "/opt/venv/lib/python3.13/site-packages"


def of_dev(member):
    """Let a file in an archive be the user's."""
    member.uid, member.gid = 1000, 0
    return member


class Api:
    """Packs a directory as an engine packs a container, in small pieces."""

    def __init__(self, root):
        self.root, self.asked = root, []

    def get_archive(self, container, path, chunk_size):
        """Give an archive of a path below the root."""
        self.asked.append(path)
        if not os.path.lexists(f"{self.root}{path}"):
            raise docker.errors.NotFound("no such file")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(f"{self.root}{path}", arcname=path.rpartition("/")[2], filter=of_dev)
        content = packed.getvalue()
        return (content[start : start + 1000] for start in range(0, len(content), 1000)), {}


@pytest.fixture
def root(tmp_path):
    """Give a file system with files, a link, and a file with two names."""
    site = tmp_path / "opt" / "venv" / "site"
    site.mkdir(parents=True)
    for number in range(40):
        (site / f"m{number}.py").write_text(f"x = {number}\n" * 100)
    (site / "m1.py").chmod(0o600)
    (site / "link").symlink_to("m0.py")
    os.link(site / "m0.py", site / "second.py")
    return tmp_path


@pytest.fixture
def api(root):
    """Give the engine's API."""
    return Api(root)


@pytest.fixture
def files(api):
    """Give the files of a container."""
    return ContainerFiles(SimpleNamespace(client=SimpleNamespace(api=api)), "c")


def digest(path):
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("count", [2, 40])
def test_states(count, files, api, root):
    """Few files are asked for one by one; of many, what holds them all is read once. What is gone meanwhile has none."""
    names = [f"m{number}.py" for number in range(count)]
    paths = [f"/opt/venv/site/{name}" for name in names] + ["/opt/venv/site/link", "/opt/venv/site", "/opt/venv/gone"]
    states = files.states(paths)
    assert states["/opt/venv/site/m1.py"] == FileState("file", 0o600, 1000, 0, digest(root / "opt/venv/site/m1.py"))
    assert states["/opt/venv/site/link"][::4] == ("link", "m0.py")
    assert states["/opt/venv/site"].kind == "directory"
    assert set(states) == set(paths) - {"/opt/venv/gone"}
    assert (len(api.asked) == len(paths)) is (count == 2)


def test_a_file_with_two_names(files, root):
    """Is a file under both, also where an archive has it only once."""
    states = files.states([f"/opt/venv/site/m{number}.py" for number in range(40)] + ["/opt/venv/site/second.py"])
    assert states["/opt/venv/site/second.py"].digest == states["/opt/venv/site/m0.py"].digest == digest(root / "opt/venv/site/m0.py")


def test_contents(files, root):
    """Of regular files; of a directory all of them."""
    assert files.contents(["/opt/venv/site/m2.py", "/opt/venv/site/link"]) == {"/opt/venv/site/m2.py": (root / "opt/venv/site/m2.py").read_bytes()}
    assert files.text("/opt/venv/gone") is None
    assert len(files.below("/opt/venv/site")) == 41


@pytest.mark.parametrize(("change", "lies"), [({}, "/opt/cuda"), ({"cusparselt": reading.ADDED}, SITE)])
def test_files_of_a_new_package(change, lies, api, root):
    """Lie behind the image's link, if there is one: else pip has made a directory of that name."""
    info = root / SITE[1:] / "nvidia_cusparselt_cu12-0.6.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: nvidia-cusparselt-cu12\nVersion: 0.6.2\n")
    (info / "RECORD").write_text("cusparselt/lib/l.so,,\nnvidia/x.so,,\n")
    changes = {f"{SITE}/{path}": kind for path, kind in ({info.name: reading.ADDED} | change).items()}
    subject = SimpleNamespace(id="c")
    _, brought = reading._Reader(SimpleNamespace(client=SimpleNamespace(api=api)), subject, changes).read(Contents(), [])
    files = {path for path in brought if path.endswith(".so")}
    assert files == {f"{lies}/cusparselt/lib/l.so", "/opt/cuda/nvidia/x.so"}


def engine(container=None, image=None, error=None):
    """Return an engine that knows one container and one image."""

    def inspect_container(name):
        if error:
            raise error
        if container is None:
            raise docker.errors.NotFound("no such container")
        return container

    api = SimpleNamespace(inspect_container=inspect_container, inspect_image=lambda identity: image)
    return SimpleNamespace(client=SimpleNamespace(api=api), image_id=lambda reference: image and reference)


HERE = {"Id": "c" * 64, "Name": "/desk", "Image": "sha256:a", "Config": {"Image": "debian:13"}}


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (engine(), NoContainerError, "has no container desk"),
        (engine(error=docker.errors.NullResource("Resource ID was not provided")), NoContainerError, "has no container desk"),
        (engine(HERE), NoImageError, "has no image sha256:a"),
        (engine(HERE, {"Config": {}}), ForeignContainerError, "is of debian:13, which is no image of ours"),
        (engine(error=docker.errors.APIError("locked", response=None, explanation="it is locked")), EngineError, "it is locked"),
        (engine(error=docker.errors.DockerException("gone")), EngineError, "does not answer any more"),
    ],
)
def test_what_cannot_be_looked_at(given, kind, says):
    """Each is an error of its own, in two lines."""
    with pytest.raises(kind, match=says) as caught:
        reading.drift(given, "desk")
    assert type(caught.value) is kind
    assert caught.value.fix


@pytest.mark.parametrize(
    ("path", "changes", "is_within"),
    [
        ("/home/dev/env/lib/x", {"/home/dev/env/pyvenv.cfg": 1}, True),
        ("/opt/conda/lib/x", {"/opt/conda/conda-meta": 1}, True),
        ("/opt/venv/lib/x", {"/opt/venv/pyvenv.cfg": 0}, False),
        ("/home/dev/.local/lib/x", {}, False),
    ],
)
def test_packages_of_other_environments(path, changes, is_within):
    """Are not the image's, which has one of its own."""
    assert reading._is_within_environment(path, changes) is is_within
