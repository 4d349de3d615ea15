"""What the apt of an OS image says of its mirrors and of their snapshot archives; asked in a container that BuildKit runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from torchstrata.errors import OsPartError
from torchstrata.host import apt
from torchstrata.layers import snapshots
from torchstrata.layers.snapshots import AptSource, Release, Settings

ASKED: Final = "/asked"
"""Where the question lies in the container."""

ANSWER: Final = f"{ASKED}/answer"

SOURCES: Final = "sources"
SETTINGS: Final = "settings"

QUESTION: Final = f"""\
FROM os AS asked
COPY . {ASKED}/
RUN mkdir -p {ANSWER} {ASKED}/lists/partial \\
    && cat /etc/apt/sources.list >{ANSWER}/{SOURCES} \\
    && APT_CONFIG={ASKED}/apt.conf && export APT_CONFIG \\
    && apt-config dump >{ANSWER}/{SETTINGS} \\
    && {{ apt-get -o Dir::State::lists={ASKED}/lists -o APT::Sandbox::User=root \\
        -o Acquire::IndexTargets::deb::Packages::DefaultEnabled=false update || true; }} \\
    && find {ASKED}/lists -maxdepth 1 -name '*Release' -exec cp {{}} {ANSWER}/ ';'
FROM scratch
COPY --from=asked {ANSWER} /
"""
"""A Dockerfile. Only heads of mirrors are downloaded; a mirror that has gone has none, and then its host's name must do."""

QUOTED: Final = re.compile(r'[\\|{}\[\]<>"^~_=!@#$%&*]')
"""What apt escapes where it turns a URI into the name of a file."""


def is_of_apt(error: OsPartError) -> bool:
    """Return whether apt is what failed, rather than a step of ours."""
    return ": E: " in error.what


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What is known of the mirrors of an OS.

    :param mirrors: each source, and what its ``Release`` file says.
    :param settings: of the apt that was asked.
    """

    mirrors: tuple[tuple[AptSource, Release], ...] = ()
    settings: Settings = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the answer to :data:`QUESTION` that was written to ``directory``."""
        heads = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*Release")}
        sources = snapshots.sources((directory / SOURCES).read_text(encoding="utf-8"))
        settings = snapshots.settings((directory / SETTINGS).read_text(encoding="utf-8"))
        return cls(mirrors=tuple((source, release(source, heads)) for source in sources), settings=settings)


def release(source: AptSource, heads: Mapping[str, str]) -> Release:
    """Return what a mirror says of a source, from the files that apt has kept by their names."""
    place = urlsplit(source.uri)
    words = (f"{place.netloc}{place.path}".rstrip("/"), "dists", source.suite)
    stem = "_".join(QUOTED.sub(lambda found: f"%{ord(found[0]):02x}", word).replace("/", "_") for word in words)
    found = [heads[name] for name in (f"{stem}_InRelease", f"{stem}_Release") if name in heads]
    return Release.parse(found[0]) if found else Release()


def of_host() -> Settings:
    """Return what this machine's own apt knows; nothing where there is none."""
    return snapshots.settings(apt.configuration())
