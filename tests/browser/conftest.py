"""A real Chromium, catalogues for it on a disk, and axe; what lacks fails, since a test that is left out proves nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests import showcase
from torchstrata.catalogue import publication
from torchstrata.catalogue.site import Site

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")

AXE: Final = "axe-core@4.14.1"
AXE_SHA256: Final = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"

PHONE: Final = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP: Final = {"viewport": {"width": 1280, "height": 900}}


@dataclass
class Reader:
    """Somebody who looks at a catalogue.

    :param site: its directory.
    :param problems: what the browser has complained about.
    :param requests: addresses that it has asked for.
    """

    site: Path
    context: BrowserContext
    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str = "index.html") -> Page:
        """Open a page from the disk, as people do who were sent a directory."""
        self.page.goto(f"{self.site.as_uri()}/{path}")
        return self.page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run the Chromium that the distribution has."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    assert found, f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium"
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield made
        made.close()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a catalogue of three releases of all cells."""
    return _written(tmp_path_factory.mktemp("small") / "site", 72)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a catalogue of 500 images."""
    return _written(tmp_path_factory.mktemp("large") / "site", 500)


def _written(directory: Path, count: int) -> Path:
    publication.write(Site(showcase.catalogue(count)).files(), directory)
    return directory


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Reader]]:
    """Give what opens a catalogue, by a browser of its own; whatever it complains about fails the test."""
    readers: list[Reader] = []

    def opened(site: Path, **settings: Any) -> Reader:
        context = browser.new_context(**(DESKTOP | settings))
        reader = Reader(site, context, context.new_page())
        reader.page.on("console", lambda message: reader.problems.append(message.text) if message.type in {"error", "warning"} else None)
        reader.page.on("pageerror", lambda error: reader.problems.append(str(error)))
        reader.page.on("request", lambda request: reader.requests.append(request.url))
        readers.append(reader)
        return reader

    yield opened
    for reader in readers:
        reader.context.close()
        assert reader.problems == []
        assert [address for address in reader.requests if not address.startswith((reader.site.as_uri(), "data:"))] == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the script of axe-core, as npm's registry has it."""
    place = tmp_path_factory.mktemp("axe")
    packed = subprocess.run(["npm", "pack", "--silent", AXE], cwd=place, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(place / packed) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        script = member.read()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    return script.decode()
