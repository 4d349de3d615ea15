"""One visit to a machine: making it, typing the commands, noting what each took, and leaving nothing of it."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import platformdirs

from tests.fresh import machine, rootfs
from tests.fresh.cases import BUNDLE, PARTS, MachineCase, Step, Wishes
from tests.fresh.circumstances import Circumstances
from tests.fresh.machine import Machine
from tests.fresh.readme import Commands
from torchstrata import process
from torchstrata.errors import CommandError
from torchstrata.matrix.matrix import ROOT

SHOWN: Final = 30
"""Lines of a failed step that are shown."""

INSTALL: Final = """
apt-get update && apt-get install --yes --no-install-recommends "$@" && apt-get clean && rm -r /var/lib/apt/lists/*
"""
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True, slots=True)
class VisitRow:
    """A step that ended; times are in seconds, of the clock and of processors.

    :param status: ``None`` if an error of this program or Ctrl-C broke it off.
    """

    machine: str
    step: str
    seconds: float
    cpu: float
    status: int | None

    @property
    def result(self) -> str:
        """What to say of it."""
        if self.status is None:
            return "broken off"
        return "ok" if self.status == 0 else f"failed with status {self.status}"


@dataclass(kw_only=True)
class Visit:
    """What was seen at a machine.

    :param log: the file that has every line that it printed.
    :param verbose: whether the console gets these lines, too.
    :param tail: the last of these lines.
    """

    name: str
    log: Path
    verbose: bool
    rows: list[VisitRow] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN))

    @classmethod
    def begin(cls, name: str, *, verbose: bool) -> Visit:
        """Return a visit whose log is empty."""
        log = platformdirs.user_state_path("torchstrata", ensure_exists=True) / "fresh" / f"{name.replace(' ', '-')}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("")
        return cls(name=name, log=log, verbose=verbose)

    @property
    def failed(self) -> VisitRow | None:
        """The step that failed."""
        return next((row for row in self.rows if row.status != 0), None)

    @property
    def seconds(self) -> float:
        """What all steps took."""
        return sum(row.seconds for row in self.rows)

    @property
    def cpu(self) -> float:
        """What all steps took of processors."""
        return sum(row.cpu for row in self.rows)

    def say(self, line: str) -> None:
        """Take a line of output."""
        with self.log.open("a", encoding="utf-8") as log:
            print(line, file=log)
        self.tail.append(line)
        if self.verbose:
            print(line, flush=True)

    def step(self, name: str, cpu_seconds: Callable[[], float], run: Callable[[], int]) -> bool:
        """Run a step, note it, and return whether it went well."""
        self.say(f"{self.name}: $ {name}")
        started, used = time.monotonic(), cpu_seconds()
        status: int | None = None
        try:
            status = run()
        finally:
            row = VisitRow(machine=self.name, step=name, seconds=time.monotonic() - started, cpu=cpu_seconds() - used, status=status)
            self.rows.append(row)
            print(f"{self.name}: {name}: {row.result} ({row.seconds:.1f} s, {row.cpu:.1f} s of CPU)", flush=True)
        return status == 0


def go(visit: Visit, system: str, case: MachineCase, steps: Sequence[Step], circumstances: Circumstances) -> None:
    """Make a machine, type ``steps`` until one fails, and remove the machine.

    :param system: Debian's release, as in :data:`rootfs.SUITES`.
    """
    with interrupted_once() as hold, rootfs.place(circumstances.directory, case.disk) as root, contextlib.ExitStack() as up:
        at: list[Machine] = []

        def make() -> int:
            _furnish(root, system, case, circumstances)
            at.append(up.enter_context(machine.running(root, root.parent.name, circumstances.shown)))
            return 0

        visit.step("root file system, namespaces, network", _children, make)
        up.callback(hold)
        if _equipped(visit, at[0], case.packages):
            if circumstances.dropped:
                _mirrored(visit, at[0], circumstances, up)
            _type(visit, at[0], steps, circumstances)


def here(commands: Commands, wishes: Wishes, *, verbose: bool) -> Visit:
    """Run README's commands on this very machine, in an environment that nox is installed into."""
    visit = Visit.begin("this machine", verbose=verbose)
    with tempfile.TemporaryDirectory(prefix="torchstrata-here-") as work:
        inside = f"cd '{ROOT}' && . '{work}/venv/bin/activate'"
        lines = [f"python3 -m venv '{work}/venv'"]
        lines += [f"{inside} && {line}" for line in (commands.install, *commands.asked(wishes.cells, only_first=wishes.first))]
        all(visit.step(line.rpartition("&& ")[2], _children, partial(_typed, line, visit.say)) for line in lines)
    return visit


def _equipped(visit: Visit, at: Machine, packages: Sequence[str]) -> bool:
    """Let the administrator install packages, and leave apt as it was; return whether that went well."""
    if not packages:
        return True
    words = at.inside("env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", INSTALL, "sh", *packages)
    return visit.step(
        f"administrator: apt-get install {' '.join(packages)}",
        at.groups.cpu_seconds,
        partial(process.follow, *words, on_line=visit.say),
    )


def _mirrored(visit: Visit, at: Machine, circumstances: Circumstances, up: contextlib.ExitStack) -> None:
    """Give a machine a mirror that has other versions than the locks, for as long as it is up."""

    def start() -> int:
        up.enter_context(circumstances.mirror(at))
        return 0

    visit.step(f"a mirror with newer {', '.join(circumstances.dropped)}", at.groups.cpu_seconds, start)


def _typed(line: str, say: process.LineSink) -> int:
    return process.follow("sh", "-c", line, on_line=say)


def _type(visit: Visit, at: Machine, steps: Sequence[Step], circumstances: Circumstances) -> None:
    """Type at a machine, line after line, until one fails."""
    with contextlib.ExitStack() as held:
        for step in steps:
            if step.first:
                held.enter_context(circumstances.around_first(at))
            if not visit.step(step.name, at.groups.cpu_seconds, partial(at.follow, step.user, step.line, visit.say)):
                break


@contextlib.contextmanager
def interrupted_once() -> Iterator[Callable[[], None]]:
    """Let the first Ctrl-C or request to end stop what runs inside, and no further one disturb how that ends.

    :return: what lets nothing short of a kill interrupt what comes then, nor the programs that it starts: the first request waits for the end.
    """
    late: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        hold()
        raise KeyboardInterrupt

    def hold() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
        for ending in ENDINGS:
            signal.signal(ending, lambda number, _: late.append(number))  # where another thread takes it

    before = [(ending, signal.signal(ending, interrupt)) for ending in ENDINGS]
    try:
        yield hold
    finally:
        while waiting := signal.sigtimedwait(ENDINGS, 0):
            late.append(waiting.si_signo)
        for ending, handler in before:
            signal.signal(ending, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
    if late:
        raise KeyboardInterrupt


def _children() -> float:
    """Return the processor time of all programs that this process has started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _furnish(root: Path, system: str, case: MachineCase, circumstances: Circumstances) -> None:
    """Put into ``root`` what the machine has before it is used: the system, and the commit to clone."""
    tar = rootfs.bootstrap(system, circumstances.given, cold=circumstances.cold)
    rootfs.unpack(tar, root, circumstances.told)
    circumstances.furnish(root)
    _bundle(root / BUNDLE)
    if circumstances.store:
        (root / PARTS).write_text("".join(f"{path}\n" for path in payload(circumstances.store)))


def payload(store: Path) -> Iterator[Path]:
    """Yield the files of the layers of wheels in a content store: not of the OS, nor what is made with both."""
    for part in sorted(store.glob("parts/*.json")):
        made = json.loads(part.read_text(encoding="utf-8"))
        if "inventory" in made["extras"] and "packages" not in made["extras"]:
            blobs = [*(layer["digest"] for layer in made["layers"]), *made["extras"].values()]
            listings = [layer["diff_id"] for layer in made["layers"]]
            files = [part, *_named(store / "blobs/sha256", blobs), *_named(store / "listings", listings)]
            yield from (path.relative_to(store) for path in files)


def _named(directory: Path, digests: Sequence[str]) -> list[Path]:
    return [directory / digest.removeprefix("sha256:") for digest in digests]


def check_clonable(checkout: Path = ROOT) -> None:
    """Refuse a checkout that machines could not clone.

    :raises CommandError: it is none of this user's repositories, or lacks the commits before its own.
    """
    try:
        shallow = process.run("git", "-C", checkout, "rev-parse", "--is-shallow-repository").strip() == "true"
    except process.Failed as error:
        why = error.tail.strip().splitlines()[0]
        raise CommandError(f"this checkout cannot be cloned: {why}", fix="get it by `git clone`, as the user who runs this") from error
    if shallow:
        raise CommandError("this clone is shallow: it cannot be cloned again", fix="git fetch --unshallow")


def _bundle(bundle: Path) -> None:
    """Write the commits of HEAD, with all before it, to a file that git clones."""
    with tempfile.TemporaryDirectory() as bare:
        process.run("git", "init", "--quiet", "--bare", "--initial-branch=main", bare)
        process.run("git", "-C", ROOT, "-c", "core.hooksPath=/dev/null", "push", "--quiet", bare, "HEAD:refs/heads/main")
        process.run("git", "-C", bare, "bundle", "create", "--quiet", bundle, "HEAD", "main")
