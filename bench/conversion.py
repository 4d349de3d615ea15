"""Conversion of a cell's CUDA and torch wheels into strata, beside the pure codec work on the same bytes, in one run.

    python bench/conversion.py [CELL] > bench/results/conversion.json

The codec work is: inflate every entry with ISA-L, SHA-256 of the tar's bytes, zstd with the store's parameters, SHA-256 of the
result; the same wheels at a time and the same threads as the conversion. Needs about 12 GB of disk.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from torchstrata.layers import strata, wheel_fetch
from torchstrata.layers.strata import Stratum
from torchstrata.layers.wheel_file import Wheel
from torchstrata.locks import wheel_locks
from torchstrata.matrix import matrix
from torchstrata.store.codec import CHUNK, Codec
from torchstrata.store.store import Store
from torchstrata.store.tarball import _Pump  # the same hand-over between threads on both sides


def codecs_only(stratum: Stratum, files: dict[str, Path]) -> int:
    """Inflate, hash, compress and hash the bytes of a stratum's wheels; return how many there were."""
    done, out = 0, hashlib.sha256()
    pump = _Pump(Codec().compressor(), out.update)
    for pin in stratum.pins:
        with Wheel.open(files[pin.sha256]) as wheel:
            for _, content, _ in wheel.get_contents():
                while block := content.read(CHUNK):
                    pump.put(block)
                    done += len(block)
    pump.end()
    return done


def timed(work: Callable[[Stratum], object], todo: Sequence[Stratum]) -> float:
    """Do ``work`` for each stratum with as many threads as cores; return seconds."""
    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(work, todo))
    return time.monotonic() - started


def main() -> None:
    """Measure both sides twice, alternating, and print the figures as JSON."""
    table = matrix.load()
    cell = matrix.select(table, sys.argv[1] if len(sys.argv) > 1 else "2.8-cu121")[0]
    todo = [one for one in strata.plan(wheel_locks.read(cell, "base"), None, table.strata, cell.os.python) if one.kind in {"cuda", "wheel"}]
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(Path(directory) / "store")
        never = threading.Event()
        pins = [pin for stratum in todo for pin in stratum.pins]
        with ThreadPoolExecutor(6) as pool:
            paths = pool.map(lambda pin: wheel_fetch.fetch(pin, store.downloads, on_bytes=lambda _: None, cancelled=never), pins)
            files = {pin.sha256: path for pin, path in zip(pins, paths, strict=True)}
        rounds = []
        for _ in range(2):
            pure = timed(lambda stratum: codecs_only(stratum, files), todo)
            full = timed(lambda stratum: strata.make(stratum, files, store, Codec(), never), todo)
            rounds.append({"codecs_s": round(pure, 1), "conversion_s": round(full, 1), "ratio": round(full / pure, 2)})
        raw = sum(codecs_only(stratum, files) for stratum in todo)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"cell": cell.id, "wheels_bytes": sum(pin.size for pin in pins), "unpacked_bytes": raw, "rounds": rounds, "peak_memory_kb": peak}
    about = {"date": dt.datetime.now(dt.UTC).date().isoformat(), "cores": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release()}
    print(json.dumps(figures | about, indent=2))


if __name__ == "__main__":
    main()
