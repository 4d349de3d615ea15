"""An empty CI runner: no content store, the parts in the registry; compose the images of a cell and push them.

    python bench/empty_runner.py [CELL] > bench/results/empty_runner.json

The cell is pushed once from this machine's content store to a registry with TLS and passwords, so that its sealed parts are there.
Then its images are taken away on the registry's disk, and ``inv push CELL`` runs with an empty content store, several times:
bare, and signing, which also makes and signs the documents of each image. Bytes are those of the bodies that the registry has
sent, from its own log. The images must have the digests that they had before.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine
from tests import teams
from tests.teams import Team
from torchstrata.attestations import signing

ROUNDS = 3
SENT = re.compile(r'"(?:GET|HEAD|POST|PUT|PATCH) \S+ HTTP/\S+" \d+ (\d+)')
"""A line of the registry's access log, with the bytes of the body that it sent."""

WAYS = {"bare": {signing.KEY: "", signing.PUBLIC_KEY: ""}, "signing": {}}


def round_(team: Team, cell: str, digests: set[str], more: dict[str, str]) -> tuple[float, int]:
    """Compose and push with nothing here; return seconds, and bytes that the registry sent."""
    shutil.rmtree(team.served.storage / "repositories" / teams.REPOSITORY)
    read = len(team.served.log)
    with tempfile.TemporaryDirectory() as cache:
        begun = time.monotonic()
        team.run("inv", "push", cell, *(["--trust-unsealed-parts"] if more else []), **more, TORCHSTRATA_CACHE=cache)
        seconds = time.monotonic() - begun
    assert set(team.tags().values()) == digests, "other images than before"
    return seconds, sum(map(int, SENT.findall(team.served.log[read:])))


def figures(team: Team, cell: str) -> dict[str, Any]:
    """Return what each way took."""
    team.run("inv", "push", cell)
    digests, seen = set(team.tags().values()), dict[str, Any]()
    for name, more in WAYS.items():
        rounds = [round_(team, cell, digests, more) for _ in range(ROUNDS)]
        print(f"{name}: {rounds}", file=sys.stderr)
        seconds, sent = zip(*rounds, strict=True)
        seen[name] = {"seconds": [round(each, 1) for each in seconds], "median_seconds": round(statistics.median(seconds), 1), "bytes": list(sent)}
    return {"images": len(digests), **seen}


def main() -> None:
    """Measure and print the figures as JSON; progress goes to standard error."""
    cell = sys.argv[1] if len(sys.argv) > 1 else "2.8-cu121"
    work = Path(tempfile.mkdtemp(prefix="torchstrata-empty-runner-"))
    try:
        with teams.team(work) as team:
            measured = figures(team, cell)
    finally:
        shutil.rmtree(work)
    about = {
        **machine.about(),
        "load": machine.load(),
        "cell": cell,
    }
    print(json.dumps(about | measured, indent=2))


if __name__ == "__main__":
    main()
