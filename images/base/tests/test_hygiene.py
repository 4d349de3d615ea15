"""What an image carries along: secrets and leftovers in any of its layers, rights, licences, OS packages, and its size."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import serving
from torchstrata.matrix import matrix
from torchstrata.store.store import Store
from torchstrata.verification import inspection, size_budget


@pytest.fixture(scope="session")
def inspected(image, engine):
    """All layers and the config of the image, looked at from outside."""
    return inspection.inspect(image, engine, Store.open())


@pytest.fixture(scope="session")
def system(probe):
    """The state of the OS and of compiled Python."""
    return probe("system")


@pytest.fixture(scope="session")
def licences(probe):
    """The licences of distributions and OS packages."""
    return probe("licences")


WITHOUT_LICENCE = {"cuda-toolkit": "a metapackage: it only requires others, each with a licence of its own"}
"""Distributions that say nothing of a licence, each with its reason: reviewed, by name."""


def clean(inspected, rule):
    """Fail with a line for everything that breaks the rule."""
    offences = inspected.offences(rule)
    assert not offences, f"{rule}:\n" + "\n".join(offences)


@pytest.mark.parametrize(
    "rule",
    [
        "private-key",
        "host-key",
        "authorized-keys",
        "token",
        "password",
        "git",
        "cache",
        "leftover",
        "core",
        "setuid",
        "writable",
        "device",
        "workspace",
    ],
)
def test_layers(inspected, rule):
    """No layer breaks the rule, nor the config: files that later layers remove or replace count."""
    clean(inspected, rule)


def test_bytecode(system):
    """Every compiled file is of the image's Python, has its source, and lies where packages put it."""
    assert system["bytecode"] == []


def test_os_packages_can_be_updated(system, expected):
    """The suites for security and updates are sources of apt, and nothing holds an update back; which updates are pending, the night asks."""
    suite = expected.cell.os.suite
    assert {suite, f"{suite}-security", f"{suite}-updates"} <= set(system["suites"])
    assert (system["held"], system["pins"]) == ([], [])


def test_licences_of_distributions(licences, expected, record_property):
    """Every Python distribution of the lock says what its licence is, in its metadata or in a file; the result lists them."""
    found = licences["distributions"]
    record_property("licences", json.dumps({name: said["stated"] or "see its files" for name, said in sorted(found.items())}))
    assert len(found) >= len(expected.versions)
    silent = [name for name, said in found.items() if not said["stated"] and not said["files"] and name not in WITHOUT_LICENCE]
    assert silent == [], f"no licence: {silent}"


def test_licences_of_os_packages(licences, expected, record_property):
    """Every OS package has its copyright file; the result lists the licences."""
    found = licences["packages"]
    record_property("os-licences", json.dumps(found))
    assert len(found) >= len(expected.os_packages)
    silent = [name for name, said in found.items() if said is None]
    assert silent == [], f"no copyright file: {silent}"


@pytest.mark.parametrize("user", ["image", "root"])
def test_no_process_of_root(start, expected, user):
    """Once a container has started, as the image's own user or as root, none of its processes is root's."""
    box = serving(start, expected.services, user="" if user == "image" else "0:0")
    box.until(lambda: len(processes(box)) > 1, "a process beside the init")
    assert [row for row in processes(box) if row.split()[0] == "0"] == []


def processes(box):
    """Return uid, pid, parent and command of the container's processes; what the engine runs in it, such as the probe of its health, is its own."""
    rows = box.run("ps", "-eo", "uid,pid,ppid,args", "--no-headers").out.splitlines()
    return [row for row in rows if row.split()[1] == "1" or row.split()[2] != "0"]


def test_size(inspected, expected, record_property):
    """The image weighs at most 5 % more than its budget, or its parent's where nobody has measured it; else the layers that grew are named."""
    allowed = matrix.load().budget(expected.flavour, expected.cell.weighed)
    weights = size_budget.weigh(expected.cell, (layer.weight for layer in inspected.layers))
    record_property("size", inspected.size)
    cure = f"run inv sizes {expected.cell.short} --platform {expected.cell.platform} --write"
    assert allowed, f"no size of {expected.cell.weighed} in images/{expected.flavour}/flavour.yaml: it is {inspected.size} bytes; {cure}"
    grown = "; ".join(size_budget.grown(weights, size_budget.recorded(expected.cell)))
    assert not size_budget.is_over(inspected.size, allowed), f"{inspected.size} bytes, budget {allowed}; what grew: {grown}"
