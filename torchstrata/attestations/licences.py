"""Words for licences as SPDX expressions (https://spdx.dev/ids, SPDX 2.3 annex D), for SBOMs.

Only words that name one licence are translated. All others keep their words, under a ``LicenseRef-`` of their own: an
SBOM must not say more than the package does.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from cyclonedx import spdx

from torchstrata.store.inventory import PythonPackage

NOTHING: Final = frozenset({"", "unknown", "none", "license", "see license", "custom", "ad-hoc"})
"""Words that say nothing."""

PYTHON_WORDS: Final[Mapping[str, str]] = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "lgplv3": "LGPL-3.0-only",
    "mit license": "MIT",
    "the mit license": "MIT",
    "psfl": "PSF-2.0",
}
"""What people write into the field ``License``, in small letters."""

CLASSIFIERS: Final[Mapping[str, str]] = {
    "Apache Software License": "Apache-2.0",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
"""Last part of the classifiers that name one licence; "BSD License" is several."""

DEBIAN_WORDS: Final[Mapping[str, str]] = {
    "expat": "MIT",
    "mit/x11": "MIT",
    "cc0": "CC0-1.0",
    "apache-2": "Apache-2.0",
    "artistic-2": "Artistic-2.0",
    "bsl-1": "BSL-1.0",
    "bsd-2": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-4": "BSD-4-Clause",
    "psf-2": "PSF-2.0",
    "openldap-2.8": "OLDAP-2.8",
}
"""Short names of DEP-5 (section "License specification") and of Debian that SPDX spells otherwise, in small letters."""

GNU: Final = re.compile(r"(AGPL|LGPL|GPL|GFDL(?:-NIV)?)-(\d)(?:\.(\d))?(\+)?", re.IGNORECASE)
INVARIANT: Final = {"GFDL-NIV": "-no-invariants"}

REFERENCE: Final = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")

LENGTH: Final = 60
"""Characters of a reference's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """An SPDX expression, and the words that its ``LicenseRef-`` names stand for; an empty one says nothing."""

    expression: str = ""
    words: Mapping[str, str] = field(default_factory=dict)


def of_python(package: PythonPackage) -> Licence:
    """Return the licence of a wheel: its expression, else its words, else all of its classifiers."""
    if is_expression(package.expression):
        return _with_references(package.expression)
    identifier = _known(package.license, PYTHON_WORDS)
    if identifier:
        return Licence(expression=identifier)
    if is_expression(package.license):
        return _with_references(package.license)
    classified = [classifier.rpartition(" :: ")[2] for classifier in package.classifiers]
    if classified and all(classifier in CLASSIFIERS for classifier in classified):
        return _joined(" AND ", [Licence(expression=CLASSIFIERS[classifier]) for classifier in classified])
    words = package.expression or (package.license if _is_name(package.license) else "") or " and ".join(classified)
    return _reference("Python", words)


def of_debian(names: Iterable[str]) -> Licence:
    """Return the licence of a Debian package: all that its copyright file names."""
    return _joined(" AND ", list(chain.from_iterable(map(_terms, names))))


def _terms(name: str) -> list[Licence]:
    """Return a short name's terms; "and" binds more than "or", a comma before either less (DEP-5, section "Syntax")."""
    groups = re.split(r",\s+and\s+", name)
    if len(groups) > 1:
        return list(chain.from_iterable(map(_terms, groups)))
    choices = re.split(r"\s+or\s+", name, flags=re.IGNORECASE)
    if len(choices) > 1:
        return [_joined(" OR ", [_joined(" AND ", _terms(choice)) for choice in choices])]
    return [_debian(part) for part in re.split(r"\s+and\s+", name, flags=re.IGNORECASE)]


def _debian(name: str) -> Licence:
    identifier = _known(name, DEBIAN_WORDS) or _gnu(name)
    return Licence(expression=identifier) if identifier else _reference("Debian", name)


def _gnu(name: str) -> str:
    """Return the SPDX id of a GNU licence, such as ``GPL-2.0-or-later`` for ``GPL-2+``; nothing for others."""
    match = GNU.fullmatch(name)
    if not match:
        return ""
    family = match[1].upper()
    base = f"{family.removesuffix('-NIV')}-{match[2]}.{match[3] or 0}{INVARIANT.get(family, '')}"
    return spdx.fixup_id(f"{base}-{'or-later' if match[4] else 'only'}") or ""


def _known(words: str, table: Mapping[str, str]) -> str:
    """Return the SPDX id that words name; nothing if they name none, or one that says too little or is out of use."""
    identifier = table.get(words.strip().lower()) or spdx.fixup_id(words.strip()) or ""
    return "" if GNU.fullmatch(identifier) else identifier


def _is_name(words: str) -> bool:
    """Return whether words name a licence, rather than begin its text."""
    return words.lower() not in NOTHING and not re.match(r"copyright|licen[sc]e agreement|this |permission |redistribution ", words, re.IGNORECASE)


@functools.cache
def is_expression(words: str) -> bool:
    """Return whether words are an SPDX expression whose licences exist or are references."""
    return bool(words) and spdx.is_expression(REFERENCE.sub("MIT", words))


def _with_references(expression: str) -> Licence:
    names = REFERENCE.findall(expression)
    return Licence(expression=expression, words={name: name.removeprefix("LicenseRef-") for name in names})


def _reference(kind: str, words: str) -> Licence:
    words = words.strip()
    if words.lower() in NOTHING:
        return Licence()
    name = re.sub(r"[^A-Za-z0-9.]+", "-", words.replace("+", " or later ")).strip("-.")
    if len(name) > LENGTH or not name:
        name = f"{name[: LENGTH - 9]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    reference = f"LicenseRef-{kind}-{name}"
    return Licence(expression=reference, words={reference: words})


def _joined(operator: str, licences: list[Licence]) -> Licence:
    """Join expressions that say something, each once."""
    expressions = list(dict.fromkeys(licence.expression for licence in licences if licence.expression))
    if len(expressions) > 1:
        expressions = [f"({one})" if re.search(r"\s(AND|OR)\s", one) else one for one in expressions]
    words: dict[str, str] = {}
    for licence in licences:
        words |= licence.words
    return Licence(expression=operator.join(expressions), words=words)
