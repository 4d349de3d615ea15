"""A Docker engine where there is none (``nox -s engine``); where one answers, nothing is changed.

What is installed comes from the distribution's own packages. Debian 12's docker.io is 20.10 and has no buildx
package, so there docker.io 26.1 and buildx 0.13.1 come from Debian 13, through a source of our own whose pin lets
nothing else in; they need nothing newer than Debian 12's libc and runc. So does containerd: to load 2 GB, 1.7.24
takes 22 s of processor time where Debian 12's 1.6.20 takes 37 s, whose older Go compiler hashes without the
processor's instructions for it. Newer ones than Debian 13's would have to come from a suite that changes every day.

What only root may do is done by sudo for a user whose sudo asks for no password.
"""

from __future__ import annotations

import functools
import json
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from torchstrata import process
from torchstrata.building import engine
from torchstrata.errors import BuildxError, EngineError
from torchstrata.host import apt, docker_config, superuser

Outcome = Literal["nothing", "buildx", "started", "installed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Supply:
    """Where a release of a distribution gets its engine.

    :param packages: what to install.
    :param borrowed: suite that they come from if the release's own are too old.
    """

    packages: tuple[str, ...]
    borrowed: str | None = None


DEBIAN: Final = ("docker.io", "docker-cli", "docker-buildx")
UBUNTU: Final = ("docker.io", "docker-buildx")
SUPPLIES: Final = {
    "bookworm": Supply(packages=(*DEBIAN, "containerd"), borrowed="trixie"),
    "trixie": Supply(packages=DEBIAN),
    "jammy": Supply(packages=UBUNTU),
    "noble": Supply(packages=UBUNTU),
}
"""By codename of the release, as in ``/etc/os-release``."""

SETTINGS: Final = {"features": {"containerd-snapshotter": True}}
CONFIG: Final = Path("/etc/torchstrata/dockerd.json")
OTHERS_CONFIG: Final = Path("/etc/docker/daemon.json")
DROP_IN: Final = Path("/etc/systemd/system/docker.service.d/torchstrata.conf")
APT_SOURCE: Final = Path("/etc/apt/sources.list.d/torchstrata-engine.sources")
APT_PIN: Final = Path("/etc/apt/preferences.d/torchstrata-engine")
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
LOG: Final = Path("/var/log/torchstrata-dockerd.log")
PID_FILES: Final = {"dockerd": Path("/run/docker.pid"), "containerd": Path("/run/docker/containerd/containerd.pid")}
SOCKET: Final = Path("/var/run/docker.sock")
SYSTEMD: Final = Path("/run/systemd/system")
START_SECONDS: Final = 90.0

DEAD: Final = 1
"""What ``start-stop-daemon --status`` answers where a pid file is there and its program is not."""

BY_HAND: Final = "run `sudo nox -s engine`, or ask to be added to the docker group of a machine with an engine"


def ensure(report: process.LineSink) -> Outcome:
    """Make an engine with buildx answer, and return what had to be done; each thing done is one line to ``report``.

    A daemon that answers is left as it is, whatever its settings.

    :raises EngineError: none answers and this program cannot set one up here; the error says what a person can do.
    :raises BuildxError: one answers, without buildx, and it cannot be installed from here.
    """
    answering = _answering()
    if answering is not None:
        report(f"Docker {answering.version} answers at {docker_config.address()}, with the {answering.store} image store: left as it is")
        return _complete(answering, report)
    _only_here()
    engine.check_access(SOCKET)
    supply = _supply()
    superuser.begin("setting up an engine", report, fix=BY_HAND)
    with apt.turn("engine", report):
        missing = not _has_daemon()
        _configure(report)
        if missing:
            packages = tuple(name for name in supply.packages if name != "containerd" or shutil.which(name) is None)
            _install(supply, packages, report, unless=_has_daemon)
        _start(report)
    answering = engine.connect()
    report(f"Docker {answering.version} answers at {docker_config.address()}, with the {answering.store} image store")
    _complete(answering, report)
    return "installed" if missing else "started"


def _answering() -> engine.Engine | None:
    try:
        return engine.connect()
    except EngineError:
        return None


def _complete(answering: engine.Engine, report: process.LineSink) -> Outcome:
    """Add what the client side of an engine lacks: buildx, and the docker command itself."""
    try:
        report(f"buildx {answering.buildx()} is there")
    except BuildxError as error:
        try:
            supply = _supply()
        except EngineError:
            raise error from None
        command = () if shutil.which("docker") else ("docker-cli",)
        packages = ("docker-buildx", *(name for name in command if name in supply.packages))
        _install(supply, packages, report, unless=functools.partial(_has_buildx, answering))
        report(f"buildx {answering.buildx()} is there")
        return "buildx"
    return "nothing"


def _only_here() -> None:
    """Refuse to set up an engine on this machine when another address was asked for."""
    where = docker_config.address()
    if where not in engine.USUAL:
        raise EngineError(f"no Docker engine answers at {where}", fix=engine.how_to_start(where))


def _supply() -> Supply:
    """Return where this machine gets an engine; refuse where that is not known."""
    if platform.system() != "Linux":
        raise EngineError("no Docker engine answers", fix="install and start Docker Desktop, OrbStack or Colima, then try again")
    try:
        release = platform.freedesktop_os_release()
    except OSError:  # it has no such file
        release = {"PRETTY_NAME": "this system"}
    supply = SUPPLIES.get(release.get("VERSION_CODENAME", ""))
    if supply is None:
        raise EngineError("no Docker engine answers", fix=f"install Docker Engine with buildx for {release['PRETTY_NAME']} and start it")
    return supply


def _has_daemon() -> bool:
    return process.where("dockerd") is not None


def _has_buildx(answering: engine.Engine) -> bool:
    try:
        return bool(answering.buildx())
    except BuildxError:
        return False


def _install(supply: Supply, packages: tuple[str, ...], report: process.LineSink, *, unless: Callable[[], bool]) -> None:
    """Install packages, never at the price of others: a containerd that is there serves somebody."""
    if supply.borrowed is not None:
        _borrow(supply.borrowed, packages, report)
    # Without systemd, the run level keeps invoke-rc.d from starting a daemon without our settings.
    apt.install(packages, report, unless=unless, options=("--no-remove",), environment={} if SYSTEMD.is_dir() else {"RUNLEVEL": "1"})


def _borrow(suite: str, packages: tuple[str, ...], report: process.LineSink) -> None:
    """Add the suite that the packages come from, pinned so that no other package is ever taken from it."""
    archive = apt.archive("Debian", report)
    report(f"{APT_SOURCE}: {suite} for {', '.join(packages)} only")
    pin = "Package: {0}\nPin: release n={1}\nPin-Priority: {2}\n"
    superuser.write(APT_PIN, pin.format("*", suite, -1) + "\n" + pin.format(" ".join(packages), suite, 900))
    superuser.write(APT_SOURCE, f"Types: deb\nURIs: {archive}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n")


def _configure(report: process.LineSink) -> None:
    """Give a daemon of ours its settings, in files of ours; a daemon.json that somebody wrote stands alone."""
    if OTHERS_CONFIG.exists():
        report(f"{OTHERS_CONFIG} is yours: the daemon uses it as it is")
        return
    _write(CONFIG, json.dumps(SETTINGS) + "\n", report)
    if SYSTEMD.is_dir():
        start = f"dockerd -H fd:// --containerd=/run/containerd/containerd.sock --config-file={CONFIG}"
        _write(DROP_IN, f"[Service]\nExecStart=\nExecStart={start}\n", report)


def _write(path: Path, text: str, report: process.LineSink) -> None:
    if not path.exists() or path.read_text() != text:
        superuser.write(path, text)
        report(f"wrote {path}")


def _start(report: process.LineSink) -> None:
    """Start the daemon the way this machine starts services, and wait until it answers."""
    if SYSTEMD.is_dir():
        report("systemctl start docker")
        superuser.run("systemctl", "daemon-reload")
        superuser.run("systemctl", "start", "docker")
    else:
        _start_by_hand(report)
    _wait()


def _start_by_hand(report: process.LineSink) -> None:
    """Start a detached daemon; where one is starting already, leave it to that."""
    for program, path in PID_FILES.items():
        _forget_dead(program, path, report)
    if PID_FILES["dockerd"].exists():
        report("a dockerd is starting already: waiting for it")
        return
    settings = () if OTHERS_CONFIG.exists() else ("--config-file", CONFIG)
    report(f"starting dockerd by hand; its log is {LOG}")
    options = ("--start", "--background", "--output", LOG, "--pidfile", PID_FILES["dockerd"], "--exec", process.where("dockerd") or "dockerd")
    superuser.run("env", "--unset=TMPDIR", "start-stop-daemon", *options, "--", *settings)  # it may outlive the caller's


def _forget_dead(program: str, path: Path, report: process.LineSink) -> None:
    """Remove the pid file of a daemon that has ended: if its pid is another program's now, dockerd would not start."""
    try:
        executable = process.where(program) or f"/usr/bin/{program}"
        superuser.run("start-stop-daemon", "--status", "--pidfile", path, "--exec", executable)
    except process.Failed as error:
        if error.status == DEAD:
            superuser.run("rm", "-f", path)
            report(f"removed {path}, left by a {program} that is gone")


def _wait() -> None:
    end = time.monotonic() + START_SECONDS
    while _answering() is None:
        engine.check_access(SOCKET)
        if time.monotonic() > end:
            last = LOG.read_text(errors="replace").splitlines()[-1:] if LOG.exists() else []
            raise EngineError(f"dockerd does not answer after {START_SECONDS:.0f} s: {' '.join(last)}", fix=f"read {LOG}, or `journalctl -u docker`")
        time.sleep(0.3)
