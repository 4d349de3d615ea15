"""2.13-cpu in a team's registry, with TLS, passwords and signatures, in both channels: a node that has seen nothing and the engine pull it by every tag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain

import msgspec
import pytest

from tests import nodes, programs, registries, released, teams
from tests.built import CPU, cell_of
from torchstrata.attestations import signing
from torchstrata.attestations.documents import KINDS, RECORD
from torchstrata.commands import signatures
from torchstrata.commands.release_options import AttestOptions
from torchstrata.matrix import matrix
from torchstrata.release import channels
from torchstrata.store.store import Store
from torchstrata.verification import evidence

pytestmark = pytest.mark.usefixtures("own_turn")

MATRIX = matrix.load()
CELL = cell_of(CPU)
IMAGES = channels.images(MATRIX, CELL)
LOGIN = {"username": registries.NAME, "password": registries.PASSWORD}


@pytest.fixture(scope="module")
def team(builds, tmp_path_factory):
    """Give a team, and work for it: this process as well as what it starts, in the content store that builds have filled."""
    store = str(Store.open().root)
    with programs.alone(tmp_path_factory, "") as patch, teams.team(tmp_path_factory.mktemp("team")) as made:
        for name, value in {**made.environment, "TORCHSTRATA_CACHE": store}.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture(scope="module")
def pushed(team) -> Mapping[str, str]:
    """Push the cell as people do, signed; return the digests by image."""
    team.run("inv", "push", CPU)
    known = team.tags()
    return {image: known[tag] for image, tag in channels.pushed(MATRIX, CELL, known).items()}


@pytest.fixture(scope="module")
def tags(team, pushed, tmp_path_factory) -> Mapping[str, str]:
    """Take the cell into every channel, as if its tests had passed; return the digests by tag."""
    results = tmp_path_factory.mktemp("results")
    for image, digest in pushed.items():
        flavour = image if image in MATRIX.flavours else MATRIX.all_in_one
        tested = msgspec.json.decode(released.result(digest, flavour=flavour), type=evidence.Evidence)
        evidence.write(tested, evidence.folder(results, CPU, image))
        signatures.attest(AttestOptions(image=f"{team.repository}@{digest}"), results)
    team.promote(CPU, "it is a test")
    return team.tags()


@pytest.fixture(scope="module")
def node(team, tmp_path_factory):
    """Run a fresh node."""
    with nodes.node(tmp_path_factory.mktemp("node") / "n", authority=team.authority, passwords=True) as running:
        yield running


def test_the_registry_has_all_images_under_all_names(pushed, tags):
    """Dated tags, and those that ``channels:`` promises for the cell."""
    assert set(pushed) == set(IMAGES)
    moving = chain.from_iterable(channels.moving(MATRIX, channel, CELL).items() for channel in MATRIX.channels.values())
    promised = {tag: pushed[image] for tag, image in moving}
    dated = {tag: pushed[image] for image, tag in channels.pushed(MATRIX, CELL, tags).items()}
    assert tags == promised | dated


def test_a_fresh_node_pulls_by_every_tag(team, node, tags):
    """What it gets has the digest that was pushed; no blob is fetched twice, and a name for what is there costs nothing; it can be unpacked."""
    fetched = {tag: node.fetch(f"{team.repository}:{tag}").fetched for tag in tags}
    assert {tag: node.digest(f"{team.repository}:{tag}") for tag in tags} == tags
    assert sum(fetched.values()) == sum(_blobs(team.served, set(tags.values())).values())
    assert sum(1 for each in fetched.values() if each) == len(IMAGES)
    assert node.pull(f"{team.repository}:{CPU}-base").fetched == 0


def _blobs(served: registries.Served, digests: set[str]) -> dict[str, int]:
    """Return the size of every blob that images consist of, by digest, as the registry's disk says."""
    wanted = set(digests)
    for digest in digests:
        document = json.loads(served.blob(digest).read_bytes())
        wanted |= {each["digest"] for each in (document["config"], *document["layers"])}
    return {digest: served.blob(digest).stat().st_size for digest in wanted}


@pytest.fixture
def pulled(client, team, tags):
    """Pull by every tag with the engine; return what each names there, and leave none of these names."""
    found = {tag: client.images.pull(team.repository, tag, auth_config=LOGIN) for tag in tags}
    yield found
    for tag in tags:
        client.images.remove(f"{team.repository}:{tag}", noprune=True)


def test_the_engine_pulls_by_every_tag(client, team, pushed, tags, pulled):
    """It gets what was pushed, which is what was built here."""
    unlike = [tag for tag, image in pulled.items() if f"{team.repository}@{tags[tag]}" not in image.attrs["RepoDigests"]]
    assert unlike == []
    tag_of = {image: f"{CPU}-{image}" if image in MATRIX.flavours else image for image in pushed}
    built = {digest: client.images.get(f"{MATRIX.name}:{tag_of[image]}").id for image, digest in pushed.items()}
    assert {tag: image.id for tag, image in pulled.items()} == {tag: built[digest] for tag, digest in tags.items()}


@pytest.mark.parametrize("image", IMAGES)
def test_cosign_and_oras_read_what_belongs_to_an_image(team, pushed, tags, image, tmp_path):
    """The signature is about this digest, every document is found, and the record in it says the same digest."""
    subject, trust = f"{team.repository}@{pushed[image]}", ("--ca-file", team.authority.certificate)
    key = ("--key", team.public_key, "--insecure-ignore-tlog=true", "--registry-cacert", team.authority.certificate)
    claims = json.loads(team.run("cosign", "verify", *key, "--output=json", subject))
    assert {claim["critical"]["image"]["docker-manifest-digest"] for claim in claims} == {pushed[image]}
    shown = json.loads(team.run("oras", "discover", *trust, "--format", "json", subject))
    listed = {each["artifactType"]: each["digest"] for each in shown.get("manifests") or shown["referrers"]}
    assert set(listed) == {*(kind.media_type for kind in KINDS), signing.BUNDLE}
    team.run("oras", "pull", *trust, "--output", tmp_path, f"{team.repository}@{listed[RECORD.media_type]}")
    assert json.loads((tmp_path / RECORD.file).read_text())["digest"] == pushed[image]


def test_everything_holds(team, tags):
    """The verb says so of what a researcher would pull."""
    assert "everything holds" in team.run("inv", "verify-release", f"{team.repository}:v2.13")
