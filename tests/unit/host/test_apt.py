"""Asking apt: real ``apt-get`` processes in a tree of the test, with a mirror on loopback; nothing of this machine changes."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import script
from tests.serving import serving
from tests.waiting import PATIENCE
from torchstrata.errors import AptError, AptLockedError, AptUnreachableError, NotRootError, TorchstrataError
from torchstrata.host import apt, superuser

ROOT = Path(__file__).parents[3]
NAME = "torchstrata-tiny"
CONTROL = f"Package: {NAME}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: tiny\n"
CONFIG = """\
Dir "{0}";
Dir::Bin::methods "/usr/lib/apt/methods";
Dir::Bin::dpkg "/bin/false";
Dir::State::status "{0}/var/lib/dpkg/status";
APT::Sandbox::User "";
Acquire::http::Proxy "DIRECT";
"""
HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
"""Takes a lock as apt and dpkg do, until its standard input ends."""

INSTALL = """
import sys
from torchstrata.host import apt
name, archives = sys.argv[1:]
from pathlib import Path
there = lambda: bool(list(Path(archives).glob(f"{name}_*.deb")))
print(apt.install([name], print, unless=there, options=("--download-only",)))
"""
"""Has apt get a package, as another process of this program does."""

with_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="asks Debian's or Ubuntu's apt")


@dataclass
class Tree:
    """A tree of apt's own, and what its mirror was asked for."""

    root: Path
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def archives(self) -> Path:
        """Where downloaded packages go."""
        return self.root / "var/cache/apt/archives"

    def has(self) -> bool:
        """Return whether the package was downloaded."""
        return bool(list(self.archives.glob(f"{NAME}_*.deb")))

    def install(self, name: str = NAME) -> bool:
        """Have the package; it is downloaded only, since a tree without a system cannot run its scripts."""
        return apt.install([name], self.said.append, unless=self.has, options=("--download-only",))

    def sources(self, line: str) -> None:
        """Write apt's sources."""
        (self.root / "etc/apt/sources.list").write_text(line)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Let apt work in a tree of this test, where this user may do what elsewhere takes root."""
    places = "etc/apt/apt.conf.d etc/apt/sources.list.d var/lib/dpkg var/lib/apt/lists/partial var/cache/apt/archives/partial"
    for place in places.split():
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").touch()
    (tmp_path / "apt.conf").write_text(CONFIG.format(tmp_path))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(superuser, "_words", lambda _: ())
    monkeypatch.setattr(apt, "ETC", tmp_path / "etc/apt")
    monkeypatch.setattr(apt, "_updated", set())
    monkeypatch.setattr(apt, "_own", lambda: tmp_path)
    return Tree(tmp_path)


@pytest.fixture
def mirror(tree: Tree) -> Iterator[None]:
    """Serve a repository of one tiny package to the tree."""
    site = tree.root / "site"
    (site / "build/DEBIAN").mkdir(parents=True)
    (site / "build/DEBIAN").chmod(0o755)
    (site / "build/DEBIAN/control").write_text(CONTROL)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", site / "build", site / "tiny.deb"], check=True, capture_output=True)
    content = (site / "tiny.deb").read_bytes()
    listed = f"{CONTROL}Filename: ./tiny.deb\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n\n".encode()
    (site / "Packages").write_bytes(listed)
    (site / "Release").write_text(f"Codename: tiny\nSHA256:\n {hashlib.sha256(listed).hexdigest()} {len(listed)} Packages\n")

    class SiteHandler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(site))

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            del code, size
            tree.asked.append(self.path.replace("/./", "/"))

    with serving(SiteHandler) as port:
        tree.sources(f"deb [trusted=yes] http://127.0.0.1:{port}/ ./\n")
        yield


@contextmanager
def _held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a lock."""
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        assert holder.stdin is not None
        holder.stdin.close()


LOCKS = ["var/lib/apt/lists/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/cache/apt/archives/lock"]


@with_apt
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("lock", LOCKS)
def test_lock_of_another_program_is_waited_for(tree: Tree, lock: str) -> None:
    """Whichever of its four locks apt meets: one line says who holds it and how long that may take, and then the work is done."""
    told = threading.Event()

    def report(line: str) -> None:
        tree.said.append(line)
        if "waiting" in line:
            told.set()

    with ThreadPoolExecutor(1) as pool:
        with _held(tree.root / lock) as holder:
            done = pool.submit(apt.install, [NAME], report, unless=tree.has, options=("--download-only",))
            assert told.wait(PATIENCE)
            assert not tree.has()
        assert done.result(PATIENCE)
    waits = [line for line in tree.said if "waiting" in line]
    assert len(waits) == 1
    assert f"held by process {holder.pid}" in waits[0]
    assert str(tree.root / lock) in waits[0]
    assert "waiting up to 600 s" in waits[0]
    assert tree.has()


