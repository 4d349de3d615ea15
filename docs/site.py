# ruff: noqa: INP001  # mkdocs loads it by its path
"""What mkdocs does beside its own: README and CONTRIBUTING are pages, and links that leave the guides lead to the repository.

A hook of mkdocs.yml (mkdocs' user guide, "Configuration", ``hooks``).
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "reporting.md"}
"""Guides that lie where forges look for them, and what they are called on the site."""

SOURCE: Final = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
CODE: Final = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the guides of the repository's top."""
    for name, page in PAGES.items():
        if (ROOT / name).exists():
            files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: object) -> str:
    """Return a page whose links lead to pages of the site, and else to the repository."""
    names = {page: name for name, page in PAGES.items()}
    here = names.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = CODE.split(markdown)
    rewritten = "".join(part if place % 2 else SOURCE.sub(lambda found: _link(found, here, files), part) for place, part in enumerate(parts))
    return rewritten + _images(page.file.src_uri)


def _images(page: str) -> str:
    """Return a line that leads to the catalogue from the guide about it, where the site is to have it inside."""
    place = os.environ.get("TORCHSTRATA_SITE_IMAGES", "") if page == "catalogue.md" else ""
    return f'\n\n<a href="../{place}/index.html">The catalogue of this registry\'s images</a>\n' if place else ""


def _link(found: re.Match[str], here: str, files: Files) -> str:
    """Return a link as the site has it.

    :param here: path of the page in the repository.
    """
    mark, text, target = found.groups()
    path, hash_mark, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return found[0]
    name = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    page = PAGES.get(name, name.removeprefix("docs/") if name.startswith("docs/") else "")
    if page and files.get_file_from_path(page):
        return f"{mark}[{text}]({page}{hash_mark}{anchor})"
    repository = os.environ.get("GITHUB_REPOSITORY")
    place = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}/blob/HEAD/{name}" if repository else ""
    return f"{mark}[{text}]({place}{hash_mark}{anchor})" if place else text
