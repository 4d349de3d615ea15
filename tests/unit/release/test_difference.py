"""What differs between two images, from their records."""

from __future__ import annotations

import msgspec
import pytest

from tests import records
from tests.records import digest, layer, package, wheel
from torchstrata.attestations.record import SourceRepository
from torchstrata.release import difference

OLD = msgspec.structs.replace(
    records.RECORD,
    digest=digest("a"),
    inputs=msgspec.structs.replace(records.RECORD.inputs, os_lock_date="2026-11-01"),
    source=SourceRepository(revision="1" * 40),
    layers=(layer(digest("1"), 2_900_000_000), layer(digest("2"), 100_000_000)),
    wheels=(wheel("numpy", "2.1.0"), wheel("pillow", "11.0"), wheel("torch", "2.8.0")),
    packages=(package("bash", "5.2"), package("libssl3t64", "3.5.1-1+deb13u1", "openssl"), package("openssl", "3.5.1-1+deb13u1")),
)


NEW = msgspec.structs.replace(
    OLD,
    digest=digest("c"),
    size=3_012_000_000,
    source=SourceRepository(revision="2" * 40),
    inputs=msgspec.structs.replace(OLD.inputs, os_lock_date="2026-11-24"),
    layers=(layer(digest("1"), 2_900_000_000), layer(digest("3"), 112_000_000)),
    wheels=(wheel("numpy", "2.2.0"), wheel("torch", "2.8.0"), wheel("uv", "0.9")),
    packages=(package("curl", "8.14"), package("libssl3t64", "3.5.1-1+deb13u2", "openssl"), package("openssl", "3.5.1-1+deb13u2")),
)
FOUND = difference.of(OLD, NEW)


def rows(changes):
    """Return changes as tuples."""
    return [(change.name, change.old, change.new, change.is_fix) for change in changes]


def test_an_image_does_not_differ_from_itself():
    """And nothing of it must be pulled."""
    same = difference.of(OLD, OLD)
    assert (same.facts, same.python, same.os, same.pull) == ((), (), (), 0)


def test_facts_that_differ():
    """Only those: torch and CUDA are the same here."""
    assert [change.name for change in FOUND.facts] == ["commit", "OS lock of"]


def test_python_packages_that_differ():
    """Moved, gone and new."""
    assert rows(FOUND.python) == [("numpy", "2.1.0", "2.2.0", False), ("pillow", "11.0", None, False), ("uv", None, "0.9", False)]


def test_fixes_of_the_distribution_are_marked():
    """Two packages of one source are one fix; what is new or gone is none."""
    assert [change.name for change in FOUND.os if change.is_fix] == ["libssl3t64", "openssl"]
    assert FOUND.fixes == 1
    assert [change.name for change in FOUND.os if not change.is_fix] == ["bash", "curl"]


def test_another_os_is_no_fix():
    """Versions of two releases cannot be compared so."""
    other = msgspec.structs.replace(NEW, os=msgspec.structs.replace(NEW.os, id="debian12"))
    assert difference.of(OLD, other).fixes == 0


def test_bytes_to_pull_are_those_of_new_layers():
    """The layer that both have is not fetched again."""
    assert FOUND.pull == 112_000_000
    assert difference.summary(FOUND).startswith("3.0 GB to 3.0 GB (+12 MB), of it 112 MB to pull; 3 Python packages, 4 OS packages differ, fixes in 1 sources")


@pytest.mark.parametrize("line", ["| openssl | `3.5.1-1+deb13u1` | `3.5.1-1+deb13u2` | fix |", "| pillow | `11.0` |  | gone |", "| uv |  | `0.9` | new |"])
def test_markdown_has_the_same_rows(line):
    """For release notes and pull requests."""
    assert line in difference.markdown(FOUND).splitlines()


ARM_OLD, ARM_NEW = (msgspec.structs.replace(each, platform="linux/arm64", digest=digest(mark)) for each, mark in ((OLD, "d"), (NEW, "e")))


def test_each_platform_of_an_index_is_compared_with_itself():
    """Not with the other one, of which every layer differs."""
    found, only = difference.of_platforms({"linux/arm64": ARM_OLD, "linux/amd64": OLD}, {"linux/amd64": NEW, "linux/arm64": ARM_NEW})
    assert (found, only) == ((difference.of(OLD, NEW), difference.of(ARM_OLD, ARM_NEW)), ())


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [((OLD, ARM_OLD), (NEW,), f"linux/arm64: gone, {digest('d')}"), ((OLD,), (NEW, ARM_NEW), f"linux/arm64: new, {digest('e')}")],
)
def test_a_platform_that_only_one_side_has_is_named(old, new, line):
    """With its digest; the other platform is compared."""
    found, only = difference.of_platforms(*({each.platform: each for each in side} for side in (old, new)))
    assert found == (difference.of(OLD, NEW),)
    assert difference.platform_lines(only) == [line]


def test_two_images_are_compared_whatever_they_are_for():
    """Somebody has named these two; that the platform differs is among the facts."""
    ((found,), only) = difference.of_platforms({"linux/amd64": OLD}, {"linux/arm64": ARM_NEW})
    assert ("platform", "linux/amd64", "linux/arm64") in [(each.name, each.old, each.new) for each in found.facts]
    assert only == ()
