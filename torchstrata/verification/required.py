"""Lists of the tests that must have run, reviewed like code: ``images/<flavour>/tests/required/<tier>.toml``.

Those of what every flavour may have, such as a GPU, are in ``tests/images/required``. A section is a flavour and what
the tests apply to: ``base`` for every image that contains it, ``base cuda`` for those with CUDA. Each test has the
number of its cases.
"""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torchstrata.errors import VerificationError
from torchstrata.image.compose import sha256
from torchstrata.matrix.matrix import ROOT
from torchstrata.verification.evidence import Case

COMMON: Final = "tests/images"
PLACES: Final = ("images", COMMON)
"""Where tests of images lie: those of each flavour in its folder, and those that belong to none."""

HEADER: Final = """\
# Tests that must have passed for an image to count as verified, with the number of their cases; by flavour and module.
# Written by `nox -s required`, for review; `base cuda` applies to images with CUDA only,
# `native` where no emulator runs the image.
"""
TOTAL: Final = "cases"
GPU: Final = "gpu"
"""What sections begin with whose tests need a GPU, whatever the flavour."""

Key = tuple[str, str, str]
"""Section, module and name of a test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Required:
    """What one tier requires.

    :param cases: number of cases by test.
    """

    tier: str
    cases: Mapping[Key, int]

    @property
    def sections(self) -> dict[str, int]:
        """Number of cases by section."""
        counts: Counter[str] = Counter()
        for (section, _, _), count in self.cases.items():
            counts[section] += count
        return dict(sorted(counts.items()))

    @property
    def digest(self) -> str:
        """Digest of its text."""
        return sha256(render(self).encode())

    def restrict(self, keep: Callable[[Key], bool]) -> Required:
        """Return what is required of the tests that ``keep`` accepts."""
        return Required(tier=self.tier, cases={key: count for key, count in self.cases.items() if keep(key)})


def key_of(test: Case) -> Key:
    """Return section, module and name of a test."""
    return key(test.section, test.id)


def key(section: str, identity: str) -> Key:
    """Return section, module and name of the test that pytest knows as ``identity``: its path, name and parameters."""
    path, _, name = identity.partition("[")[0].partition("::")
    return section, Path(path).stem, name


def sections(lineage: Iterable[str], applies: Collection[str], known: Iterable[str]) -> frozenset[str]:
    """Return those of the ``known`` sections that apply to an image.

    :param lineage: its flavour and what that contains.
    :param applies: what else it has, such as ``cuda``.
    """
    has = {*applies}
    flavours = set(lineage)
    return frozenset(section for section in known if section.split()[0] in flavours and has.issuperset(section.split()[1:]))


def problems(required: Required, tests: Collection[Case]) -> tuple[str, ...]:
    """Return one line for each required test that passed too seldom, and for each that passed and is not listed.

    :param required: restricted to the sections of the image.
    """
    return (*bad(tests), *_missing(required, tests), *_unlisted(required, tests))


def bad(tests: Iterable[Case]) -> Iterator[str]:
    """Yield one line for each test that ended in another way than it must; to be skipped is one of them."""
    yield from (f"{test.outcome}: {test.id}" for test in tests if test.outcome != "passed")


def _missing(required: Required, tests: Iterable[Case]) -> Iterator[str]:
    ran = Counter(map(key_of, tests))
    for key, count in required.cases.items():
        if ran[key] < count:
            yield f"missing: {count - ran[key]} of {count} cases of {_name(key)} did not run"


def _unlisted(required: Required, tests: Iterable[Case]) -> Iterator[str]:
    for key, count in Counter(map(key_of, tests)).items():
        more = count - required.cases.get(key, 0)
        if more > 0:
            yield f"not listed: {more} of {count} cases of {_name(key)} are not in {required.tier}.toml (`nox -s required` writes it)"


def missing(required: Required, tests: Iterable[Case]) -> int:
    """Return how many required cases did not pass."""
    passed = Counter(key_of(test) for test in tests if test.outcome == "passed")
    return sum(max(0, count - passed[key]) for key, count in required.cases.items())


def names(required: Required) -> tuple[str, ...]:
    """Return the tests as people look for them, such as ``gpu/test_nccl.py::test_group``."""
    return tuple(map(_name, sorted(required.cases)))


def _name(key: Key) -> str:
    section, module, test = key
    return f"{section.split()[0]}/{module}.py::{test}"


def read(tier: str, root: Path = ROOT) -> Required:
    """Return what a tier requires, of all flavours; an empty list if there is none yet.

    :raises VerificationError: a file cannot be understood, or its totals do not fit its lines.
    """
    lists = [_read(path, tier).cases.items() for path in sorted(_paths(tier, root))]
    return Required(tier=tier, cases=dict(itertools.chain.from_iterable(lists)))


def _paths(tier: str, root: Path) -> Iterator[Path]:
    yield from root.glob(f"images/*/tests/required/{tier}.toml")
    yield from root.glob(f"{COMMON}/required/{tier}.toml")


def _read(path: Path, tier: str) -> Required:
    fix, where = "write it anew with `nox -s required`", "/".join(path.parts[-4:])
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise VerificationError(f"{where} cannot be understood: {error}", fix=fix) from error
    totals = content.pop(TOTAL, {})
    required = Required(tier=tier, cases=dict(_cases(content)))
    if totals != required.sections:
        raise VerificationError(f"{where}: its totals do not fit its lines: {totals} and {required.sections}", fix=fix)
    return required


def _cases(content: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[tuple[Key, int]]:
    for section, modules in content.items():
        for module, tests in modules.items():
            for test, count in tests.items():
                yield (section, module, test), count


def render(required: Required) -> str:
    """Return the list as the text of its file."""
    lines = [HEADER, f"[{TOTAL}]", *(f"{_quoted(section)} = {count}" for section, count in required.sections.items())]
    last = None
    for (section, module, test), count in sorted(required.cases.items()):
        if last != (section, module):
            lines += ["", f"[{_quoted(section)}.{module}]"]
            last = (section, module)
        lines.append(f"{test} = {count}")
    return "\n".join(lines) + "\n"


def _quoted(section: str) -> str:
    return f'"{section}"' if " " in section else section


def write(required: Required, root: Path = ROOT) -> None:
    """Write the list of each flavour into its folder, and remove those that would be empty."""
    owners: dict[str, dict[Key, int]] = {}
    for key, count in required.cases.items():
        owners.setdefault(key[0].split()[0], {})[key] = count
    lists = {owner: Required(tier=required.tier, cases=cases) for owner, cases in owners.items()}
    texts = {_path(owner, required.tier, root): render(listed) for owner, listed in lists.items()}
    for path in set(_paths(required.tier, root)) - set(texts):
        path.unlink()
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _path(owner: str, tier: str, root: Path) -> Path:
    """Return where the list of a flavour lies, or that of tests which belong to none."""
    return (root / COMMON if owner == GPU else root / "images" / owner / "tests") / "required" / f"{tier}.toml"
