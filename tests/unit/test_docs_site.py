"""The guides as a site: every page is there, every link leads somewhere, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from torchstrata.matrix.matrix import ROOT

ELSEWHERE = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, outside of any forge; a warning ends it."""
    target = tmp_path_factory.mktemp("site")
    forge = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    ended = subprocess.run(words, cwd=ROOT, env=forge | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return target


def test_every_guide_is_a_page(site):
    """Those at the top of the repository, too."""
    pages = {path.parent.relative_to(site).as_posix() for path in site.rglob("index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | {".", "contributing", "changelog", "reporting"} <= pages


def test_pages_fetch_nothing_from_elsewhere(site):
    """Neither fonts nor scripts nor pictures."""
    assert {str(path): found for path in site.rglob("*.html") if (found := ELSEWHERE.findall(path.read_text(encoding="utf-8")))} == {}


def test_pages_link_to_pages(site):
    """README's table of guides leads to the site's pages, not to files that it does not have."""
    start = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="running/"' in start
    assert ".md" not in "".join(re.findall(r'href="([^"]*)"', start))
