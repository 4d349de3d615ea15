"""A team: its registry, with TLS by an authority of its own and passwords, its keys and its ledger; all of them made for one run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import programs, registries
from tests.registries import Authority, Served
from torchstrata.attestations import remote, signing
from torchstrata.matrix import matrix

REPOSITORY: Final = f"team/{matrix.load().name}"


@dataclass(frozen=True)
class Team:
    """What a team has.

    :param work: the directory of all of it.
    """

    work: Path
    authority: Authority
    served: Served

    @property
    def repository(self) -> str:
        """Where its images are: host and path."""
        return f"{self.served.host}/{REPOSITORY}"

    @property
    def key(self) -> Path:
        """The private key."""
        return self.work / "cosign.key"

    @property
    def public_key(self) -> Path:
        """The public key."""
        return self.work / "cosign.pub"

    @property
    def ledger(self) -> str:
        """The branch of the ledger."""
        return f"{self.work}/ledger#ledger"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of whoever works for the team: programs, trust, passwords, keys."""
        path = [str(Path(sys.executable).parent), *(str(programs.directory(name)) for name in ("cosign", "oras")), os.environ["PATH"]]
        return {
            "PATH": os.pathsep.join(path),
            "DOCKER_CONFIG": str(self.work),
            "REQUESTS_CA_BUNDLE": str(self.authority.certificate),
            remote.VARIABLE: f"{self.served.host}/team",
            "COSIGN_PASSWORD": "",
            signing.KEY: str(self.key),
            signing.PUBLIC_KEY: str(self.public_key),
            "COLUMNS": "200",
            "XDG_STATE_HOME": str(self.work / "state"),
        }

    def run(self, *words: str | Path, **more: str) -> str:
        """Run a program in the checkout as one who works for the team does, and return what it prints.

        :param more: variables that are added.
        """
        env = {**os.environ, **self.environment, **more}
        done = subprocess.run([str(word) for word in words], cwd=matrix.ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def promote(self, cell: str, why: str) -> None:
        """Take a cell into every channel at once."""
        for channel in matrix.load().channels.values():
            soak = ["--no-soak", why] if channel.source else []
            self.run("inv", "release.promote", cell, "--channel", channel.name, "--ledger", self.ledger, *soak, "--yes")

    def tags(self) -> Mapping[str, str]:
        """Return the digest by tag, for all tags that people use."""
        return {tag: digest for tag, digest in sorted(self.served.tags(REPOSITORY).items()) if not tag.startswith("sha256-") and tag != "ledger"}


@contextlib.contextmanager
def team(work: Path) -> Iterator[Team]:
    """Have a team in a directory, until the block ends; its registry's disk stays there."""
    for name in ("authority", "registry"):
        (work / name).mkdir()
    authority = Authority.make(work / "authority")
    with registries.registry(work / "registry", authority=authority, passwords=True) as served:
        made = Team(work, authority, served)
        registries.login(work, served.host)
        subprocess.run(["cosign", "generate-key-pair"], cwd=work, env={**os.environ, **made.environment}, check=True, capture_output=True)
        subprocess.run(["git", "init", "--quiet", "--bare", work / "ledger"], check=True)
        yield made
