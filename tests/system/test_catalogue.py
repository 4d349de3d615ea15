"""``inv catalogue`` as people run it: about a registry with signed images and a ledger, and about the engine."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from tests import programs, registries, released, signed
from tests.signed import CELL, REPOSITORY, SigningTeam, push
from torchstrata.attestations import documents
from torchstrata.attestations.documents import Published
from torchstrata.catalogue import feed
from torchstrata.host.filesystem import CACHE_VARIABLE
from torchstrata.registry.registry import Attachment, Registry
from torchstrata.store.store import Store

STORE = Store.open().root
"""Where images are built from here; programs of these tests have a home of their own."""


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory, builds):
    """Let programs find cosign, and this process's settings be those of the test alone; what is built is built before, in the user's store."""
    assert builds
    with programs.alone(tmp_path_factory, "") as patch:
        yield patch


@pytest.fixture(scope="module")
def team(tmp_path_factory, environment):
    """Give a registry in which a channel took two releases and went back."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        made = SigningTeam.at(served.host, tmp_path_factory.mktemp("team"))
        for mark in (1, 2):
            push(made, mark)
            for channel, words in (("nightly", ()), ("stable", ("--no-soak", "the test waits for nobody"))):
                done = made.promote(channel, *words, "--yes")
                assert done.returncode == 0, done.stderr
        back = ("release.rollback", "2.13-cpu", "--channel", "stable", "--ledger", f"{made.ledger}#ledger", "--why", "it is broken", "--yes")
        assert made.inv(*back).returncode == 0
        yield made


def catalogue(team, output, *words, keys=True):
    """Write a catalogue; return what was said, and what programs read of it."""
    done = team.inv("catalogue", "--output", output, *words, keys=keys)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((output / "catalogue.json").read_text())


@pytest.mark.quick
def test_a_registry_becomes_a_catalogue(team, tmp_path):
    """All images with their tags, signatures that were checked, results, and what channels hold: here what it went back to."""
    said, found = catalogue(team, tmp_path / "site")
    names = {*signed.MATRIX.flavours, "v2.13"}
    assert f"{2 * len(names)} images" in said
    assert "signatures checked (cosign.pub)" in said
    assert found["checked"] == "cosign.pub"
    assert found["unread"] == {}
    images = {(image["image"], image["tags"][0]): image for image in found["images"]}
    assert len(images) == 2 * len(names)
    assert all(set(image["findings"].values()) == {"holds"} for image in images.values())
    assert all(image["verification"] == "verified" and image["signed"] for image in images.values())
    stable = [image for image in found["images"] if "stable" in image["channels"]]
    assert all(any(tag.endswith("20261124.1") for tag in image["tags"]) for image in stable)
    assert {image["image"] for image in stable} == names
    assert all(image["newest"] for image in stable)
    (cell,) = [cell for cell in found["cells"] if cell["state"] == "images"]
    assert cell["cell"] == CELL.id


def test_the_feed_tells_of_releases_and_the_rollback(team, tmp_path):
    """The newest first, with the reason."""
    catalogue(team, tmp_path / "site", "--address", "https://team.example/images")
    entries = ET.parse(tmp_path / "site" / "feed.atom").getroot().findall(f"{{{feed.ATOM}}}entry")
    assert [entry.find(f"{{{feed.ATOM}}}category").get("term") for entry in entries] == ["rollback", "promote", "publish", "promote", "publish"]
    assert "it is broken" in entries[0].findtext(f"{{{feed.ATOM}}}content")
    assert entries[0].find(f"{{{feed.ATOM}}}link").get("href").startswith("https://team.example/images/images/")


def test_without_a_key_nothing_is_checked_and_the_catalogue_says_so(team, tmp_path):
    """On the page, in JSON and on the terminal."""
    said, found = catalogue(team, tmp_path / "site", keys=False)
    assert "no signature was checked" in said
    assert found["checked"] is None
    assert "Nobody has checked signatures" in (tmp_path / "site" / "index.html").read_text()


def test_a_forged_result_is_named(team, tmp_path):
    """Somebody who may push attaches a result of tests of another image, and a record that is none."""
    with Registry(team.host) as registry:
        tag = next(tag for tag in registry.tags(REPOSITORY) if tag.endswith("-base-20261124.1"))
        image = registry.find(REPOSITORY, tag)
        kinds = ((documents.VERIFICATION, released.result(f"sha256:{'0' * 64}")), (documents.RECORD, b'{"schema": "</script>"}'))
        forged = [
            registry.attach(REPOSITORY, image.digest, kind.media_type, [Attachment(content=content, media_type=kind.media_type, title=kind.file)])
            for kind, content in kinds
        ]
        assert Published(registry=registry, repository=REPOSITORY, name="x", manifest=registry.manifest(REPOSITORY, image.digest).body).referrers()
    try:
        said, found = catalogue(team, tmp_path / "site")
    finally:
        with Registry(team.host) as registry:
            for referrer in forged:
                registry.delete(REPOSITORY, referrer.digest)
    (shown,) = [one for one in found["images"] if one["digest"] == image.digest]
    assert len(shown["problems"]) == 2
    assert shown["verification"] == "unknown"
    assert "is about another image" in said
    assert {part for part, says in shown["findings"].items() if says != "holds"} == {"record", "verification"}


def test_a_registry_that_has_nothing_is_an_error(team, tmp_path):
    """In two lines, with a directory that is not made."""
    done = team.inv("catalogue", "--output", tmp_path / "site", "--registry", f"{team.host}/nobody")
    assert done.returncode == 33
    assert "has no image that can be shown" in done.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.quick
def test_the_engine_becomes_a_catalogue(team, cpu_base, tmp_path, monkeypatch):
    """With the record of what was built here: packages, layers and sizes; there is nothing to pull."""
    monkeypatch.setenv(CACHE_VARIABLE, str(STORE))
    said, found = catalogue(team, tmp_path / "site", "--engine")
    (image,) = [one for one in found["images"] if one["digest"] == cpu_base.attributes["Id"]]
    assert image["cell"] == CELL.id
    assert found["repository"] is None
    assert "Docker" in said
    page = (tmp_path / "site" / image["page"]).read_text()
    assert "numpy" in page
    assert "nothing to pull" in page
