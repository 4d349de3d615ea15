"""What a machine meets besides what its user types: apt's locks held, mirrors without a package, another year."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests import clock
from tests.fresh.cases import STORE, Wishes
from tests.fresh.given import Given, by_this_host
from tests.fresh.machine import ADDRESS, Machine
from torchstrata.arguments import option, switch
from torchstrata.errors import CommandError
from torchstrata.matrix.matrix import ROOT

LOCKS: Final = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
HOLD: Final = """
import fcntl, sys, time
files = [open(name, "w") for name in sys.argv[2:]]
for file in files: fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[1]))
"""
"""A program that holds apt's locks as apt does."""

MIRROR: Final = Path("/srv/mirror.pyz")
FOLDER: Final = "/srv/archive"

CLOCK: Final = Path("/srv/clock.so")
"""The library that moves the clocks of what a login starts."""

PLACE: Final = Path(os.environ.get("TMPDIR", "/var/tmp"))
"""Where machines' files lie by default: the system's other temporary directory is often in memory."""


@dataclass(frozen=True, kw_only=True)
class Circumstances(Wishes):
    """What is the same at all machines of a call."""

    given: Given = field(default_factory=by_this_host)
    directory: Path = option("where their files lie (default: TMPDIR, or /var/tmp)", "DIR", PLACE, name="in")
    cold: bool = switch("bootstrap root file systems though one of today is kept")
    apt_locked: int = option("others hold apt's locks so long when the first command starts (default: 0)", "SECONDS", 0)
    dropped: tuple[str, ...] = option("the mirror has only newer versions of these (default: none)", "PACKAGES", (), name="drop")
    snapshots: bool = switch("a snapshot archive has the older ones")
    year_ahead: bool = switch("clocks of programs are a year ahead")

    @property
    def shown(self) -> Mapping[Path, Path]:
        """The directories of this host that machines see, and where."""
        return {path: path for path in self.given.directories} | ({self.store: Path("/", STORE)} if self.store else {})

    @property
    def told(self) -> Given:
        """What a machine is given, with what these circumstances add to the variables of logins."""
        mirror = {"APT_CONFIG": f"{FOLDER}/apt.conf"} if self.dropped else {}
        return replace(self.given, variables={**self.given.variables, **mirror, **(clock.moved(CLOCK, clock.YEAR) if self.year_ahead else {})})

    def furnish(self, root: Path) -> None:
        """Put into a machine's files what moves its clocks."""
        if self.year_ahead:
            clock.build(root / CLOCK.relative_to("/"))

    @contextlib.contextmanager
    def mirror(self, at: Machine) -> Iterator[None]:
        """Let the machine have a mirror that has only newer versions of some packages."""
        bring_mirror(at.root / MIRROR.relative_to("/"))
        drops = [f"--drop={name}" for name in self.dropped]
        archive = [] if self.snapshots else ["--no-archive"]
        with _background(at, "python3", f"{MIRROR}", f"--address={ADDRESS}", f"--folder={FOLDER}", *drops, *archive):
            yield

    @contextlib.contextmanager
    def around_first(self, at: Machine) -> Iterator[None]:
        """Let the first command meet what these circumstances say."""
        with apt_held(at, self.apt_locked) if self.apt_locked else contextlib.nullcontext():
            yield


def bring_mirror(archive: Path) -> None:
    """Write the stand-in for a mirror to a file that Python runs (PEP 441), with all that it imports of the tests."""
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("archive.py", "serving.py"):
            packed.write(ROOT / "tests" / name, f"tests/{name}")
        packed.writestr("tests/__init__.py", "")
        packed.writestr("__main__.py", "from tests.archive import main\nmain()\n")


@contextlib.contextmanager
def apt_held(at: Machine, seconds: int) -> Iterator[None]:
    """Hold the locks of a machine's apt for so long, as its own updates may."""
    with _background(at, "python3", "-c", HOLD, str(seconds), *LOCKS):
        yield


@contextlib.contextmanager
def _background(at: Machine, *words: str) -> Iterator[None]:
    """Run a program as root of a machine while the context lasts, from its first line of output on."""
    with subprocess.Popen(at.inside(*words), stdout=subprocess.PIPE, text=True, start_new_session=True) as program:
        assert program.stdout is not None
        try:
            if not program.stdout.readline():
                raise CommandError(f"{' '.join(words)[:80]} has ended at once", fix="run it by hand to see why")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
