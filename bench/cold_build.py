"""Cold build of one cell, four flavours ready to run: torchstrata beside the plain Dockerfile way, in one go on one machine.

    python bench/cold_build.py [CELL] > bench/results/cold_build.json

Both sides start with nothing: an empty content store, no images, no build cache. Both download everything. In the plain way's
favour, its OS image is there already, and it has no CUDA compiler to install. Everything that the engine holds of
``pytorch-cuda`` and of BuildKit's cache is removed: run it on a machine where that does not matter.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from torchstrata.layers import os_image, os_parts
from torchstrata.layers.contexts import apt_config
from torchstrata.locks import os_locks, wheel_locks
from torchstrata.matrix import matrix
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

FLAVOURS = ("base", "devel", "jupyter", "ssh")
CA = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")


def run(*args: str, env: dict[str, str] | None = None) -> float:
    """Run a program with its output on standard error; return the seconds it took."""
    started = time.monotonic()
    subprocess.run(args, check=True, cwd=ROOT, stdout=sys.stderr, env={**os.environ, **(env or {})})
    return time.monotonic() - started


def clean() -> None:
    """Remove what either side could reuse from the engine."""
    listed = subprocess.run(
        ["docker", "images", "--quiet", "--filter", "reference=pytorch-cuda", "--filter", "reference=plain"], check=True, capture_output=True, text=True
    )
    images = sorted(set(listed.stdout.split()))
    if images:
        run("docker", "rmi", "--force", *images)
    run("docker", "image", "prune", "--force")
    run("docker", "buildx", "prune", "--all", "--force")


def ours(cell: matrix.Cell, cache: str) -> float:
    """Build by composition; return seconds."""
    return run("nox", "-s", f"build-{cell.id}", env={"TORCHSTRATA_CACHE": cache, "CI": "true"})


def plain(cell: matrix.Cell, cache: str) -> float:
    """Build by a Dockerfile with four stages, from the OS image that the other side has made; return seconds."""
    store, lock = Store.open(Path(cache)), os_locks.read(cell.os)
    part = store.find(os_image.identity(cell.os, lock, apt_config(ROOT), Codec()))
    assert part is not None
    below = os_parts.build_context(cell.os, part.layers, store, Path(cache) / "bench-os")
    packages = [f"--build-arg=PACKAGES_{name.upper()}={' '.join(lock.sections[name])}" for name in FLAVOURS]
    contexts = [f"--build-context=os={below}", f"--build-context=locks={(ROOT / wheel_locks.path_of(cell, 'base')).parent}"]
    common = ("docker", "buildx", "build", "--provenance=false", *packages, *contexts, f"--secret=id=ca,src={CA}")
    return sum(run(*common, "--target", name, "--tag", f"plain:{name}", "bench/plain") for name in FLAVOURS)


def main() -> None:
    """Measure both sides and print the figures as JSON."""
    cell = matrix.select(matrix.load(), sys.argv[1] if len(sys.argv) > 1 else "2.8-cu121")[0]
    with tempfile.TemporaryDirectory() as cache:
        clean()
        composed = ours(cell, cache)
        clean()
        usual = plain(cell, cache)
        clean()
    figures = {"cell": cell.id, "composed_s": round(composed, 1), "plain_s": round(usual, 1), "ratio": round(composed / usual, 3)}
    about = {"date": dt.datetime.now(dt.UTC).date().isoformat(), "cores": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release()}
    print(json.dumps(figures | about, indent=2))


if __name__ == "__main__":
    main()
