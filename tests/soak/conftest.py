"""Options for how long to soak, and the place where verbs do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import programs
from tests.soak.site import Site


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption(
        "--rounds", type=int, default=34, metavar="N", help="run each verb so often against each kind of registry (default: 34, 204 runs altogether)"
    )
    parser.addoption("--seed", type=int, default=1, metavar="N", help="what chooses the moments at which verbs are killed (default: 1)")
    parser.addoption("--minutes", type=float, default=10.0, metavar="M", help="how long a crowd works at once (default: 10)")
    parser.addoption("--record", action="store_true", help="keep the figures in bench/results/reliability.json")
    parser.addoption("--seconds", type=float, default=0.0, metavar="S", help="begin no run of a verb after so many seconds (default: no limit)")
    parser.addoption(
        "--changes", type=int, default=750, metavar="N", help="change the ledger's branch and each part of its copy so often (default: 750, 3,000 altogether)"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a place to run small verbs."""
    with programs.alone(tmp_path_factory, ""), Site.made(tmp_path_factory.mktemp("site")) as made:
        yield made
