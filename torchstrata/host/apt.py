"""apt, the only way by which this program gets packages of the distribution; no other module starts it.

apt waits for none of its locks by itself. ``DPkg::Lock::Timeout`` makes it wait for dpkg's two, not for those of its
lists and of its downloads (apt 2.6 and 3.0 fail there at once), so it is asked again until they are free. Besides,
one question is asked at a time: a lock of our own orders the threads and processes of a user, and the second of two
that need the same package finds it installed. Between users apt's locks do that, since no place is both safe and open
to all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from torchstrata import process
from torchstrata.errors import AptError, AptLockedError, AptUnreachableError, NotRootError
from torchstrata.host import superuser, temporary

PROGRAM: Final = "apt-get"

PATIENCE: Final = 600.0
"""Seconds to wait for a lock: a machine that has just booted may install its own updates for minutes."""

AGAIN: Final = "1"
"""Seconds between two questions."""

ETC: Final = Path("/etc/apt")
ENVIRONMENT: Final = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
APTS_PROXIES: Final = {"http_proxy": "Acquire::http::Proxy", "https_proxy": "Acquire::https::Proxy"}

HELD: Final = re.compile(r"Could not get lock (?P<file>\S+?)\.?(?: - open .*| It is held by process (?P<holder>\d+ \(.*\)|\d+))?$", re.MULTILINE)
LOCKED: Final = re.compile(r"is another process using it|Unable to lock directory|locked by another process")
NOT_ROOT: Final = re.compile(r"are you root\?|Permission denied|requires superuser privilege")
GONE: Final = re.compile(r"404\s+Not Found")
UNREACHABLE: Final = re.compile(
    r"Failed to fetch|Could not resolve|Temporary failure resolving|Could not connect|Unable to connect|Connection (failed|timed out)"
)

NETWORK: Final = "check the network and apt's proxy with `apt-get update`, then try again"

_updated: set[tuple[tuple[str, int], ...]] = set()
"""The states of apt's sources for which this process has brought the lists up to date."""


def is_here() -> bool:
    """Return whether this machine has apt."""
    return shutil.which(PROGRAM) is not None


# Installing


def install(
    packages: Sequence[str],
    report: process.LineSink,
    *,
    unless: Callable[[], bool],
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> bool:
    """Install packages, nothing that they only recommend; return False if that was no longer necessary.

    :param unless: asked when it is our turn: whether what the packages bring is there by now.
    :param options: more options of ``apt-get install``.
    :param environment: more variables for the scripts of the packages.
    :raises NotRootError: this user may not.
    :raises AptLockedError: others held apt's locks for :data:`PATIENCE` seconds.
    :raises AptUnreachableError: a mirror cannot be reached.
    :raises AptError: apt refused for another reason, such as a package that it does not know.
    """
    with turn("apt", report):
        if unless():
            return False
        names = " ".join(packages)
        superuser.begin(f"installing {names}", report, fix=f"run: sudo apt-get install --yes --no-install-recommends {names}")
        trouble = _update(report)
        report(f"{PROGRAM} install {names}")
        try:
            _patiently(("install", "--yes", "--no-install-recommends", *options, *packages), report, environment=environment)
        except AptError as error:
            raise _unreachable(trouble[0]) if trouble and type(error) is AptError else error from error
        return True


def update(report: process.LineSink) -> None:
    """Bring apt's lists up to date, once for each state of its sources; report a mirror that does not answer."""
    with turn("apt", report):
        superuser.begin("apt-get update", report, fix="run: sudo apt-get update")
        _update(report)


def _update(report: process.LineSink) -> list[str]:
    """Bring the lists up to date, in our turn; return what went wrong with mirrors."""
    state, trouble = _sources(), list[str]()
    if state not in _updated:
        try:
            _patiently(("update",), report, on_line=lambda line: trouble.append(line) if UNREACHABLE.search(line) else None)
            _updated.add(state)
        except (AptLockedError, NotRootError):
            raise
        except AptError as error:
            trouble.append(error.what)
        if trouble:
            report(f"apt-get update: {trouble[0]}; going on with the lists that are there")
    return trouble


def _sources() -> tuple[tuple[str, int], ...]:
    """Return what tells a change of apt's sources."""
    files = (path for path in (ETC / "sources.list", *ETC.glob("sources.list.d/*")) if path.exists())
    return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in files))


# Waiting


@contextmanager
def turn(what: str, report: process.LineSink) -> Iterator[None]:
    """Change this machine alone among the threads and processes of this user; the second of two waits, and says so.

    :param what: ``apt``, or what is changed with apt's help; one that has its turn at ``apt`` may not ask for another.
    :raises AptLockedError: the other one took twice :data:`PATIENCE`.
    :raises StoreError: this user has no place for a lock.
    """
    place = _own() / f"torchstrata-{what}.lock"
    lock = FileLock(place, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"waiting up to {2 * PATIENCE:.0f} s for another installation by this program ({place})")
        try:
            lock.acquire(timeout=2 * PATIENCE)
        except Timeout as error:
            raise AptLockedError(f"another installation by this program holds {place}", fix="wait until it has ended, or end it, then try again") from error
    try:
        yield
    finally:
        lock.release()


