"""Push cells to a team's registry (TLS, passwords, signatures), take them into channels, and pull them as everybody does.

    python bench/fresh_node.py [--results DIRECTORY] [CELL ...] > bench/results/fresh_node.json

For each cell, one after the other: ``inv push CELL``, evidence from DIRECTORY attached, ``inv release.promote`` into both
channels; a fresh node (tests/nodes.py) pulls every flavour and asks for every tag, the engine pulls by every tag, cosign and oras
read what is attached. Every digest must be the one in the registry, in the record and, if the image was built here, in the engine.
A cell without complete evidence cannot be in a channel; its images then get the same names by ``inv push CELL --names``.
Needs root, about 15 GB of disk, and leaves none of it used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine
from tests import nodes, teams
from tests.teams import Team
from torchstrata.attestations.documents import RECORD
from torchstrata.commands import signatures
from torchstrata.commands.release_options import AttestOptions
from torchstrata.errors import EvidenceError
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.release import channels

MATRIX = matrix.load()
CELLS = ("2.8-cu121", "2.8-cu121-debian12", "2.13-cpu")


def publish(team: Team, cell: Cell, results: Path) -> str:
    """Push a cell and give it the names that people use; return how it got them."""
    team.run("inv", "push", cell.names[0])
    dated = channels.pushed(MATRIX, cell, team.tags())
    for tag in dated.values():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                signatures.attest(AttestOptions(image=f"{team.repository}:{tag}"), results)
        except EvidenceError as error:
            print(f"{tag}: {error}", file=sys.stderr)
            team.run("inv", "push", cell.names[0], "--names")
            return "push --names"
    team.promote(cell.id, "a measurement does not wait")
    return "channels nightly and stable"


def pull_fresh(team: Team, cell: Cell, tags: Mapping[str, str]) -> dict[str, Any]:
    """Pull every image of a cell with a fresh node, then ask it for every tag; return what it took and which digests are wrong."""
    with nodes.node(team.work / "node", authority=team.authority, passwords=True) as node:
        pulled = {image: node.pull(f"{team.repository}:{tag}") for image, tag in channels.pushed(MATRIX, cell, tags).items()}
        again = sum(node.pull(f"{team.repository}:{tag}").fetched for tag in tags)
        wrong = [tag for tag, digest in tags.items() if node.digest(f"{team.repository}:{tag}") != digest]
    seconds = {image: round(each.seconds, 1) for image, each in pulled.items()}
    return {"seconds": seconds, "bytes": {image: each.fetched for image, each in pulled.items()}, "bytes_by_other_tags": again, "wrong": wrong}


def pull_engine(team: Team, tags: Mapping[str, str]) -> list[str]:
    """Run ``docker pull`` by every tag; return tags whose digest is wrong, and leave none of these names."""
    client, wrong = docker.from_env(timeout=600), []
    for tag, digest in tags.items():
        team.run("docker", "pull", "--quiet", f"{team.repository}:{tag}")
        if f"{team.repository}@{digest}" not in client.images.get(f"{team.repository}:{tag}").attrs["RepoDigests"]:
            wrong.append(tag)
    for tag in tags:
        client.images.remove(f"{team.repository}:{tag}", noprune=True)
    return wrong


def built_here(cell: Cell, image: str) -> str:
    """Return the digest of an image in the engine (containerd image store), or nothing."""
    name = f"{MATRIX.name}:{image if image.startswith('v') else f'{cell.names[0]}-{image}'}"
    found = docker.from_env().images.list(name=name)
    return str(found[0].id) if found else ""


def read(team: Team, digest: str) -> dict[str, Any]:
    """Let cosign and oras read what belongs to an image; return the digests that they tell, and how much there is."""
    subject, trust = f"{team.repository}@{digest}", ("--ca-file", team.authority.certificate)
    key = ("--key", team.public_key, "--insecure-ignore-tlog=true", "--registry-cacert", team.authority.certificate)
    claims = json.loads(team.run("cosign", "verify", *key, "--output=json", subject))
    shown = json.loads(team.run("oras", "discover", *trust, "--format", "json", subject))
    listed = shown.get("manifests") or shown["referrers"]
    (place,) = [each["digest"] for each in listed if each["artifactType"] == RECORD.media_type]
    team.run("oras", "pull", *trust, "--output", team.work / "read", f"{team.repository}@{place}")
    record = json.loads((team.work / "read" / RECORD.file).read_text())
    return {"signed": claims[0]["critical"]["image"]["docker-manifest-digest"], "record": record["digest"], "referrers": len(listed)}


def show(team: Team, cell: Cell, results: Path) -> dict[str, Any]:
    """Push one cell, pull it, and compare."""
    before, begun = team.tags(), time.monotonic()
    named = publish(team, cell, results)
    pushing = time.monotonic() - begun
    tags = {tag: digest for tag, digest in team.tags().items() if tag not in before}
    images = {image: tags[tag] for image, tag in channels.pushed(MATRIX, cell, tags).items()}
    seen = {image: {"pushed": digest, "engine": built_here(cell, image), **read(team, digest)} for image, digest in images.items()}
    unlike = [image for image, each in seen.items() if {each[where] for where in ("engine", "signed", "record") if each[where]} != {each["pushed"]}]
    engine, node = pull_engine(team, tags), pull_fresh(team, cell, tags)
    figures = {"named_by": named, "push_seconds": round(pushing, 1), "images": seen, "tags": tags, "unlike": unlike, "docker_pull_wrong": engine, "node": node}
    print(json.dumps({cell.id: figures}, indent=2), file=sys.stderr)
    return figures


def main() -> None:
    """Show it and print the figures as JSON; progress goes to standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("cells", nargs="*", default=CELLS)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="torchstrata-fresh-node-"))
    try:
        with teams.team(work) as team:
            os.environ |= team.environment
            cells = {cell.id: show(team, cell, options.results) for cell in matrix.select(MATRIX, *options.cells)}
    finally:
        shutil.rmtree(work)
    print(json.dumps({**machine.about(), "load": os.getloadavg()[2], "cells": cells}, indent=2))


if __name__ == "__main__":
    main()
