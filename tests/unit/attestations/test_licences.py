"""Words for licences as SPDX expressions: what names one licence is translated, all else keeps its words."""

from __future__ import annotations

import pytest

from torchstrata.attestations import licences
from torchstrata.store.inventory import PythonPackage

BSD = "License :: OSI Approved :: BSD License"
MIT = "License :: OSI Approved :: MIT License"


def python(**fields):
    """Return the expression of a wheel that says this."""
    return licences.of_python(PythonPackage(name="x", version="1", **fields)).expression


@pytest.mark.parametrize(
    ("fields", "expression"),
    [
        ({"expression": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
        ({"expression": "MIT OR Apache-2.0", "license": "GPL"}, "MIT OR Apache-2.0"),
        ({"license": "Apache 2.0"}, "Apache-2.0"),
        ({"license": "MPL-2.0", "classifiers": (BSD,)}, "MPL-2.0"),
        ({"license": "BSD-3-Clause AND MIT"}, "BSD-3-Clause AND MIT"),
        ({"license": "UNKNOWN", "classifiers": (MIT,)}, "MIT"),
        ({"license": "Copyright (c) 2015, somebody", "classifiers": (MIT,)}, "MIT"),
        ({"classifiers": (MIT, "License :: OSI Approved :: Apache Software License")}, "MIT AND Apache-2.0"),
        ({"classifiers": (BSD,)}, "LicenseRef-Python-BSD-License"),
        ({"license": "BSD"}, "LicenseRef-Python-BSD"),
        ({"license": "LicenseRef-NVIDIA-Proprietary"}, "LicenseRef-NVIDIA-Proprietary"),
        ({"license": "GPL-2.0"}, "GPL-2.0"),
        ({}, ""),
    ],
)
def test_wheels(fields, expression):
    """The expression counts most, then the words, then the classifiers; what several licences are called stays a word."""
    assert python(**fields) == expression


@pytest.mark.parametrize(
    ("names", "expression"),
    [
        (("Expat",), "MIT"),
        (("GPL-2+",), "GPL-2.0-or-later"),
        (("LGPL-2.1",), "LGPL-2.1-only"),
        (("GFDL-NIV-1.3+",), "GFDL-1.3-no-invariants-or-later"),
        (("GPL-1+ or Artistic-2",), "GPL-1.0-or-later OR Artistic-2.0"),
        (("GPL-1+ or Artistic-2, and Expat",), "(GPL-1.0-or-later OR Artistic-2.0) AND MIT"),
        (("GPL-2+ and Expat", "Expat"), "GPL-2.0-or-later AND MIT"),
        (("Expat or GPL-2 and ISC",), "MIT OR (GPL-2.0-only AND ISC)"),
        (("GPL",), "LicenseRef-Debian-GPL"),
        (
            ("GPL-2+ with X exception", "GPL-2 with X exception"),
            "LicenseRef-Debian-GPL-2-or-later-with-X-exception AND LicenseRef-Debian-GPL-2-with-X-exception",
        ),
        ((), ""),
    ],
)
def test_debian(names, expression):
    """DEP-5's "and" binds more than "or", and less after a comma; exceptions are not lost."""
    assert licences.of_debian(names).expression == expression


def test_references_keep_their_words():
    """Whoever reads a reference finds what the package said."""
    licence = licences.of_debian(["Expat", "public-domain", "x" * 200])
    assert licence.words["LicenseRef-Debian-public-domain"] == "public-domain"
    assert set(licence.words.values()) == {"public-domain", "x" * 200}
    assert max(map(len, licence.words)) < 80


@pytest.mark.parametrize(
    ("words", "is_one"),
    [("MIT", True), ("MIT OR LicenseRef-x", True), ("GPL-2.0-only WITH Classpath-exception-2.0", True), ("BSD", False), ("MIT or so", False), ("", False)],
)
def test_expressions_are_recognized(words, is_one):
    """Only licences of SPDX's list, and references, make an expression."""
    assert licences.is_expression(words) is is_one
