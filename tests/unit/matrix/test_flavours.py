"""Flavours: what their files may say, the tree that they form, and in which words the rest is refused."""

from __future__ import annotations

from itertools import chain

import pytest

from tests import trees
from torchstrata.errors import FlavourError, MatrixError
from torchstrata.matrix import flavours, matrix

TREE = {"base": "", "devel": "base", "jupyter": "devel", "ssh": "jupyter", "vision": "jupyter", "serve": "base"}

SERVICES = "services:\n"
LAB = "  lab: {command: [/bin/lab], port: 8888, health: {http: /api}}\n"


@pytest.fixture
def root(tmp_path):
    """Give a checkout with the flavours of a tree."""
    return trees.grow(tmp_path, TREE)


def refused(root):
    """Return the error that the flavours of a checkout end in, as two lines."""
    with pytest.raises(FlavourError) as caught:
        flavours.read(root)
    assert "\n" not in caught.value.what + caught.value.fix
    assert caught.value.code == 51
    return caught.value


def test_parents_come_before_children_and_siblings_by_name(root):
    """A flavour is followed by all that contain it, before its siblings."""
    assert list(flavours.read(root)) == ["base", "devel", "jupyter", "ssh", "vision", "serve"]


def test_the_committed_tree_has_chains_and_leaves():
    """What the all-in-one contains is one lineage of it; every flavour is in that of a leaf."""
    table = matrix.load()
    assert table.with_parents("ssh") == ("base", "devel", "jupyter", "ssh")
    assert set(chain.from_iterable(table.lines)) == set(table.flavours)
    with pytest.raises(MatrixError, match="unknown flavour all") as caught:
        table.with_parents("all")
    assert all(name in caught.value.fix for name in table.flavours)


def test_services_come_parents_first(root):
    """A flavour runs what its parents run, each with the flavour that brings it and the variable of its port; siblings may share a port."""
    trees.grow(root, {"jupyter": "devel", "ssh": "jupyter", "vision": "jupyter"}, jupyter=SERVICES + LAB)
    trees.grow(root, {"vision": "jupyter"}, vision="services: {track-it: {command: [/x], port: 22, port_variable: TRACK, health: {tcp: true}}}\n")
    trees.grow(root, {"ssh": "jupyter"}, ssh="services: {ssh: {module: ssh, port: 22, health: {banner: SSH-2.0-}, starts: asked}}\n")
    trees.grow(root, {"serve": "base"}, serve="services: {web: {command: [/x], port: 80, health: {https: /}}}\n")
    found = chain.from_iterable(flavour.own_services for flavour in flavours.read(root).values())
    assert [(service.name, service.flavour, service.port, service.variable) for service in found] == [
        ("lab", "jupyter", 8888, "LAB_PORT"),
        ("ssh", "ssh", 22, "SSH_PORT"),
        ("track-it", "vision", 22, "TRACK"),
        ("web", "serve", 80, "WEB_PORT"),
    ]


def test_budgets_are_bytes(root):
    """A size is read in powers of ten; a cell that nobody has measured has none."""
    trees.grow(root, {"serve": "base"}, serve="sizes: {2.8-cu121: 3.54 GB, 2.13-cpu: 419 MB}\n")
    serve = flavours.read(root)["serve"]
    assert [serve.budget(short) for short in ("2.8-cu121", "2.13-cpu", "2.4-cu121")] == [3_540_000_000, 419_000_000, None]


