"""Which image the words of ``inv up`` mean, and which ports."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests import joined
from tests.distribution import Distribution
from tests.endpoints import endpoints
from tests.joined import BOTH, REVISION
from torchstrata import platforms
from torchstrata.commands import up, wanted_image
from torchstrata.commands.container_options import UpOptions
from torchstrata.containers.description import ContainerDescription
from torchstrata.containers.running import OF_TAG
from torchstrata.errors import ContainerError, LauncherError, MatrixError, PlatformError, RegistryError
from torchstrata.image.runtime import WORKSPACE
from torchstrata.matrix import matrix
from torchstrata.platforms import PLATFORM
from torchstrata.registry import dated_tag
from torchstrata.registry.dated_tag import DatedTag, PushNumber
from torchstrata.registry.platform_indexes import Joiner
from torchstrata.registry.registry import Registry

TABLE = matrix.load()
NAMED = [cell for cell in TABLE.cells if cell.named and cell.is_default_os]


ARM = "linux/arm64"


def means(*words, gpu=False, platform=PLATFORM, **more):
    """Return the image that words mean."""
    return wanted_image.wanted(TABLE, UpOptions(cells=words, platform=platform, **more), gpu=gpu)


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch):
    monkeypatch.delenv("TORCHSTRATA_REGISTRY", raising=False)


@pytest.mark.parametrize("cell", TABLE.cells, ids=lambda cell: cell.id)
@pytest.mark.parametrize("flavour", TABLE.flavours)
def test_a_cell_and_its_tag_are_the_same_image(cell, flavour):
    """By each name that the cell has, and as ``inv doctor`` and ``docker images`` write it."""
    for name in cell.names:
        by_cell, by_tag = means(name, flavour=flavour), means(f"{name}-{flavour}")
        assert by_cell == by_tag == means(f"{TABLE.name}:{name}-{flavour}")
        assert (by_cell.local, by_cell.cell, by_cell.flavour) == (f"{TABLE.name}:{name}-{flavour}", cell, flavour)


@pytest.mark.parametrize("cell", NAMED, ids=lambda cell: cell.id)
def test_all_in_one_is_a_tag(cell):
    """It is built with the flavour whose layers it has."""
    found = means(cell.all_in_one)
    assert (found.tag, found.cell, found.flavour) == (cell.all_in_one, cell, TABLE.all_in_one)


@pytest.mark.parametrize("gpu", [True, False])
def test_nothing_means_the_newest_for_the_machine(gpu):
    """With CUDA where there is a GPU, without it where there is none."""
    cell = means(gpu=gpu).cell
    assert bool(cell.facts.cuda_version) == gpu
    assert not [each for each in NAMED if bool(each.facts.cuda_version) == gpu and each.release > cell.release]


def test_registry_says_where_the_image_is_pulled_from():
    """Below its path, under the same tag."""
    cell = NAMED[0].names[0]
    found = means(cell, registry="registry.example:5000/team")
    assert found.names == (found.local, f"registry.example:5000/team/{TABLE.name}:{cell}-{TABLE.all_in_one}")
    assert means(cell).names == (found.local,)


def test_tag_of_nobody_here_may_be_in_a_registry():
    """Dated tags and channels are not in the matrix; without a registry such a word is a mistake."""
    found = means("nightly-v2.8", registry="registry.example/team")
    assert (found.remote, found.cell) == (f"registry.example/team/{TABLE.name}:nightly-v2.8", None)
    with pytest.raises(MatrixError, match="no cell and no tag"):
        means("nightly-v2.8")


@pytest.mark.parametrize("word", ["2.15-cu132", "2.15-cu132-ssh", "2.15-cu132-ssh-arm64", "v2.15", None])
def test_images_of_another_platform(word):
    """They have names of their own in an engine, and the same in a registry; nothing means the newest that there is for it."""
    found = means(*filter(None, [word]), platform=ARM, registry="registry.example", gpu=True)
    tag = "v2.15" if word == "v2.15" else "2.15-cu132-ssh"
    assert found.names == (f"{TABLE.name}:{tag}-arm64", f"registry.example/{TABLE.name}:{tag}")
    assert (found.cell.platform, found.build) == (ARM, f"nox -s build-2.15-cu132 -- --platform {ARM}")


def test_no_platform_is_no_default():
    """An empty variable in a script does not mean this machine."""
    with pytest.raises(PlatformError, match="'' is no platform of images"):
        means("2.15-cu132", platform="")


@pytest.mark.parametrize(
    ("cell", "platform", "push"),
    [
        ("2.13-cpu", PLATFORM, "inv push 2.13-cpu"),
        ("2.15-cu132", ARM, f"inv push 2.15-cu132 --platform {ARM}, and inv join 2.15-cu132 once all platforms are"),
        ("nightly-v2.8", PLATFORM, ""),
    ],
)
def test_what_pushes_it(cell, platform, push):
    """A row of several platforms has an index, which is made of what was pushed; an image of no cell has no such verb."""
    assert means(cell, platform=platform, registry="registry.example").push == push


def test_registry_has_an_image_for_each_platform(monkeypatch, tmp_path):
    """One tag stands for all: the image of the platform is named by its own digest, and one that is not there is refused."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (cell,) = matrix.select(TABLE, "2.15-cu132")
    with Distribution(api=True).serve() as served, Registry(served.host) as client:
        for platform in BOTH:
            joined.push(client, f"team/{TABLE.name}", TABLE, cell, "devel", platform, "one")
        joiner = Joiner(registry=client, repository=f"team/{TABLE.name}")
        index = joiner.find(cell, "devel", dict.fromkeys(BOTH, REVISION))
        joiner.put(index, joiner.tag(cell, "devel", index), "2.15-cu132-devel")
        asked = {"flavour": "devel", "registry": f"{served.host}/team"}
        found = {platform: wanted_image.in_registry(means("2.15-cu132", platform=platform, **asked)) for platform in BOTH}
        assert {image.usual.platform: image.identity for image in found.values()} == {each.platform: each.digest for each in index.images}
        assert all(image.usual.image == f"{served.host}/team/{TABLE.name}:2.15-cu132-devel@{image.identity}" for image in found.values())
        alone = str(DatedTag(stem=dated_tag.stem(cell, "devel", PLATFORM), push=PushNumber(day="20261124", number=1)))
        with pytest.raises(PlatformError, match="is not there for linux/arm64"):
            wanted_image.in_registry(means(alone, platform=ARM, registry=asked["registry"]))


