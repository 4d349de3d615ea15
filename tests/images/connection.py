"""The fixture ``host`` of tests of images, registered after testinfra's own: of two plugins' fixtures the later one counts."""

from __future__ import annotations

import pytest
import testinfra
from testinfra.host import Host as Connection


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> Connection:
    """The machine of ``--hosts``, or a container of the image; for reading only."""
    if request.config.option.hosts:
        return testinfra.get_host(request.config.option.hosts)
    return testinfra.get_host(f"docker://{request.getfixturevalue('shared').container.id}")
