"""Evidence that need not be made again: of the same image, by the same tests, which still are the required ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Final

from torchstrata import platforms
from torchstrata.errors import EvidenceError
from torchstrata.image.compose import sha256
from torchstrata.matrix.matrix import ROOT
from torchstrata.verification import evidence, required, scope
from torchstrata.verification.evidence import Evidence
from torchstrata.verification.expectation import Expectation
from torchstrata.verification.scope import Scope
from torchstrata.verification.subject import Subject

SHARED: Final = ("*.py", "sizes.json", "probes/*.py", "clients/*", "gpu/*.py")
"""Files of what belongs to no flavour, which the tests of all may use."""
OTHER: Final = frozenset({"__pycache__", "required"})
"""Folders among a flavour's tests that decide nothing, or are held against evidence by themselves."""
PACKAGE: Final = "torchstrata"


def tests_digest(expected: Expectation) -> str:
    """Return the digest of all that decides how the tests of an image end, besides the image.

    That is their files and those that they share, the modules of this package that these import, directly or not, and
    what the image must be.
    """
    files = sorted(_tests(expected))
    contents = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (*files, *_modules(files))}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    document = json.dumps({"files": hashes, "expected": _values(expected)}, sort_keys=True)
    return sha256(document.encode())


def _tests(expected: Expectation) -> Iterator[Path]:
    for pattern in SHARED:
        yield from (ROOT / required.COMMON).glob(pattern)
    for flavour in expected.lineage:
        yield from (path for path in (ROOT / "images" / flavour / "tests").rglob("*") if path.is_file() and not OTHER & set(path.parts))


def _modules(files: list[Path]) -> list[Path]:
    """Return the files of this package's modules that ``files`` import."""
    finder = ModuleFinder([str(ROOT)], excludes=["tests"])  # whose files are known, and which is no package
    for path in files:
        if path.suffix == ".py":
            finder.run_script(str(path))
    files_of_modules = (vars(module)["__file__"] for name, module in finder.modules.items() if name.partition(".")[0] == PACKAGE)
    return list(map(Path, files_of_modules))


def _values(expected: Expectation) -> list[str]:
    """Return what the image must be, by matrix, facts and locks."""
    packages = sorted(expected.locked_os_packages.items())  # those that are there: the image tells, in its labels
    return list(map(repr, (expected.cell, expected.facts, expected.labels, expected.versions, packages)))


def find(subject: Subject, wanted: Scope, results: Path) -> Evidence | None:
    """Return evidence that makes a verification in the ``wanted`` scope needless; ``None`` if there is none."""
    if subject.image is None:
        return None  # what a machine is may have changed
    digest = tests_digest(subject.expected)
    for known in ("full", wanted):
        path = evidence.folder(results, f"{subject.cell}{platforms.suffix(subject.platform)}", subject.flavour, known) / evidence.NAME
        if (known_evidence := _read(path)) and _serves(known_evidence, subject, digest):
            return known_evidence
    return None


def _read(path: Path) -> Evidence | None:
    try:
        return evidence.read(path)
    except EvidenceError:
        return None  # there is none, or it is damaged: then the tests run


def _serves(known_evidence: Evidence, subject: Subject, digest: str) -> bool:
    if known_evidence.image is None or subject.image is None or known_evidence.scope == "chosen" or not known_evidence.holds:
        return False
    lists = {tier: wanted.digest for tier, wanted in scope.lists(subject, known_evidence.scope).items()}
    is_same_image = _digests(known_evidence) == _digests(subject)
    return is_same_image and known_evidence.tests_digest == digest and lists.items() <= known_evidence.required.items()


def _digests(tested: Evidence | Subject) -> tuple[str, set[str]]:
    return tested.image.digest if tested.image else "", {image.digest for image in tested.also}
