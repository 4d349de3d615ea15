# ruff: noqa: PLR0913, PLR0917  # fixtures are arguments
"""2.13-cpu in a team's registry, with TLS, passwords and signatures, in both channels: a node that has seen nothing and the engine pull it by every tag."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from tests import nodes, programs, registries, released
from tests.built import CPU, cell_of
from tests.checkout import Checkout
from tests.registries import Authority
from tests.system import test_release_verbs as days
from torchstrata.cells import matrix
from torchstrata.content.store import Store
from torchstrata.publishing import publishing
from torchstrata.releases import channels
from torchstrata.supplychain import signing
from torchstrata.supplychain.documents import KINDS, RECORD
from torchstrata.verification import evidence

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("containerd") is None, reason="needs root and containerd (nox -s engine)")

MATRIX = matrix.load()
CELL = cell_of(CPU)
IMAGES = channels.images(MATRIX, CELL)
REPOSITORY = days.REPOSITORY
LOGIN = {"username": registries.NAME, "password": registries.PASSWORD}


@pytest.fixture(scope="module")
def environment(builds, tmp_path_factory):
    """Let programs find cosign and the content store, and have no other home."""
    store = str(Store.open().root)
    with programs.alone(tmp_path_factory, "") as patch:
        patch.setenv("TORCHSTRATA_CACHE", store)
        yield patch


@pytest.fixture(scope="module")
def authority(environment, tmp_path_factory):
    """Make the team's authority, known to this process and what it starts; nodes are told."""
    made = Authority.make(tmp_path_factory.mktemp("authority"))
    environment.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
    return made


@pytest.fixture(scope="module")
def served(authority, tmp_path_factory):
    """Run the team's registry."""
    with registries.registry(tmp_path_factory.mktemp("registry"), authority=authority, passwords=True) as running:
        registries.login(Path(os.environ["DOCKER_CONFIG"]), running.host)
        yield running


@pytest.fixture(scope="module")
def team(served, tmp_path_factory):
    """Give the team a key pair and a ledger."""
    keys, ledger = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("ledger")
    subprocess.run(["cosign", "generate-key-pair"], cwd=keys, check=True, capture_output=True)
    subprocess.run(["git", "init", "--quiet", "--bare", ledger], check=True)
    return days.Team(served.host, ledger, keys / "cosign.key")


@pytest.fixture(scope="module")
def pushed(team, served) -> Mapping[str, str]:
    """Push the cell as people do, signed; return the digests by image."""
    settings = {signing.KEY: str(team.key), "TORCHSTRATA_REGISTRY": f"{team.host}/team"}
    ended = Checkout(env=settings).run("nox", "--session", f"push-{CPU}")
    assert ended.status == 0, ended.output
    tags = channels.pushed(MATRIX, CELL, served.tags(REPOSITORY))
    return {image: served.tags(REPOSITORY)[tag] for image, tag in tags.items()}


@pytest.fixture(scope="module")
def tags(team, served, pushed, tmp_path_factory) -> Mapping[str, str]:
    """Take the cell into both channels, as if its tests had passed; return the digests by tag, the dated ones first."""
    results = tmp_path_factory.mktemp("results")
    for image, digest in pushed.items():
        flavour = image if image in MATRIX.flavours else list(MATRIX.flavours)[-1]
        tested = msgspec.json.decode(released.result(digest, flavour=flavour), type=evidence.Evidence)
        evidence.write(tested, evidence.folder(results, CPU, image))
        publishing.attest(f"{team.host}/{REPOSITORY}@{digest}", str(team.key), results)
    for channel, *words in (["nightly"], ["stable", "--no-soak", "it is a test"]):
        moved = team.promote(channel, *words, "--yes")
        assert moved.returncode == 0, moved.stderr
    known = served.tags(REPOSITORY)
    return {tag: known[tag] for tag in sorted(known) if not tag.startswith("sha256-") and tag != "ledger"}


@pytest.fixture(scope="module")
def node(authority, tmp_path_factory):
    """Run a fresh node."""
    with nodes.node(tmp_path_factory.mktemp("node") / "n", authority=authority, passwords=True) as running:
        yield running


