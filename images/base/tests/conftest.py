"""What tests of the base flavour share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.images.wheel import make_wheel
from torchstrata.verification.expectation import Expectation


@pytest.fixture(scope="session")
def shared_objects(probe: Callable[..., Any]) -> Any:
    """What the loader says of every shared object."""
    return probe("shared_objects")


@pytest.fixture(scope="session")
def torch_facts(probe: Callable[..., Any]) -> Any:
    """What torch says of itself."""
    return probe("torch_facts")


@pytest.fixture(scope="session")
def locked_cuda(expected: Expectation) -> Callable[[str], str]:
    """Return the locked version of a part of CUDA, such as ``cudnn``; its package is named after the CUDA, or not."""

    def version(part: str) -> str:
        major = str(expected.facts.cuda_version).partition(".")[0]
        return next(expected.versions[name] for name in (f"nvidia-{part}-cu{major}", f"nvidia-{part}") if name in expected.versions)

    return version


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two versions of a package."""
    directory = tmp_path_factory.mktemp("wheels")
    for version in ("1", "2"):
        make_wheel(directory, name="probe", version=version)
    return directory
