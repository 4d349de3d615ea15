"""Evidence that an image was verified: ``results/<cell>/<flavour>/verify.json``, tied to the image's digest.

It is written once, at the end: a run that is cut off leaves none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from torchstrata import decoding, files
from torchstrata.errors import EvidenceError
from torchstrata.host.filesystem import whole
from torchstrata.locks import os_locks
from torchstrata.matrix.matrix import ROOT
from torchstrata.platforms import MACHINES, PLATFORM
from torchstrata.text import printable

FORMAT: Final = 1
LIMIT: Final = 64_000_000
"""Bytes of a file with evidence."""

RESULTS: Final = ROOT / "results"
NAME: Final = "verify.json"

Scope = Literal["full", "quick", "chosen"]
"""Which tests ran: all, those of a quick verification, or those that somebody has chosen, which prove nothing."""

Outcome = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "error"]


class EngineImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image as an engine knows it.

    :param reference: the name or digest that was given.
    :param digest: the engine's ID: of the manifest in the containerd store, of the config in the classic one.
    :param manifest: ``None`` where the engine cannot tell.
    :param config: ``None`` where the engine cannot tell.
    """

    reference: str
    digest: str
    manifest: str | None
    config: str | None


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine that containers ran on.

    :param engine: version of the engine, ``None`` where there was none.
    :param machine: its kind, as ``uname -m`` says it; older evidence is of the default platform's.
    """

    kernel: str
    engine: str | None
    cpus: int
    machine: str = MACHINES[PLATFORM]


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The GPUs that the tests saw.

    :param name: of the first.
    :param driver: version of the driver.
    """

    name: str
    driver: str
    count: int


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One case of a test and how it ended.

    :param id: as pytest names it.
    :param tier: that it belongs to.
    :param section: flavour and what it applies to, such as ``base cuda``.
    """

    id: str
    tier: str
    section: str
    outcome: Outcome
    seconds: float


class Counts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many tests were required, passed, failed in any way, and were missing."""

    required: int
    passed: int
    failed: int
    missing: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The record of one verification.

    :param image: ``None`` for a machine that is not a container.
    :param also: images of the same layers that were tested with it: the all-in-one, with its flavour.
    :param tiers: ``free``, ``gpu`` or ``host``.
    :param required: digest by tier of the list of required tests.
    :param complete: nothing was left out on purpose; a quick verification leaves out.
    :param passed: it is complete, and nothing stands against the image.
    :param problems: one line for each thing that stands against the image.
    :param not_run: one line for each test that the host is too small for, such as those of two GPUs, or that its emulator cannot run.
    :param revision: of the checkout whose tests ran.
    :param started, finished: RFC 3339 times.
    :param scope: which tests ran.
    :param tests_digest: of the tests and of all that decides how they end besides the image; empty if unknown.
    :param drift: how OS packages differ from their lock, one after the other; absent where the image is as locked.
    :param platform: of the image; absent where it is the default one.
    """

    format: int
    image: EngineImage | None
    cell: str
    flavour: str
    tiers: tuple[str, ...]
    passed: bool
    complete: bool
    counts: Counts
    required: dict[str, str]
    problems: tuple[str, ...]
    not_run: tuple[str, ...]
    revision: str
    host: Host
    gpu: Gpu | None
    started: str
    finished: str
    tests: tuple[Case, ...]
    also: tuple[EngineImage, ...] = ()
    scope: Scope = "full"
    tests_digest: str = ""
    drift: tuple[str, ...] = ()
    platform: str = PLATFORM

    @property
    def holds(self) -> bool:
        """Whether the image has passed all tests of the scope."""
        return self.image is not None and self.scope != "chosen" and not self.problems and bool(self.tests)

    @property
    def state(self) -> str:
        """Whether the OS packages are as locked, in words."""
        return os_locks.state(os_locks.from_words(", ".join(self.drift)), 1)

    def is_of(self, digest: str) -> bool:
        """Return whether it is about the image with this digest, be it of the manifest or of the config."""
        tested = (self.image, *self.also) if self.image else ()
        return any(digest in {image.digest, image.manifest, image.config} for image in tested)


def folder(results: Path, cell: str, flavour: str, scope: Scope = "full") -> Path:
    """Return where the evidence for an image lies; that of a quick verification lies apart and replaces none."""
    return results / cell / (f"{flavour}-quick" if scope == "quick" else flavour)


def write(evidence: Evidence, directory: Path) -> Path:
    """Write the evidence, whole or not at all, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    with whole(directory / NAME) as file:
        file.write(msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n")
    return directory / NAME


def read(path: Path) -> Evidence:
    """Return the evidence in a file.

    :raises EvidenceError: it cannot be read, or is not evidence of this format.
    """
    try:
        return parse(files.read(path, LIMIT), str(path))
    except files.UnreadableError as error:
        raise _unreadable(str(path), error.what) from error


def parse(content: bytes, name: str) -> Evidence:
    """Return the evidence that ``content`` is.

    :param name: of the file, for people.
    :raises EvidenceError: it is no evidence of this format.
    """
    try:
        evidence = decoding.decode(content, Evidence)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unreadable(name, str(error)) from error
    if evidence.format != FORMAT:
        raise _unreadable(name, f"its format is {evidence.format}, not {FORMAT}")
    return evidence


def _unreadable(name: str, why: str) -> EvidenceError:
    return EvidenceError(f"{name} is not evidence that can be read: {printable(why)}", fix="verify the image again with `nox -s test-CELL`")


def find(digest: str, results: Path = RESULTS) -> Evidence:
    """Return the evidence that the image with ``digest`` passed a complete verification.

    :param digest: of its manifest or its config.
    :raises EvidenceError: there is none, or it says that the image did not pass.
    """
    about_it = about(digest, results)
    for evidence in about_it:
        if evidence.passed:
            return evidence
    if not about_it:
        raise EvidenceError(f"{digest} was not verified: no {NAME} in {results} is about it", fix="verify it with `nox -s test-CELL`")
    bad = next((evidence for evidence in about_it if evidence.scope != "quick"), about_it[0])
    cure = f"nox -s test-{bad.cell} runs all tests" if bad.holds else "correct the image, build it and verify it again"
    raise EvidenceError(f"{digest} did not pass its verification: {_why(bad)}", fix=cure)


def about(digest: str, results: Path = RESULTS) -> tuple[Evidence, ...]:
    """Return all evidence about the image with ``digest``, whatever it says.

    :raises EvidenceError: some of it cannot be read.
    """
    return tuple(evidence for evidence in _all(results) if evidence.is_of(digest))


def _all(results: Path) -> Iterator[Evidence]:
    for path in sorted(results.glob(f"*/*/{NAME}")):
        yield read(path)


def _why(evidence: Evidence) -> str:
    if evidence.problems:
        return evidence.problems[0]
    return "only a quick verification has run" if evidence.scope == "quick" else "it was not complete"
