"""The record of an image: everything that it was made from, the same bytes each time."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.parts import CELL
from tests.released import compose, record_of
from torchstrata.attestations import materials, record
from torchstrata.errors import UntrustedError
from torchstrata.locks import os_locks
from torchstrata.store.store import Store


@pytest.fixture
def composed(store, tmp_path):
    """Return an image."""
    return compose(store, tmp_path / "wheels")


@pytest.fixture
def image_record(composed, store):
    """Return its record."""
    return record_of(composed, store)


def test_the_record_names_the_image_and_its_config(image_record, composed):
    """Both digests are those of the manifest and of the config in it."""
    manifest = json.loads(composed.image.manifest)
    assert (image_record.digest, image_record.config) == (composed.image.digest, manifest["config"]["digest"])
    assert (image_record.cell, image_record.flavour, image_record.user, image_record.os.suite) == (CELL.id, "base", "1000:0", "trixie")


def test_layers_are_the_manifests_with_what_they_were_made_as(image_record, composed):
    """Every layer has the identity of its part; the facts layer is the image's own."""
    manifest, config = json.loads(composed.image.manifest), json.loads(composed.image.config)
    assert [layer.digest for layer in image_record.layers] == [layer["digest"] for layer in manifest["layers"]]
    assert [layer.diff_id for layer in image_record.layers] == config["rootfs"]["diff_ids"]
    assert [layer.part for layer in image_record.layers] == [*(item.identity for item in composed.plan.items), ""]
    assert [layer.origin for layer in image_record.layers] == ["payload", "os", "facts"]
    assert image_record.size == sum(layer["size"] for layer in manifest["layers"])


def test_wheels_are_the_locks(image_record, composed):
    """Name, version, file and hash are what the lock pins; licences come from the wheels."""
    assert [(wheel.name, wheel.sha256) for wheel in image_record.wheels] == [(pin.name, pin.sha256) for pin in composed.plan.lock.pins]
    assert {wheel.name: wheel.licence for wheel in image_record.wheels} == {
        "torch": "BSD-3-Clause",
        "nvidia-thing": "LicenseRef-NVIDIA-Proprietary",
        "odd": "LicenseRef-Python-Whatever-you-like",
    }
    assert image_record.licences["LicenseRef-Python-Whatever-you-like"] == "Whatever you like"


def test_what_is_not_as_locked_is_on_record(store, tmp_path, image_record):
    """As the image says it; nothing is said of an image as locked, so that its record stays what it was."""
    drifted = compose(store, tmp_path / "others", drift="libexample1 1.0-1 -> 1.0-2+b1")
    assert record_of(drifted, store).inputs.drift == ("libexample1 1.0-1 -> 1.0-2+b1",)
    assert b"drift" not in image_record.encode()


def test_os_packages_are_dpkgs(image_record):
    """Versions are those that are in the image, whatever was locked."""
    assert {package.name: (package.version, package.licence) for package in image_record.packages} == {
        "example-doc": ("1.0-2", "LicenseRef-Debian-refers-to-GPL-3"),
        "libexample1": ("1.0-2+b1", "(GPL-2.0-or-later OR LicenseRef-Debian-Artistic) AND MIT"),
    }


def test_inputs_are_the_digests_of_the_locks(image_record, composed):
    """The label of the image says the same of its lock."""
    labels = json.loads(composed.image.config)["config"]["Labels"]
    assert image_record.inputs.lock == labels["torchstrata.lock"]
    assert image_record.inputs.os_lock == os_locks.read(CELL.os).digest(("base",))
    assert image_record.inputs.os_image.startswith("mmdebstrap trixie ")
    assert image_record.source.revision == labels["org.opencontainers.image.revision"]


def test_torch_facts_are_the_cells(image_record):
    """What a host needs is in the record."""
    assert (image_record.torch.cuda, image_record.torch.asked_cuda, image_record.torch.driver_floor) == ("12.8", "12.1", CELL.facts.driver_floor)
    assert image_record.torch.architectures == CELL.facts.architectures


def test_the_same_image_has_the_same_record(composed, store, tmp_path, image_record):
    """No clock, no machine: another store gives the same bytes."""
    other = Store(tmp_path / "other")
    again = record_of(compose(other, tmp_path / "again"), other)
    assert again.encode() == image_record.encode()
    assert record_of(composed, store).encode() == image_record.encode()
    assert str(tmp_path).encode() not in image_record.encode()


def test_a_record_is_read_as_it_was_written(image_record):
    """Encoding loses nothing."""
    assert record.decode(image_record.encode()) == image_record


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"schema": 1}'])
def test_what_is_no_record_is_refused(content):
    """The error says so in a line."""
    with pytest.raises(UntrustedError, match="no record"):
        record.decode(content)


def test_a_record_of_the_future_is_refused(image_record):
    """Its fields may mean something else."""
    with pytest.raises(UntrustedError, match="schema 2"):
        record.decode(msgspec.structs.replace(image_record, schema=2).encode())


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@forge.example:team/images.git", "https://forge.example/team/images"),
        ("ssh://git@forge.example:2222/team/images.git", "https://forge.example/team/images"),
        ("https://user:secret@forge.example/team/images.git", "https://forge.example/team/images"),
        ("https://forge.example:8443/team/images", "https://forge.example:8443/team/images"),
        ("/srv/git/images.git", ""),
        ("file:///srv/git/images.git", ""),
        ("../images", ""),
        ("https://forge.example:port/team/images", ""),
        ("ssh://[forge/team", ""),
    ],
)
def test_a_remote_is_named_without_users_and_machines(remote, address):
    """Credentials and paths of a machine do not get into records."""
    assert materials.web_address(remote) == address
