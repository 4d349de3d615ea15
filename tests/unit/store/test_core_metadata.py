"""Metadata of packages: what is read, and what would take too long to read."""

from __future__ import annotations

import pytest

from torchstrata.store import core_metadata


def test_fields_are_read():
    """Names are those of the specification; unknown fields are left out, and a long description is no field."""
    fields = core_metadata.parse(b"Name: x\nVersion: 1\nClassifier: A\nClassifier: B\nX-Odd: y\n\n" + b"a: b\n" * 5_000)
    assert (fields["name"], fields["version"], fields["classifiers"]) == ("x", "1", ["A", "B"])


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        (b"".join(b"X%d: y\n" % number for number in range(2_001)), "more than 2000 fields"),
        (b"".join(b"X%d: y\r\n" % number for number in range(2_001)), "more than 2000 fields"),
        ("Name: x\ncontent-TYPE:  multipart/mixed; boundary=y\n\n--y\n", "several parts"),
    ],
)
def test_what_takes_too_long_is_refused(metadata, why):
    """The parser of the standard library needs minutes for 20,000 fields."""
    with pytest.raises(ValueError, match=why):
        core_metadata.parse(metadata)
