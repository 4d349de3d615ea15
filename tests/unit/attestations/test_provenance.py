"""Provenance in the words of SLSA: who built, from what."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.released import compose, record_of
from torchstrata.attestations import provenance
from torchstrata.store.store import Store

ACTIONS = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "team/images",
    "GITHUB_WORKFLOW_REF": "team/images/.github/workflows/nightly.yml@refs/heads/main",
    "GITHUB_RUN_ID": "17",
    "GITHUB_RUN_ATTEMPT": "2",
}


@pytest.fixture(scope="module")
def image_record(tmp_path_factory):
    """Return the record of a small image."""
    path = tmp_path_factory.mktemp("image")
    store = Store(path / "store")
    return record_of(compose(store, path / "wheels"), store)


def test_the_statement_is_about_the_image(image_record):
    """It is an in-toto statement of version 1 with SLSA's predicate."""
    statement = json.loads(provenance.statement(image_record, {}))
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    assert statement["subject"] == [{"name": image_record.name, "digest": {"sha256": image_record.digest.removeprefix("sha256:")}}]
    assert statement["predicate"] == provenance.predicate(image_record, {})


def test_every_wheel_is_a_dependency_with_its_hash(image_record):
    """So is every OS package, with its version."""
    dependencies = provenance.predicate(image_record, {})["buildDefinition"]["resolvedDependencies"]
    hashes = {dependency["uri"]: dependency["digest"]["sha256"] for dependency in dependencies if dependency.get("uri", "").startswith("pkg:pypi/")}
    assert hashes == {f"pkg:pypi/{wheel.name}@{wheel.version}": wheel.sha256 for wheel in image_record.wheels}
    assert {dependency["name"] for dependency in dependencies if dependency.get("uri", "").startswith("pkg:deb/")} == {
        package.name for package in image_record.packages
    }


def test_the_commit_is_a_dependency(image_record):
    """Where it was not clean, that is said."""
    source = msgspec.structs.replace(image_record.source, revision="ab" * 20 + "-dirty", repository="https://forge.example/team/images")
    first = provenance.predicate(msgspec.structs.replace(image_record, source=source), {})["buildDefinition"]["resolvedDependencies"][0]
    assert first == {
        "name": "source",
        "uri": "git+https://forge.example/team/images",
        "digest": {"gitCommit": "ab" * 20},
        "annotations": {"changed": "files differed from the commit"},
    }


@pytest.mark.parametrize(
    ("os_image", "uri"), [("mmdebstrap trixie abc", "urn:torchstrata:os:debian13"), ("registry.example/os@sha256:" + "1" * 64, "docker://registry.example/os")]
)
def test_the_os_image_is_a_dependency(image_record, os_image, uri):
    """By digest if it came from a registry, else by how it was made."""
    other = msgspec.structs.replace(image_record, inputs=msgspec.structs.replace(image_record.inputs, os_image=os_image))
    second = provenance.predicate(other, {})["buildDefinition"]["resolvedDependencies"][1]
    assert (second["uri"], "digest" in second) == (uri, "@" in os_image)


def test_the_builder_is_a_workflow_or_nobody(image_record):
    """In GitHub Actions the run is told as well; elsewhere a variable alone does not make a machine one of GitHub's."""
    details = provenance.predicate(image_record, ACTIONS)["runDetails"]
    assert details["builder"]["id"] == "https://github.com/team/images/.github/workflows/nightly.yml@refs/heads/main"
    assert details["metadata"] == {"invocationId": "https://github.com/team/images/actions/runs/17/attempts/2"}
    details = provenance.predicate(image_record, {"GITHUB_WORKFLOW_REF": "x", "HOSTNAME": "my-machine"})["runDetails"]
    assert details["builder"]["id"] == provenance.BY_HAND
    assert "my-machine" not in json.dumps(details)