@pytest.mark.parametrize(("word", "platform"), [("2.8-cu121", ARM), ("2.8-cu121-ssh", ARM), ("2.15-cu132", "linux/riscv64"), ("nightly-v2.15", "arm64")])
def test_platform_that_has_no_such_image(word, platform):
    """The row is not offered on it, or it is none."""
    with pytest.raises(PlatformError) as refused:
        means(word, platform=platform, registry="registry.example")
    assert refused.value.fix


def test_without_words_the_platform_is_this_machines(monkeypatch):
    """As an engine there would choose."""
    monkeypatch.setattr(platforms.platform, "machine", lambda: "aarch64")
    assert means("2.15-cu132", platform=None).local.endswith("-arm64")


def test_platform_is_that_of_an_image_by_its_name_here(monkeypatch):
    """So that the command that a container's verbs name goes on with it, whatever this machine is."""
    monkeypatch.setattr(platforms.platform, "machine", lambda: "x86_64")
    found = means("2.15-cu132-ssh-arm64", platform=None)
    assert (found.platform, found.local, found.cell.platform) == (ARM, f"{TABLE.name}:2.15-cu132-ssh-arm64", ARM)


@pytest.mark.parametrize(
    ("words", "more"),
    [(("a", "b"), {}), (("no/tag",), {"registry": "registry.example"}), ((), {"flavour": "none"}), (("v2.8",), {"flavour": "ssh", "registry": "r.example"})],
)
def test_words_that_mean_no_image(words, more):
    """Two of them, what can be no tag, a flavour that is not there, a flavour of a tag."""
    with pytest.raises(MatrixError):
        means(*words, **more)


def test_registry_that_is_none():
    """It is told as everywhere."""
    with pytest.raises(RegistryError):
        means(registry="not a registry")


def test_ports_by_service():
    """As they are written."""
    assert up.ports(UpOptions(port=("jupyter=8890", "ssh=65535"))) == {"jupyter": 8890, "ssh": 65535}


@pytest.mark.parametrize(
    "words",
    [
        *((word,) for word in ("jupyter", "jupyter=", "jupyter=0", "jupyter=65536", "jupyter=-1", "=8890x", "8890", f"jupyter={'9' * 5000}")),
        ("jupyter=8888", "ssh=8888"),
        ("jupyter=1", "jupyter=2"),
    ],
)
def test_words_that_are_no_ports(words):
    """A cure shows how. Of ports that are given twice an engine would refuse one, or one would be lost."""
    with pytest.raises(ContainerError) as refused:
        up.ports(UpOptions(port=words))
    assert "--port" in refused.value.fix


@pytest.mark.parametrize("word", ["8890", "jupyter=", "jupyter=x=8890"])
def test_a_word_that_is_no_port_is_named_as_it_was_given(word):
    """With an equals sign only where somebody has written one."""
    with pytest.raises(ContainerError) as refused:
        up.ports(UpOptions(port=(word,)))
    assert refused.value.what == f"--port {word} is no service and port"


def test_files_are_written_all_or_none(tmp_path):
    """Nothing of a set is there where one of its names is somebody's."""
    (tmp_path / "b").write_text("mine")
    with pytest.raises(LauncherError, match="is there already"):
        up._save({"a": "a", "b": "b"}, tmp_path)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["file", "long" * 100])
def test_directory_that_cannot_be_written(name, tmp_path):
    """It is said, with another way."""
    (tmp_path / "file").touch()
    with pytest.raises(LauncherError, match="cannot be written") as refused:
        up._save({"a": "a"}, tmp_path / name)
    assert "--output" in refused.value.fix


