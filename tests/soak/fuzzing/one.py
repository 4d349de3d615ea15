"""Fuzz one target in this process until the time is over or something is found: ``one.py NAME SECONDS SEED CORPUS FOUND``.

With atheris where it has wheels: coverage of our code and of the libraries below it leads. Elsewhere the seeds are changed blindly.
"""

from __future__ import annotations

import importlib.util
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Final

from tests.soak.fuzzing.damage import mutated

HANG: Final = 10
"""Seconds that an input may take."""

MEMORY: Final = 500
"""Megabytes that the process may have."""

INSTRUMENTED: Final = ("torchstrata", "installer", "unearth", "packaging", "zipfile", "configparser", "html", "email", "csv", "_markupbase")


def led(name: str, seconds: int, seed: int, corpus: Path, found: Path) -> None:
    """Let atheris fuzz; libFuzzer ends the process, and says how it went."""
    import atheris  # noqa: PLC0415  # not everywhere

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.soak.fuzzing.targets import TARGETS  # noqa: PLC0415  # instrumented by this
    target = TARGETS[name]
    _sow(corpus, target.seeds)
    limits = (f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}", f"-max_total_time={seconds}", f"-seed={seed}")
    atheris.Setup([name, str(corpus), f"-artifact_prefix={found}/{name}-", "-max_len=65536", *limits], target.accepts)
    atheris.Fuzz()


def _sow(corpus: Path, seeds: tuple[bytes, ...]) -> None:
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)


def changed(name: str, seconds: int, seed: int, found: Path) -> None:
    """Change the seeds until the time is over; say how it went in libFuzzer's words."""
    from tests.soak.fuzzing import targets  # noqa: PLC0415  # as above

    target, rng, begun, runs = targets.TARGETS[name], random.Random(seed), time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        data, runs = mutated(rng.choice(target.seeds), rng), runs + 1
        signal.alarm(HANG)
        try:
            target.accepts(data)
        except BaseException:
            (found / f"{name}-crash").write_bytes(data)
            raise
        finally:
            signal.alarm(0)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MEMORY << 10:
            (found / f"{name}-oom").write_bytes(data)
            raise MemoryError
    print(f"Done {runs} runs in {seconds} second(s)", file=sys.stderr)


def main(name: str, seconds: str, seed: str, corpus: str, found: str) -> None:
    """Fuzz."""
    if importlib.util.find_spec("atheris"):
        led(name, int(seconds), int(seed), Path(corpus), Path(found))
    else:
        changed(name, int(seconds), int(seed), Path(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
