"""What this program itself needs, at exact versions with hashes: names in pyproject.toml, pins in two locks.

Plain nox and jobs that sign install ``requirements.txt``, sessions and everybody who changes the program
``requirements-dev.txt``, which contains it. Both are pip's own format, so that pip, uv and bots can read and move them.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from torchstrata import environment, process
from torchstrata.errors import LockError
from torchstrata.host import temporary
from torchstrata.locks import lockfile, pip_config, resolver
from torchstrata.matrix.matrix import ROOT

LOCKS: Final = ("requirements-dev.txt", "requirements.txt")
"""The larger one first: the other takes its versions from it."""

DEVELOPMENT: Final = "dev"
FIX: Final = "run: inv lock --tool"

HEADER: Final = """\
# Versions and hashes of what torchstrata itself needs. `inv lock --tool` writes this file from the names in pyproject.toml.
"""


def write(exclude_newer: str, root: Path = ROOT) -> list[str]:
    """Lock the newest versions of what pyproject.toml names; return the names of the files that this has changed.

    :param exclude_newer: RFC 3339 time; files uploaded later are not seen.
    :raises LockError: there is no such set of wheels; quotes the resolver.
    """
    larger, smaller = LOCKS
    with temporary.directory() as folder:
        everything = HEADER + _compile(root, exclude_newer, "--extra", DEVELOPMENT)
        constraints = Path(folder, larger)
        constraints.write_text(everything, encoding="utf-8")
        texts = {larger: everything, smaller: HEADER + _compile(root, exclude_newer, "--constraints", str(constraints))}
    return [name for name, text in texts.items() if lockfile.replaced(root / name, text)]


def _compile(root: Path, exclude_newer: str, *options: str) -> str:
    """Return what uv makes of pyproject.toml, for every Python and system that it supports."""
    oldest = _project(root)["requires-python"].removeprefix(">=")
    form = ("--universal", "--python-version", oldest, "--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate")
    config = dataclasses.replace(pip_config.read(), extra_index_urls=())  # those are for torch: whoever owns one could offer any name there
    words = ("--quiet", "--no-config", *form, f"--exclude-newer={exclude_newer}", *options, *resolver.sources(config))
    try:
        return process.run(resolver.program(), "pip", "compile", *words, "pyproject.toml", cwd=root, env=resolver.environment(config))
    except process.Failed as error:
        raise resolver.failure(error.tail, fix="loosen the dependencies in pyproject.toml") from error


def check(root: Path = ROOT) -> list[LockError]:
    """Return what does not fit together in pyproject.toml and the two locks; needs no network."""
    larger, smaller = (_versions(root / name) for name in LOCKS)
    project = _project(root)
    extra = [Requirement(line) for line in project["optional-dependencies"][DEVELOPMENT]]
    own = [Requirement(line) for line in project["dependencies"]]
    problems = [*_lacking(larger, LOCKS[0], [*own, *extra]), *_lacking(smaller, LOCKS[1], own), *_unhashed(root)]
    moved = [name for name, version in smaller.items() if larger.get(name) != version]
    problems += [f"{name} is {smaller[name]} in {LOCKS[1]}, {larger.get(name, 'missing')} in {LOCKS[0]}" for name in moved]
    return [LockError(problem, fix=FIX) for problem in problems]


def _lacking(versions: Mapping[str, str], lock: str, wanted: list[Requirement]) -> list[str]:
    """Return a line for each requirement that a lock does not fulfil."""
    locked = {requirement: versions.get(canonicalize_name(requirement.name), "") for requirement in wanted}
    return [f"{lock} has no {requirement}" for requirement, version in locked.items() if not version or version not in requirement.specifier]


def _unhashed(root: Path) -> list[str]:
    """Return a line for each package of a lock that no version or no hash pins."""
    unhashed: list[str] = []
    for name in LOCKS:
        packages = [package for package in environment.read(root / name) if not package.version or not package.hashes]
        unhashed += [f"{name}: {package.requirement} is not pinned" for package in packages]
    return unhashed


def _versions(lock: Path) -> dict[str, str]:
    return {canonicalize_name(package.requirement.name): package.version for package in environment.read(lock)}


def _project(root: Path) -> Mapping[str, Any]:
    project: Mapping[str, Any] = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return project