@pytest.mark.parametrize("answer", ["", "n\n", "\n"])
def test_image_is_not_built_where_nobody_agrees(answer, monkeypatch):
    """Nor where input ends, as by Ctrl-D at the question."""
    asked = io.StringIO(answer)
    monkeypatch.setattr(asked, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", asked)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert wanted_image._agrees("Build it here?") is False


def test_one_file_is_all_that_is_printed(capsys):
    """So that it can be piped."""
    up._save({"a": "text\n"}, None)
    assert capsys.readouterr().out == "text\n"


@pytest.mark.parametrize(("given", "address"), [(None, None), ("localhost", "127.0.0.1"), ("::1", "::1"), ("0.0.0.0", "0.0.0.0")])
def test_addresses_as_engines_read_them(given, address):
    """In numbers, whatever was given."""
    assert up._listens(UpOptions(listen=given)) == address


@pytest.mark.parametrize(
    ("read", "given", "what"),
    [
        *((up._listens, {"listen": address}, "is no address") for address in ("nohost", "300.1.1.1", "")),
        (up._shm, {"shm": 0.0}, "--shm 0 leaves no shared memory"),
    ],
)
def test_what_no_container_could_have_is_refused(read, given, what):
    """Before a file has it: an address that is none, or one megabyte of shared memory, in which torch does not work."""
    with pytest.raises(ContainerError, match=what) as refused:
        read(UpOptions(**given))
    assert f"--{next(iter(given))}" in refused.value.fix


@pytest.mark.parametrize(("asked", "size"), [(None, None), (8.0, 8 << 30), (0.5, 512 << 20), (0.0001, 1 << 20)])
def test_size_of_shared_memory(asked, size):
    """In gigabytes; a megabyte is the least."""
    assert up._shm(UpOptions(shm=asked)) == size


def test_ssh_without_a_key_has_no_port_and_no_entry():
    """The image has an SSH server, which is off: the cure is a key."""
    described = ContainerDescription(image="x", name="x", title="x", endpoints=endpoints("ssh"))
    with pytest.raises(ContainerError, match="SSH is off") as refused:
        up._check_ssh(described, is_asked=True)
    assert "ssh-keygen" in refused.value.fix
    assert up._check_ssh(described, is_asked=False) is None
    assert up._check_ssh(replace(described, authorized_keys=("ssh-ed25519 AAAA",)), is_asked=True) is None


@pytest.mark.parametrize("keys", [(), ("ssh-ed25519 AAAA",)])
def test_who_has_no_key_is_told_the_command_that_lets_one_in(keys):
    """For this container: without its words inv up would make another."""
    described = ContainerDescription(image="x", name="desk", title="x", endpoints=endpoints("ssh"), authorized_keys=keys)
    image = SimpleNamespace(describe=lambda: described)
    mounts = [{"Destination": WORKSPACE, "Source": "/data"}]
    container = SimpleNamespace(name="desk", labels={OF_TAG: "pytorch-cuda:v2.8"}, attrs={"Mounts": mounts, "HostConfig": {}})
    (*_, told) = up._notes(image, described, container)
    assert told.startswith("no SSH: ")
    assert "inv up v2.8 --name desk --workspace /data --replace" in told


@pytest.mark.parametrize("told", [(), ("QEMU 7.2 is old",)])
def test_container_of_another_platform_says_what_its_emulator_cannot(told, monkeypatch):
    """What is known of the emulator of the container's own platform is a line of its own; else there is none."""
    asked = []
    monkeypatch.setattr(up.emulator, "concern", lambda platform: asked.append(platform) or next(iter(told), None))
    described = ContainerDescription(image="x", name="desk", title="x", platform=ARM)
    container = SimpleNamespace(name="desk", labels={}, attrs={"Mounts": [], "HostConfig": {}})
    (*first, _) = up._notes(SimpleNamespace(describe=lambda: described), described, container)
    assert tuple(first) == told
    assert asked == [ARM]


@pytest.mark.parametrize("asked", [{"ssh_key": True}, {"ssh_entry": True}])
def test_ssh_is_not_asked_of_an_image_without_it(asked, tmp_path):
    """A key that lets nobody in, and an entry that leads nowhere, would be left out in silence."""
    key = tmp_path / "key.pub"
    key.write_text("ssh-ed25519 AAAA ada\n")
    options = UpOptions(**({"ssh_key": key} if "ssh_key" in asked else asked))
    image = SimpleNamespace(name="pytorch-cuda:2.13-cpu-base", describe=lambda **_: ContainerDescription(image="x", name="x", title="x"))
    with pytest.raises(ContainerError, match="cpu-base has no SSH server") as refused:
        up._described(image, options)
    assert "--flavour ssh" in refused.value.fix


def test_default_os_may_be_named():
    """A build gives it no name with the OS in it, but the image is the same."""
    cell = NAMED[0]
    full, short = (means(name, flavour="base") for name in (cell.id, cell.short))
    assert full.others == (short.local,)
    assert short.others == (full.local,)
    assert means(cell.all_in_one).others == ()
