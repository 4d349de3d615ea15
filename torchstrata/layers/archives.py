"""What the apt of an OS image says of its mirrors and of their snapshot archives; asked in a container."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from torchstrata import process
from torchstrata.errors import OsPartError
from torchstrata.host import apt
from torchstrata.layers import bakefile, buildkit, snapshots
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.layers.bakefile import Job
from torchstrata.layers.snapshots import AptSource, Release, Settings
from torchstrata.locks.os_locks import OS_IMAGE
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.store.layer import EPOCH

ASKED: Final = "/asked"
"""Where the question lies in the container."""

ANSWER: Final = f"{ASKED}/answer"

SOURCES: Final = "sources"
PARAGRAPHS: Final = "paragraphs"
SETTINGS: Final = "settings"
STATUS: Final = "status"
OFFER: Final = "offer"
PACKAGES: Final = "packages"

QUESTION: Final = f"""\
FROM os AS asked
COPY . {ASKED}/
RUN mkdir -p {ANSWER} {ASKED}/lists/partial \\
    && for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do [ ! -e "$file" ] || cat "$file"; done >{ANSWER}/{SOURCES} \\
    && for file in /etc/apt/sources.list.d/*.sources; do [ ! -e "$file" ] || {{ cat "$file"; echo; }}; done >{ANSWER}/{PARAGRAPHS} \\
    && APT_CONFIG={ASKED}/apt.conf && export APT_CONFIG \\
    && apt-config dump >{ANSWER}/{SETTINGS} \\
    && {{ apt-get -o Dir::State::lists={ASKED}/lists -o APT::Sandbox::User=root \\
        -o Acquire::IndexTargets::deb::Packages::DefaultEnabled=false update || true; }} \\
    && find {ASKED}/lists -maxdepth 1 -name '*Release' -exec cp {{}} {ANSWER}/ ';'
FROM scratch
COPY --from=asked {ANSWER} /
"""
"""A Dockerfile. Only heads of mirrors are downloaded; of a mirror that has gone, its host's name must do."""

HELD: Final = f"FROM os AS asked\nFROM scratch\nCOPY --from=asked /var/lib/dpkg/status /{STATUS}\n"
"""A Dockerfile: what an OS image holds, as its dpkg says."""

OFFERED: Final = f"""\
FROM os AS asked
COPY . {ASKED}/
RUN mkdir -p {ANSWER} {ASKED}/lists/partial \\
    && cp /var/lib/dpkg/status {ANSWER}/{STATUS} \\
    && APT_CONFIG={ASKED}/apt.conf && export APT_CONFIG \\
    && apt-get -o Dir::State::lists={ASKED}/lists -o APT::Sandbox::User=root -o Acquire::Languages=none --quiet=2 update \\
    && apt-get -o Dir::State::lists={ASKED}/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \\
        --simulate --no-install-recommends install $(cat {ASKED}/{PACKAGES}) >{ANSWER}/{OFFER}
FROM scratch
COPY --from=asked {ANSWER} /
"""
"""A Dockerfile: what its mirrors offer an OS image, installing nothing."""

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
        texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in directory.iterdir()}
        heads = {name: text for name, text in texts.items() if name.endswith("Release")}
        sources = (*snapshots.sources(texts[SOURCES]), *snapshots.paragraphs(texts[PARAGRAPHS]))
        settings = snapshots.settings(texts[SETTINGS])
        return cls(mirrors=tuple((source, release(source, heads)) for source in sources), settings=settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """An OS image whose apt and dpkg are asked.

    :param below: the image as a build context.
    """

    system: OperatingSystem
    below: str
    on_line: process.LineSink

    def ask(self, question: str, work: Path, files: Mapping[str, str] | None = None) -> Path:
        """Run a Dockerfile over the image, and return the directory with the files of its last stage.

        :param work: a directory of its own.
        :param files: by name, what the question finds in :data:`ASKED` besides apt's settings.
        :raises OsPartError: a step of it failed.
        :raises RegistryError: the image cannot be pulled.
        """
        context, answer = work / "context", work / "answer"
        context.mkdir()
        AptSettings.of_host().write(context, ASKED)
        for name, content in (files or {}).items():
            (context / name).write_text(content, encoding="utf-8")
        job = Job(system=self.system, flavours=("asked",), parent=OS_IMAGE, below=self.below, known=1, epoch=EPOCH)
        buildkit.bake(bakefile.question(job, question, context, answer, apt.own_proxies()), self.on_line)
        return answer


def release(source: AptSource, heads: Mapping[str, str]) -> Release:
    """Return what a mirror says of a source, from the files that apt has kept by their names."""
    words = (f"{source.place.netloc}{source.place.path}".rstrip("/"), "dists", source.suite)
    stem = "_".join(QUOTED.sub(lambda head: f"%{ord(head[0]):02x}", word).replace("/", "_") for word in words)
    head = [heads[name] for name in (f"{stem}_InRelease", f"{stem}_Release") if name in heads]
    return Release.parse(head[0]) if head else Release()


def of_host() -> Settings:
    """Return what this machine's own apt knows; nothing where there is none."""
    return snapshots.settings(apt.configuration())