WRONG = {
    "circle": ({"devel": "jupyter"}, {}, "flavours devel <- jupyter <- devel go round in a circle", "another parent"),
    "unknown parent": ({"vision": "jupiter"}, {}, "flavour vision: unknown parent jupiter", "base, devel"),
    "no parent": ({"vision": ""}, {}, "flavour vision has no parent", "parent: base"),
    "unknown key": ({"serve": "base"}, {"serve": "owner: me\n"}, "images/serve/flavour.yaml: top level: unknown key owner", "parent (optional), summary"),
    "no port": ({"serve": "base"}, {"serve": "services: {web: {command: [/x], health: {tcp: true}}}\n"}, "services.web: key port is missing", "port, "),
    "no port of one of them": (
        {"serve": "base"},
        {"serve": "services: {web: {command: [/x], port: 80, health: {tcp: true}}, 'a.b': {command: [/x], health: {tcp: true}}}\n"},
        "services.a.b: key port is missing",
        "port, ",
    ),
    "words like msgspec's": ({"serve": "base"}, {"serve": "starts: 'x - at `$.services`'\n"}, "starts", "keys are"),
    "key like msgspec's": ({"serve": "base"}, {"serve": "'a - at `$.x`': 1\n"}, "top level: unknown key a - at `$.x`", "keys are"),
    "key with a backtick": ({"serve": "base"}, {"serve": "'a`b': 1\n"}, "unknown key a`b", "keys are"),
    "health of one of them": (
        {"serve": "base"},
        {"serve": "services: {web: {command: [/x], port: 80, health: {tcp: true}}, api: {command: [/x], port: 81, health: {tcp: 1}}}\n"},
        "services.api.health.tcp: Expected `bool`, got `int`",
        "flavour.schema.json",
    ),
    "no health": ({"serve": "base"}, {"serve": "services: {web: {command: [/x], port: 80}}\n"}, "services.web: key health is missing", "health"),
    "two healths": (
        {"serve": "base"},
        {"serve": "services: {web: {command: [/x], port: 80, health: {http: /, tcp: true}}}\n"},
        "service web has not one way to tell its health",
        "health: {http: /path}",
    ),
    "health without a way": (
        {"serve": "base"},
        {"serve": "services: {web: {command: [/x], port: 80, health: {}}}\n"},
        "service web has not one way to tell its health",
        "{tcp: true}",
    ),
    "health that is none": (
        {"serve": "base"},
        {"serve": "services: {web: {command: [/x], port: 80, health: {tcp: false}}}\n"},
        "service web has not one way to tell its health",
        "{tcp: true}",
    ),
    "relative command": (
        {"serve": "base"},
        {"serve": "services: {web: {command: [x], port: 80, health: {tcp: true}}}\n"},
        "images/serve/flavour.yaml: service web begins its command with 'x'",
        "/",
    ),
    "port of 0": ({"serve": "base"}, {"serve": "services: {web: {command: [/x], port: 0, health: {tcp: true}}}\n"}, "port", "flavour.schema.json"),
    "no command": ({"serve": "base"}, {"serve": "services: {web: {port: 80, health: {tcp: true}}}\n"}, "service web has no command", "module"),
    "name of a service": (
        {"serve": "base"},
        {"serve": "services: {Web: {command: [/x], port: 80, health: {tcp: true}}}\n"},
        "service Web cannot be called that",
        "lower-case",
    ),
    "one port": (
        {"jupyter": "devel", "ssh": "jupyter"},
        {"jupyter": SERVICES + LAB, "ssh": SERVICES + LAB.replace("lab", "other")},
        "images/ssh/flavour.yaml: service other has the port 8888, which service lab of jupyter has",
        "another port",
    ),
    "one name": (
        {"jupyter": "devel", "ssh": "jupyter"},
        {"jupyter": SERVICES + LAB, "ssh": SERVICES + LAB.replace("8888", "9999")},
        "service lab has the name lab, which service lab of jupyter has",
        "another name",
    ),
    "size of what is no cell": ({"serve": "base"}, {"serve": "sizes: {torch: 3 GB}\n"}, "sizes", "flavour.schema.json"),
    "not YAML": ({"serve": "base"}, {"serve": "sizes: {\n"}, "images/serve/flavour.yaml is not YAML", "correct it"),
}


@pytest.mark.parametrize(("parents", "more", "what", "fix"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused(root, parents, more, what, fix):
    """In one line, with a line that says what is possible, and a code of its own."""
    trees.grow(root, parents, **more)
    error = refused(root)
    assert what in error.what
    assert fix in error.fix


def test_a_parent_that_is_offered_makes_no_circle(root):
    """Neither the flavour itself nor what lies above it can be its parent."""
    trees.grow(root, {"jupyter": "jupiter"})
    assert refused(root).fix == "use one of base, devel, serve"


def test_a_folder_without_its_file_is_named(root):
    """Nobody can tell what it contains; an empty one, as git leaves behind, is nothing."""
    (root / "images/gym").mkdir()
    assert "gym" not in flavours.read(root)
    (root / "images/gym/Dockerfile").write_text("FROM base\n")
    error = refused(root)
    assert error.what == "images/gym has no flavour.yaml"
    assert "write images/gym/flavour.yaml" in error.fix


@pytest.mark.parametrize("name", ["Gym", "gym_1", "1gym", "g" * 33, "gym-", "os", "below", "gpu", "cu128", "cpu-gym"])
def test_names_that_mean_something_else_are_refused(root, name):
    """In tags, build targets, locks or lists of tests."""
    trees.grow(root, {name: "base"})
    assert repr(name) in refused(root).what


def test_the_all_in_one_must_be_there_and_no_flavour_is_called_like_an_os(root):
    """The matrix says which flavour `v<torch>` means; its tags name OSes in the place of flavours."""
    text = matrix.MATRIX.read_text()
    assert matrix.of(text, root).all_in_one == "ssh"
    with pytest.raises(MatrixError, match="all_in_one: unknown flavour all"):
        matrix.of(text.replace("all_in_one: ssh", "all_in_one: all"), root)
    trees.grow(root, {"debian13-x": "base"})
    with pytest.raises(FlavourError, match="'debian13-x' cannot be a flavour's name"):
        matrix.of(text, root)
