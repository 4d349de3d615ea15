"""Images of a registry in the engine, as the night verifies them: there by digest, and gone afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys

import docker.errors
import pytest

from tests import registries
from tests.tars import packed
from torchstrata.building import engine as engines
from torchstrata.errors import EngineError
from torchstrata.matrix import matrix
from torchstrata.nightly import pushed_images

LOCAL = "torchstrata-pushed-test"
NAME = f"{LOCAL}:2.13-cpu-base"


@pytest.fixture(scope="module")
def client():
    """Return the engine; nothing of these tests stays in it."""
    client = engines.connect().client
    yield client
    for each in client.images.list(name=LOCAL):
        client.images.remove(each.id, force=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Run a registry."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def image(client, tag, content):
    """Import an image of one file under a local tag."""
    client.api.import_image_from_data(packed({"file": content}), repository=LOCAL, tag=tag)
    return client.images.get(f"{LOCAL}:{tag}")


@pytest.fixture(scope="module")
def digest(client, served):
    """Return the digest of an image that only the registry has."""
    made = image(client, "made", b"of the registry")
    made.tag(f"{served.host}/{LOCAL}", "1")
    client.images.push(f"{served.host}/{LOCAL}", tag="1")
    client.images.remove(f"{served.host}/{LOCAL}:1")
    client.images.remove(f"{LOCAL}:made")
    return served.tags(LOCAL)["1"]


def names(client):
    """Return all names in the engine that have to do with these tests."""
    return {name for name in engines.names(client) if LOCAL in name or f"{pushed_images.KEPT}-{os.getpid()}" in name}


def test_an_image_is_there_under_its_name_and_gone_afterwards(client, served, digest):
    """Nothing else has its name."""
    before = names(client)
    with pushed_images._present(client, f"{served.host}/{LOCAL}", {NAME: digest}):
        assert f"{LOCAL}@{digest}" in "".join(client.images.get(NAME).attrs["RepoDigests"])
    assert names(client) == before
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get(NAME)


@pytest.mark.parametrize("ends", [contextlib.nullcontext(), pytest.raises(KeyboardInterrupt)], ids=["well", "by Ctrl-C"])
def test_an_image_that_had_the_name_gets_it_back(client, served, digest, ends):
    """However the verification ends."""
    mine = image(client, NAME.rpartition(":")[2], b"of a developer").id
    before = names(client)
    with ends, pushed_images._present(client, f"{served.host}/{LOCAL}", {NAME: digest}):
        assert client.images.get(NAME).id != mine
        if not isinstance(ends, contextlib.nullcontext):
            raise KeyboardInterrupt
    assert client.images.get(NAME).id == mine
    assert names(client) == before


def test_what_a_killed_verification_has_left_is_put_back(client, monkeypatch):
    """By the next one: the developer's image has its name again."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True, text=True).stdout.strip()
    monkeypatch.setattr(matrix, "load", functools.partial(_named, matrix.load()))
    mine, kept = image(client, "theirs", b"of somebody"), f"{pushed_images.KEPT}-{ended}:2.13-cpu-devel"
    mine.tag(kept)
    pushed_images.sweep(client)
    assert client.images.get(f"{LOCAL}:2.13-cpu-devel").id == mine.id
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get(kept)


def _named(table):
    return dataclasses.replace(table, name=LOCAL)


def test_an_image_that_cannot_be_pulled_is_named(client, served):
    """By the digest that the registry lacks."""
    absent = "sha256:" + "0" * 64
    with pytest.raises(EngineError, match=f"cannot pull .*{absent}"), pushed_images._present(client, f"{served.host}/{LOCAL}", {f"{LOCAL}:x": absent}):
        pass