def _own() -> Path:
    """Return a directory where nobody else can put a lock: root's is ``/run``, a user's lies in the temporary one."""
    return temporary.own() if os.geteuid() else Path("/run")


def _patiently(
    words: Sequence[str],
    report: process.LineSink,
    *,
    environment: Mapping[str, str] | None = None,
    on_line: process.LineSink | None = None,
) -> str:
    """Ask apt as root, again and again while others hold its locks; say once who does, and how long that may take."""
    start, is_told = time.monotonic(), False
    while True:
        left = PATIENCE - (time.monotonic() - start)
        try:
            return superuser.run(*_command(words, left if is_told else 0, environment), on_line=on_line)
        except process.Failed as error:
            refusal = explain(error.tail)
            if not isinstance(refusal, AptLockedError) or left <= 0:
                raise refusal from error
            if not is_told:
                report(f"{refusal.what}: waiting up to {PATIENCE:.0f} s for it")
                is_told = True
        process.run("sleep", AGAIN)  # a program, so that Ctrl-C ends the wait like any other


def _command(words: Sequence[str], timeout: float, environment: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return the command line; the first question has no timeout, since apt then says at once who holds a lock."""
    variables = {**ENVIRONMENT, **own_proxies(), **(environment or {})}
    options = ("-o", f"DPkg::Lock::Timeout={max(timeout, 0):.0f}", "-o", "Acquire::Retries=3")
    return ("env", *(f"{name}={value}" for name, value in variables.items()), PROGRAM, *options, *words)


def explain(output: str) -> AptError | NotRootError:
    """Return what apt's complaints mean.

    :param output: its standard error.
    """
    output = output.strip() or "(no output)"
    complaints = [line for line in output.splitlines() if line.startswith("E: ")] or output.splitlines()[-1:]
    if NOT_ROOT.search(output):
        return NotRootError("apt-get needs root", fix="run this as root")
    if (held := HELD.search(output)) or LOCKED.search(output):
        by = f" is held by process {held['holder']}" if held and held["holder"] else " is held by another process"
        return AptLockedError(f"apt's lock {held['file'] if held else _in_brackets(output)}{by}", fix="wait until that has ended, then try again")
    network = [line for line in output.splitlines() if UNREACHABLE.search(line) and not GONE.search(line)]
    return _unreachable(network[0]) if network else AptError(f"apt: {complaints[0].removeprefix('E: ')}", fix="mend that with apt, then try again")


def _in_brackets(complaints: str) -> str:
    path = re.search(r"(?:\(|directory )(/[^\s),]+)", complaints)
    return path[1] if path else "of dpkg"


def _unreachable(line: str) -> AptUnreachableError:
    return AptUnreachableError(f"a mirror cannot be reached: {re.sub('^[EW]: ', '', line)}", fix=NETWORK)


# Asking


def ask(config: Path, *words: str) -> str:
    """Return what ``apt-get`` says in directories that a configuration names; it needs no root and shares no lock.

    :raises AptUnreachableError, AptError: it has no answer.
    """
    try:
        return process.run(PROGRAM, *words, env={"APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"})
    except process.Failed as error:
        raise explain(error.tail) from error


def archive(label: str, report: process.LineSink) -> str:
    """Return the address that this machine takes a distribution from, as apt reads its sources.

    :param label: what the distribution's ``Release`` files say, such as ``Debian``.
    :raises AptError: its sources have no such archive.
    """
    for attempt in (False, True):
        if attempt:
            update(report)  # labels are known only where lists are
        targets = process.run(PROGRAM, "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages").splitlines()
        for address, _, its_label in (line.partition(" ") for line in targets):
            if its_label == label:
                return address
    raise AptError(f"apt's sources have no archive of {label}", fix=f"add {label}'s own archive to {ETC}/sources.list.d, then try again")


def configuration() -> str:
    """Return all settings of this machine's apt, as ``apt-config dump`` prints them; nothing without apt."""
    return process.run("apt-config", "dump") if is_here() else ""


def proxies() -> dict[str, str]:
    """Return the proxies that mirrors are reached by, as variables of the environment: its own, else apt's."""
    proxies = own_proxies()
    if is_here():
        asked = {name: process.run("apt-config", "shell", "p", option) for name, option in APTS_PROXIES.items() if name not in proxies}
        proxies |= {name: answer.strip().removeprefix("p=").strip("'") for name, answer in asked.items() if answer.strip()}
    return {name: value for name, value in proxies.items() if value and value != "DIRECT"}


def own_proxies() -> dict[str, str]:
    """Return the proxies that this program's own variables name."""
    return {name: os.environ[name] for name in PROXIES if name in os.environ}
