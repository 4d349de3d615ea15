"""Conversion of a directory of wheels into strata, against the pure codec time of the same bytes.

Usage: ``python bench/conversion.py DIRECTORY [ROUNDS]``, where DIRECTORY has the wheels of a lock, such as ``pip download`` leaves
them. Pure means: inflate every entry, hash and compress the output, hash that; same codecs and parameters, same cores, no
tar, no files. Both sides run in turns, as neighbours on a machine come and go; lines have seconds of wall and processor time.
"""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import parse_wheel_filename

from torchstrata import matrix, strata
from torchstrata.codec import CHUNK, Codec
from torchstrata.layers import PLATFORM
from torchstrata.locks import Lock, Pin
from torchstrata.store import Store, digest_of
from torchstrata.wheelfile import Member, Wheel

CODEC = Codec()
CORES = os.cpu_count() or 1


def pure(path: Path) -> int:
    """Inflate, hash and compress everything in a wheel; return the bytes that were inflated."""
    raw, out, compressor, size = hashlib.sha256(), hashlib.sha256(), CODEC.compressor(), 0
    with Wheel.open(path) as wheel, zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            member = Member(wheel, info, (info.filename, "", ""))
            while block := member.read(CHUNK):
                raw.update(block)
                size += len(block)
                for chunk in compressor.compress(block):
                    out.update(chunk)
        for chunk in compressor.finish():
            out.update(chunk)
    return size


def pins(directory: Path) -> dict[Pin, Path]:
    """Return a pin for every wheel."""
    found = {}
    for path in sorted(directory.glob("*.whl")):
        name, version, *_ = parse_wheel_filename(path.name)
        sha256 = digest_of(path).removeprefix("sha256:")
        found[Pin(name=name, version=str(version), filename=path.name, sha256=sha256, size=path.stat().st_size)] = path
    return found


def convert(plan: tuple[strata.Stratum, ...], files: dict[str, Path]) -> int:
    """Make every stratum in an empty store; return the bytes of the tars."""

    def make(stratum: strata.Stratum) -> int:
        part = strata.make(stratum, files, store, CODEC, threading.Event())
        store.remember(stratum.identity(CODEC), part)
        return part.layers[0].unpacked

    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(CORES) as pool:
        store = Store(Path(root))
        return sum(pool.map(make, [one for one in plan if not one.needs])) + sum(map(make, [one for one in plan if one.needs]))


def clock(label: str, work: Callable[[], int]) -> tuple[float, float]:
    """Run ``work``; print and return seconds of wall and processor time."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    size = work()
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{label:8} {size / 1e6:6.0f} MB  {wall:6.1f} s wall  {busy:6.1f} s processor  {size / 1e6 / wall:5.0f} MB/s", flush=True)
    return wall, busy


def main(directory: Path, rounds: int) -> None:
    """Measure both sides in turns and print the ratios of their medians."""
    found = pins(directory)
    lock = Lock(build="bench", python="3.13", flavour="base", platform=PLATFORM, requires=(), exclude_newer="", uv="", pins=tuple(found))
    plan = strata.plan(lock, None, matrix.load().strata, "3.13")
    files = {pin.sha256: path for pin, path in found.items()}
    largest = sorted(found.values(), key=lambda path: -path.stat().st_size)
    sides: dict[str, list[tuple[float, float]]] = {"pure": [], "strata": []}
    with ThreadPoolExecutor(CORES) as pool:
        for _ in range(rounds):
            sides["pure"].append(clock("pure", lambda: sum(pool.map(pure, largest))))
            sides["strata"].append(clock("strata", lambda: convert(plan, files)))
    wall, busy = (statistics.median(run[kind] for run in sides["strata"]) / statistics.median(run[kind] for run in sides["pure"]) for kind in (0, 1))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"ratio strata / pure: {wall:.2f} of wall, {busy:.2f} of processor time; {CORES} cores, peak {memory:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)  # noqa: PLR2004
