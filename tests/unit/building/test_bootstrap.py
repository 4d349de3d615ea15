"""Decisions of ``nox -s engine``; the real installation and start are tested in tests/system/test_bootstrap.py."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from torchstrata.building import bootstrap
from torchstrata.errors import EngineError, NotRootError
from torchstrata.host import apt, superuser

SYSTEM = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Ordinary users of Debian do not look where programs of the system lie."""


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no engine answer, whether this machine has one or not."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(bootstrap, "_answering", lambda: None)


@pytest.fixture
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this user do what root would have to, since it is done in a folder of the test."""
    monkeypatch.setattr(superuser, "_words", lambda _: ())


@pytest.fixture
def system_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this user find programs as root does."""
    monkeypatch.setenv("PATH", SYSTEM)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the files that the bootstrap writes below a folder of the test."""
    for name in ("CONFIG", "OTHERS_CONFIG", "DROP_IN", "SYSTEMD", "SOCKET", "APT_SOURCE", "APT_PIN"):
        monkeypatch.setattr(bootstrap, name, tmp_path / name)
    return tmp_path


def release(monkeypatch: pytest.MonkeyPatch, codename: str, *, system: str = "Linux", user: int = 0) -> None:
    """Pretend to be on a machine with that release."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"VERSION_CODENAME": codename, "PRETTY_NAME": codename.title()})
    monkeypatch.setattr(os, "geteuid", lambda: user)


def refuse(line: str) -> None:
    """Fail when something is reported as done."""
    pytest.fail(f"did something: {line}")


@pytest.mark.parametrize(
    ("codename", "system", "user", "fix"),
    [
        ("", "Darwin", 501, "Docker Desktop"),
        ("forky", "Linux", 0, "for Forky"),
    ],
)
def test_where_it_cannot_install_it_advises(monkeypatch: pytest.MonkeyPatch, codename: str, system: str, user: int, fix: str) -> None:
    """macOS, other distributions and plain users get one line of advice, and nothing is done."""
    release(monkeypatch, codename, system=system, user=user)
    with pytest.raises(EngineError, match="no Docker engine answers") as caught:
        bootstrap.ensure(refuse)
    assert fix in caught.value.fix


def test_without_root_it_says_who_can_help(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    """A user without a sudo that asks for no password gets an error of its own kind, and nothing is done."""
    release(monkeypatch, "trixie", user=1000)
    monkeypatch.setenv("PATH", str(files))
    with pytest.raises(NotRootError, match="setting up an engine needs root") as caught:
        bootstrap.ensure(refuse)
    assert "sudo nox -s engine" in caught.value.fix


def test_engine_of_others_is_not_answered_with_another_one(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an engine runs that this user may not use, the error names the one command that lets them in."""
    (files / "SOCKET").touch()
    (files / "SOCKET").chmod(0o660)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(EngineError, match="you may not use it") as caught:
        bootstrap.ensure(refuse)
    assert "--groups docker" in caught.value.fix


def test_another_address_is_never_answered_with_a_local_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_HOST names the engine that is meant: if that is down, installing one here would not help."""
    release(monkeypatch, "trixie")
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    with pytest.raises(EngineError, match=r"192\.0\.2\.1"):
        bootstrap.ensure(refuse)


@pytest.mark.parametrize("codename", ["bookworm", "trixie", "jammy", "noble"])
def test_supported_releases_get_an_engine_and_buildx(monkeypatch: pytest.MonkeyPatch, codename: str) -> None:
    """Each supported release brings the daemon and buildx; only Debian 12 borrows them."""
    release(monkeypatch, codename)
    supply = bootstrap._supply()
    assert {"docker.io", "docker-buildx"} <= set(supply.packages)
    assert supply.borrowed == ("trixie" if codename == "bookworm" else None)


@pytest.mark.usefixtures("as_they_are")
def test_settings_go_into_a_file_of_our_own(files: Path) -> None:
    """The daemon of ours gets the containerd image store; a second time nothing is written."""
    lines: list[str] = []
    bootstrap._configure(lines.append)
    assert json.loads((files / "CONFIG").read_text()) == {"features": {"containerd-snapshotter": True}}
    assert not (files / "DROP_IN").exists()
    bootstrap._configure(refuse)


@pytest.mark.usefixtures("as_they_are")
def test_settings_reach_a_service_of_systemd(files: Path) -> None:
    """Under systemd a drop-in passes our file; the distribution's unit stays as it is."""
    (files / "SYSTEMD").mkdir()
    bootstrap._configure(lambda _: None)
    assert f"--config-file={files / 'CONFIG'}" in (files / "DROP_IN").read_text()


def test_settings_of_somebody_else_are_left_alone(files: Path) -> None:
    """An existing daemon.json is used as it is, and nothing of ours is put beside it."""
    (files / "OTHERS_CONFIG").write_text("{}")
    lines: list[str] = []
    bootstrap._configure(lines.append)
    assert [path.name for path in files.iterdir()] == ["OTHERS_CONFIG"]
    assert "yours" in lines[0]


@pytest.mark.usefixtures("as_they_are")
def test_borrowed_suite_gives_its_packages_and_nothing_else(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pin refuses every package of the borrowed suite but the ones that are wanted."""
    monkeypatch.setattr(apt, "archive", lambda _label, _report: "http://mirror.example/debian/")
    bootstrap._borrow("trixie", ("docker.io", "docker-buildx"), lambda _: None)
    assert "URIs: http://mirror.example/debian/\nSuites: trixie\n" in (files / "APT_SOURCE").read_text()
    everything, wanted = (files / "APT_PIN").read_text().split("\n\n")
    assert everything == "Package: *\nPin: release n=trixie\nPin-Priority: -1"
    assert wanted.startswith("Package: docker.io docker-buildx\n")


@pytest.mark.skipif(not shutil.which("start-stop-daemon", path=SYSTEM), reason="asks Debian's start-stop-daemon")
@pytest.mark.usefixtures("as_they_are", "system_programs")
def test_pid_file_of_a_dead_daemon_is_removed(tmp_path: Path) -> None:
    """A pid that nobody has, or that another program has by now, would keep dockerd from starting."""
    path = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()
    for pid in (str(ended.pid), str(os.getpid())):
        path.write_text(pid)
        lines: list[str] = []
        bootstrap._forget_dead("sleep", path, lines.append)
        assert not path.exists()
        assert "gone" in lines[0]


@pytest.mark.skipif(not shutil.which("start-stop-daemon", path=SYSTEM), reason="asks Debian's start-stop-daemon")
@pytest.mark.usefixtures("as_they_are", "system_programs")
def test_pid_file_of_a_live_daemon_stays(tmp_path: Path) -> None:
    """A daemon that runs keeps its pid file, whether it answers yet or not."""
    path = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as daemon:
        path.write_text(f"{daemon.pid}\n")
        bootstrap._forget_dead("sleep", path, refuse)
        daemon.kill()
    assert path.exists()


def test_a_system_that_does_not_say_what_it_is_gets_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the smallest ones, which have no ``os-release``."""

    def none() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", none)
    with pytest.raises(EngineError, match="no Docker engine answers") as caught:
        bootstrap._supply()
    assert "install Docker Engine with buildx for this system" in caught.value.fix