def program(name: str, *words: str | Path) -> str:
    """Run an independent reader that knows nothing of ours; return what it prints."""
    done = subprocess.run([name, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_registry_has_all_images_under_all_names(pushed, tags):
    """Dated tags, and those that ``channels:`` promises for the cell."""
    assert set(pushed) == set(IMAGES)
    promised = {tag: pushed[image] for channel in MATRIX.channels.values() for tag, image in channels.moving(MATRIX, channel, CELL).items()}
    dated = {tag: pushed[image] for image, tag in channels.pushed(MATRIX, CELL, tags).items()}
    assert tags == promised | dated


def test_a_fresh_node_pulls_by_every_tag(served, node, tags):
    """What it unpacks has the digest that was pushed; no blob is fetched twice, and a name for what is there costs nothing."""
    fetched = {tag: node.pull(f"{served.host}/{REPOSITORY}:{tag}").fetched for tag in tags}
    assert {tag: node.digest(f"{served.host}/{REPOSITORY}:{tag}") for tag in tags} == tags
    assert sum(fetched.values()) == sum(_blobs(served, set(tags.values())).values())
    assert sum(1 for each in fetched.values() if each) == len(IMAGES)


def _blobs(served: registries.Served, digests: set[str]) -> dict[str, int]:
    """Return the size of every blob that images consist of, by digest, as the registry's disk says."""
    wanted = set(digests)
    for digest in digests:
        document = json.loads(served.blob(digest).read_bytes())
        wanted |= {each["digest"] for each in (document["config"], *document["layers"])}
    return {digest: served.blob(digest).stat().st_size for digest in wanted}


@pytest.fixture
def pulled(client, served, tags):
    """Pull by every tag with the engine; return what each names there, and leave none of these names."""
    repository = f"{served.host}/{REPOSITORY}"
    found = {tag: client.images.pull(repository, tag, auth_config=LOGIN) for tag in tags}
    yield found
    for tag in tags:
        client.images.remove(f"{repository}:{tag}", noprune=True)


def test_the_engine_pulls_by_every_tag(client, served, pushed, tags, pulled):
    """It gets what was pushed, which is what was built here."""
    unlike = [tag for tag, image in pulled.items() if f"{served.host}/{REPOSITORY}@{tags[tag]}" not in image.attrs["RepoDigests"]]
    assert unlike == []
    built = {digest: client.images.get(f"{MATRIX.name}:{image if image.startswith('v') else f'{CPU}-{image}'}").id for image, digest in pushed.items()}
    assert {tag: image.id for tag, image in pulled.items()} == {tag: built[digest] for tag, digest in tags.items()}


@pytest.mark.parametrize("image", IMAGES)
def test_cosign_and_oras_read_what_belongs_to_an_image(team, authority, pushed, tags, image, tmp_path):
    """The signature is about this digest, every document is found, and the record in it says the same digest."""
    subject, trust = f"{team.host}/{REPOSITORY}@{pushed[image]}", ("--ca-file", authority.certificate)
    key = ("--key", team.key.with_suffix(".pub"), "--insecure-ignore-tlog=true", "--registry-cacert", authority.certificate)
    claims = json.loads(program("cosign", "verify", *key, "--output=json", subject))
    assert {claim["critical"]["image"]["docker-manifest-digest"] for claim in claims} == {pushed[image]}
    shown = json.loads(program("oras", "discover", *trust, "--format", "json", subject))
    listed = {each["artifactType"]: each["digest"] for each in shown.get("manifests") or shown["referrers"]}
    assert set(listed) == {*(kind.media_type for kind in KINDS), signing.BUNDLE}
    program("oras", "pull", *trust, "--output", tmp_path, f"{team.host}/{REPOSITORY}@{listed[RECORD.media_type]}")
    assert json.loads((tmp_path / RECORD.file).read_text())["digest"] == pushed[image]


def test_everything_holds(team, tags):
    """The verb says so of what a researcher would pull."""
    checked = team.inv("verify-release", f"{team.host}/{REPOSITORY}:v2.13")
    assert checked.returncode == 0, checked.stderr