@with_apt
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("lock", LOCKS[:2])
def test_lock_that_stays_is_an_error_of_its_own(tree: Tree, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When patience ends, the error names the lock and who holds it."""
    monkeypatch.setattr(apt, "PATIENCE", 2.0)
    with _held(tree.root / lock), pytest.raises(AptLockedError, match=lock):
        tree.install()
    assert not tree.has()


@with_apt
@pytest.mark.usefixtures("mirror")
def test_two_threads_that_ask_at_once_install_once(tree: Tree) -> None:
    """The second finds it installed; lists and package are fetched once."""
    start = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(lambda: (start.wait(PATIENCE), tree.install())[1]) for _ in range(2)]
        assert sorted(each.result(PATIENCE) for each in both) == [False, True]
    assert tree.asked.count("/tiny.deb") == 1
    assert tree.asked.count("/Packages") == 1


@with_apt
@pytest.mark.usefixtures("mirror")
def test_two_processes_that_ask_at_once_install_once(tree: Tree) -> None:
    """Nor do processes meet in apt: one waits for the other."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom torchstrata.host import apt, superuser\n"
    script += f"apt._own = lambda: Path({str(tree.root)!r}); superuser._words = lambda _: ()\n{INSTALL}"
    command = [sys.executable, "-c", script, NAME, tree.archives]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ends = sorted(process.communicate(timeout=PATIENCE)[0].splitlines()[-1] for process in both)
    assert ends == ["False", "True"]
    assert tree.asked.count("/tiny.deb") == 1


@with_apt
@pytest.mark.usefixtures("mirror")
def test_lists_are_updated_once_for_the_same_sources(tree: Tree) -> None:
    """Another question asks no mirror again, unless the sources have changed meanwhile."""
    apt.update(tree.said.append)
    apt.update(tree.said.append)
    assert tree.asked.count("/InRelease") == 1
    tree.sources((tree.root / "etc/apt/sources.list").read_text() + "# changed\n")
    apt.update(tree.said.append)
    assert tree.asked.count("/InRelease") == 2


@with_apt
@pytest.mark.usefixtures("mirror")
def test_unknown_package_is_an_error_of_apts(tree: Tree) -> None:
    """It is told apart from locks and networks, in apt's words."""
    with pytest.raises(AptError, match="Unable to locate package no-such-package") as caught:
        tree.install("no-such-package")
    assert type(caught.value) is AptError


@with_apt
def test_mirror_that_does_not_answer_is_an_error_of_its_own(tree: Tree) -> None:
    """Apt then knows no package, but the network is the reason that is given."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    tree.sources(f"deb [trusted=yes] http://127.0.0.1:{port}/ ./\n")
    with pytest.raises(AptUnreachableError, match=f"127.0.0.1:{port}"):
        tree.install()


@pytest.mark.parametrize(
    ("said", "kind", "what"),
    [
        ("E: Could not get lock /v/lock. It is held by process 7 (apt)\nE: Unable to lock directory /v/", AptLockedError, "/v/lock is held by process 7 (apt)"),
        ("E: Could not get lock /v/lock. It is held by process 7\n", AptLockedError, "/v/lock is held by process 7"),
        ("E: Could not get lock /v/lock - open (11: Resource temporarily unavailable)\n", AptLockedError, "/v/lock is held by another process"),
        ("E: Unable to acquire the dpkg frontend lock (/v/lock-frontend), is another process using it?", AptLockedError, "/v/lock-frontend is held"),
        ("dpkg: error: dpkg frontend lock was locked by another process with pid 9", AptLockedError, "of dpkg is held"),
        ("E: Could not open lock file /v/lock - open (13: Permission denied)\nE: Unable to lock directory /v/", NotRootError, "root"),
        ("E: Unable to acquire the dpkg frontend lock (/v/lock-frontend), are you root?", NotRootError, "root"),
        ("W: Failed to fetch http://m/InRelease  Temporary failure resolving 'm'\nE: Some files failed", AptUnreachableError, "Temporary failure"),
        ("E: Failed to fetch http://m/a.deb  404  Not Found [IP: ::1 80]\nE: Unable to fetch some archives", AptError, "404"),
        ("E: Unable to locate package x", AptError, "Unable to locate package x"),
        ("", AptError, "no output"),
    ],
)
def test_complaints_are_told_apart(said: str, kind: type[TorchstrataError], what: str) -> None:
    """Locked, unreachable, not root, or another reason: each has a class, and so an exit code, of its own."""
    found = apt.explain(said)
    assert type(found) is kind
    assert what in found.what


def _sudo(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> Path:
    """Put a ``sudo`` on the path that answers with ``status``, and runs what it is given if that is 0; be an ordinary user."""
    log = folder / "log"
    words = 'while [ "${1#-}" != "$1" ]; do shift; done'
    script(folder / "sudo", f'printf "%s\\n" "$*" >> "{log}"\n{words}\n[ {status} = 0 ] || exit {status}\nexec "$@"')
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    superuser._words.cache_clear()
    return log


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Forget afterwards what this test let the program believe of sudo."""
    yield
    superuser._words.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_sudo_without_password_is_used_after_saying_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what it is used for; it is never asked in a way that could prompt."""
    log, said = _sudo(tmp_path, monkeypatch, 0), list[str]()
    superuser.begin("painting", said.append, fix="")
    assert said == ["painting needs root: using sudo, which asks for no password"]
    assert superuser.run("echo", "done") == "done\n"
    assert all(line.startswith("-n ") for line in log.read_text().splitlines())


@pytest.mark.usefixtures("forgetful")
def test_sudo_that_wants_a_password_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, without what somebody has typed before, and then there is an error with the given cure."""
    log = _sudo(tmp_path, monkeypatch, 1)
    with pytest.raises(NotRootError, match="painting needs root") as caught:
        superuser.begin("painting", pytest.fail, fix="run: sudo paint")
    assert caught.value.fix == "run: sudo paint"
    assert log.read_text() == "-n -k true\n"


def test_no_other_module_starts_apt_or_sudo() -> None:
    """Whatever is installed goes through one module, so that its locks are waited for everywhere."""
    code = {path.name: path.read_text() for path in (ROOT / "torchstrata").rglob("*.py")}
    starts = {name for name, text in code.items() if 'run("apt' in text or 'run("sudo' in text or 'run(PROGRAM, "in' in text}
    assert starts <= {"apt.py", "superuser.py"}
