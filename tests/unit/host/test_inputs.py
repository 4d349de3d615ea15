"""Files and variables that people write: whatever stands there is a value, or one line and a code; nothing is waited for."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import released
from tests.hostileledger import outcome
from tests.mutating import of
from torchstrata import environment, files
from torchstrata.errors import EvidenceError, FetchError, LockError, MatrixError, OsPartError, TorchstrataError, VariableError
from torchstrata.host import docker_config, variables
from torchstrata.layers import contexts, toolchain_lock
from torchstrata.locks import lock_writer, lockfile, os_locks, pip_config, wheel_locks
from torchstrata.matrix import matrix, plain_yaml
from torchstrata.matrix.matrix import MATRIX, ROOT
from torchstrata.release import ledger_branch
from torchstrata.verification import evidence

LOCK = next(iter(sorted((ROOT / "locks").glob("*/*/base.lock"))))
OS_LOCK = ROOT / "locks" / "os" / "debian12.lock"


def pipe(path: Path) -> None:
    """Make a named pipe that nobody writes to."""
    os.mkfifo(path)


def listener(path: Path) -> None:
    """Make a socket, by a short name, as the kernel asks."""
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)


def loop(path: Path) -> None:
    """Make a link to itself."""
    path.symlink_to(path)


def long(path: Path) -> None:
    """Make a file of 100 GB that takes no room."""
    with path.open("wb") as file:
        file.truncate(100_000_000_000)


ODD = {"pipe": pipe, "socket": listener, "directory": Path.mkdir, "loop": loop, "long": long}
"""What may stand in a file's place, by name."""


def readers(root: Path) -> dict[str, tuple[Path, object, type[TorchstrataError]]]:
    """Return where each kind of file lies below ``root``, what reads it, and the error that it ends in."""
    (cell, *_) = matrix.load().cells
    return {
        "matrix": (root / "matrix.yaml", lambda: matrix.load(root / "matrix.yaml"), MatrixError),
        "lock": (root / wheel_locks.path_of(cell, "base"), lambda: wheel_locks.read(cell, "base", root), LockError),
        "OS lock": (os_locks.path(cell.os, root), lambda: os_locks.read(cell.os, root), LockError),
        "toolchain": (root / "locks/toolchain/x.lock", lambda: toolchain_lock.read("x", root), LockError),
        "requirements": (root / "requirements.txt", lambda: list(environment.read(root / "requirements.txt")), LockError),
        "evidence": (root / "verify.json", lambda: evidence.read(root / "verify.json"), EvidenceError),
        "context": (root / "images/x/rootfs/file", lambda: contexts.tree(root, "x"), OsPartError),
        "pip": (root / "pip.conf", lambda: pip_config.read({"PIP_CONFIG_FILE": str(root / "pip.conf")}), FetchError),
    }


KINDS = ("matrix", "lock", "OS lock", "toolchain", "requirements", "evidence", "context", "pip")
MAY_BE = {("context", "directory"), ("context", "loop"), ("pip", "loop")}
"""What may stand below rootfs (the next test), and a link to nothing, which pip takes for no file."""


@pytest.mark.parametrize(("kind", "odd"), [pair for pair in itertools.product(KINDS, ODD) if pair not in MAY_BE])
def test_what_is_no_file_or_too_long_is_refused(tmp_path, kind, odd) -> None:
    """A pipe, a socket, a directory, a loop of links, 100 GB: each reader ends in its own error, and reads no further than it may."""
    path, read, error = readers(tmp_path)[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    ODD[odd](path)
    with pytest.raises(error) as caught:
        read()
    assert caught.value.what.isprintable()


def test_links_below_rootfs_are_copied_and_never_followed(tmp_path) -> None:
    """To a device, to nothing, to themselves; but what a build itself reads must be a file."""
    folder = tmp_path / "images/x/rootfs"
    folder.mkdir(parents=True)
    for name, target in {"device": "/dev/zero", "nothing": "nowhere", "loop": "loop"}.items():
        (folder / name).symlink_to(target)
    assert [name for name, _, _ in contexts.tree(tmp_path, "x")] == ["rootfs/device", "rootfs/loop", "rootfs/nothing"]
    (tmp_path / "images/x/install").symlink_to("/etc/shadow")
    with pytest.raises(OsPartError, match="install is a symbolic link"):
        contexts.tree(tmp_path, "x")


def nested(place: Path, levels: int) -> None:
    """Make directories in each other, more than a path can name."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_directories_are_read_as_deep_as_they_may_be(tmp_path) -> None:
    """``rootfs`` is the first."""
    (tmp_path / "images/x/rootfs").mkdir(parents=True)
    nested(tmp_path / "images/x/rootfs", contexts.DEEPEST - 1)
    assert [name.count("/") for name, _, _ in contexts.tree(tmp_path, "x")] == [contexts.DEEPEST]


@pytest.mark.parametrize("levels", [contexts.DEEPEST, 1_150])
def test_directories_that_are_too_deep_are_refused(tmp_path, levels) -> None:
    """Code 18, not a traceback, however deep they are."""
    (tmp_path / "images/x/rootfs").mkdir(parents=True)
    nested(tmp_path / "images/x/rootfs", levels)
    try:
        with pytest.raises(OsPartError, match="more than 64 deep") as caught:
            contexts.tree(tmp_path, "x")
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "images"], check=True)  # pytest's own way ends in a traceback
    assert (caught.value.code, caught.value.what.isprintable()) == (18, True)


def test_a_device_is_not_read() -> None:
    """An endless one, in a file's place or below ``images/``."""
    with pytest.raises(files.UnreadableError, match="/dev/zero is a device, not a file"):
        files.read(Path("/dev/zero"), 10)
    with pytest.raises(OsPartError, match="rootfs/zero is a device, not a file"):
        contexts.check("rootfs/zero", Path("/dev/zero"), may_be_link=True)


# matrix.yaml


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('release: "13"', "release: 2026-01-01", "is read as a date"),
        ('release: "13"', "release: 2026-13-45", "a date or a number that is none"),
        ('release: "13"', "release: ~", "is read as a missing value"),
        ('release: "13"', "release: yes", "is read as a truth value"),
        ('release: "13"', "release: 13", "unquoted number"),
        ('release: "13"', "release: !!int foo", "has a tag"),
        ('release: "13"', "release: !!python/object/apply:os.system [id]", "has a tag"),
        ('release: "13"', 'release: "13\\n"', "control characters"),
        ('release: "13"', 'release: "\\e[2J"', "control characters"),
        ("own_layer_over: 40_000_000", f"own_layer_over: {'9' * 5_000}", "a number that is none"),
        ("own_layer_over: 40_000_000", f"own_layer_over: {'9' * 4_000}", "<="),
        ("own_layer_over: 40_000_000", "own_layer_over: .inf", "got `float`"),
        ("name: pytorch-cuda", "name: &a pytorch-cuda", "anchor"),
        ("name: pytorch-cuda", "name: *a", "anchor or an alias"),
        ("name: pytorch-cuda", f"name: {'[' * 100_000}", "level"),
        ("name: pytorch-cuda", f"name: {'{a: ' * 10_000}", "level"),
        ("name: pytorch-cuda", "name: pytorch-cuda\nname: other", "given twice"),
        ("name: pytorch-cuda", "name: pytorch-cuda\n<<: {x: y}", "merged key"),
        ("name: pytorch-cuda", "\tname: pytorch-cuda", "is not YAML"),
        ("name: pytorch-cuda", "name: pytorch-cuda\0", "is not YAML"),
    ],
)
def test_a_value_of_the_matrix_is_what_it_looks_like(tmp_path, old, new, says) -> None:
    """Dates, truth values, numbers, tags, anchors, nesting, keys given twice: code 10 and a line that says what to write."""
    text = MATRIX.read_text()
    assert old in text
    path = tmp_path / "matrix.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(MatrixError) as caught:
        matrix.load(path)
    assert says in caught.value.what
    assert f"{caught.value.what}{caught.value.fix}".isprintable()


def test_a_byte_order_mark_changes_nothing(tmp_path) -> None:
    """Some editors write one."""
    (tmp_path / "images").symlink_to(ROOT / "images")
    path = tmp_path / "matrix.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MATRIX.read_bytes())
    assert matrix.load(path) == matrix.load()


LETTERS = st.text(alphabet="{}[]:-&*!|>'\"#%@` \n\tab019.<~", max_size=60).map(str.encode)
"""Letters that mean something to YAML, in any order."""


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.one_of(of(MATRIX.read_bytes(), lines=False), st.binary(max_size=80), LETTERS))
def test_any_bytes_are_yaml_or_an_error(content) -> None:
    """Also a matrix in bits and pieces, as an editor or a merge leaves it."""
    found = outcome(lambda: plain_yaml.parse(content, "matrix.yaml"))
    assert isinstance(found, MatrixError) or not isinstance(found, TorchstrataError)


# Locks


@settings(derandomize=True, max_examples=150, deadline=None)
@given(of(LOCK.read_bytes(), lines=False))
def test_a_changed_lock_is_one_or_an_error(content) -> None:
    """What is read of it is what the file says, line by line: nothing is understood in two ways."""
    text = content.decode(errors="replace")
    found = outcome(lambda: lockfile.parse(text, "x.lock"))
    if isinstance(found, lockfile.Lock):
        assert lockfile.render(found).split("\n")[1:] == [*text.removesuffix("\n").split("\n")[1:], ""]
        assert all("/" not in pin.filename and not pin.filename.startswith(".") for pin in found.pins)
    else:
        assert isinstance(found, LockError)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(of(OS_LOCK.read_bytes(), lines=False))
def test_a_changed_lock_of_an_os_is_one_or_an_error(content) -> None:
    """Its pins become lines of apt's preferences, one each; its day is a day."""
    found = outcome(lambda: os_locks.parse("x", content.decode(errors="replace")))
    if isinstance(found, os_locks.OsLock):
        assert found.epoch > 0
        pins = found.installed(found.sections)
        assert os_locks.preferences(pins).count("\n") == 4 * len(pins) - bool(pins)
    else:
        assert isinstance(found, LockError)


@pytest.mark.parametrize(
    "line",
    ["evil=1\x0cother=2", "evil=1\u2028other=2", "../x=1", "Evil=1", "evil=1 2", "evil=", "evil=-1", "evil=\x1b[2J", "[evil name]", "date 2026-02-30", "apt=2"],
)
def test_a_line_of_an_os_lock_is_one_pin(line) -> None:
    """Ends of lines that only some programs see, names that are paths, days that are none, packages there twice."""
    with pytest.raises(LockError):
        os_locks.parse("x", f"date 2026-11-24\n\n[os]\napt=1\n{line}\n" if "date" not in line else f"{line}\n\n[os]\napt=1\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filename", "../../x.deb"),
        ("filename", "x.deb\n"),
        ("name", "x; id"),
        ("name", "-x"),
        ("version", "$(id)"),
        ("sha256", "../x"),
        ("suite", "--help"),
        ("size", -1),
    ],
)
def test_a_toolchain_names_a_package_and_no_path_or_command(tmp_path, field, value) -> None:
    """Its package's name goes through a shell, and its file's name becomes a path."""
    text = (ROOT / "locks/toolchain/cuda-12.4.lock").read_bytes()
    document = toolchain_lock.msgspec.json.decode(text)
    document["packages"][0][field] = value
    (tmp_path / "locks/toolchain").mkdir(parents=True)
    (tmp_path / "locks/toolchain/x.lock").write_bytes(toolchain_lock.msgspec.json.encode(document))
    with pytest.raises(LockError, match="is damaged"):
        toolchain_lock.read("x", tmp_path)


@pytest.mark.parametrize("asked", ["", "\x1b[2J", "-h", "2026-13-01", "0001-01-01T00:00:00+23:59", "tomorrow"])
def test_a_time_that_is_none_is_refused(asked) -> None:
    """``--exclude-newer``."""
    with pytest.raises(LockError, match="is no time"):
        lock_writer.cut_off(asked)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=80), of(released.result("sha256:" + "0" * 64) + b"\n")))
def test_changed_evidence_is_some_or_an_error(content) -> None:
    """What is read says of which image it is, and whether that has passed."""
    found = outcome(lambda: evidence.parse(content, "verify.json"))
    assert isinstance(found, evidence.Evidence | EvidenceError)
    if isinstance(found, evidence.Evidence):
        assert found.holds in {True, False}
        assert found.is_of("sha256:" + "0" * 64) in {True, False}


# Variables


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORCHSTRATA_REGISTRY", "\x1b[2J"),
        ("TORCHSTRATA_CACHE", "/tmp/\udcff"),
        ("PIP_INDEX_URL", "http://\x1bx"),
        ("GITHUB_ACTOR", "\u202eevil"),
        ("DOCKER_HOST", "tcp://[::1"),
        ("DOCKER_HOST", "tcp://h:99999"),
        ("https_proxy", "http://h:many"),
        ("HTTPS_PROXY", "ftp://h:1"),
        ("ALL_PROXY", "socks5://h:1"),
        ("http_proxy", "http://"),
        ("HTTP_PROXY", "[::1"),
        ("SSLKEYLOGFILE", "/"),
        ("SSLKEYLOGFILE", "/nowhere/keys"),
        ("SSLKEYLOGFILE", "long" * 100),
        ("COSIGN_PUBLIC_KEY", "x" * 70_000),
    ],
)
def test_a_value_that_cannot_be_is_refused(monkeypatch, name, value) -> None:
    """Before anything is done, with code 48 and the variable's name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(VariableError, match=name) as caught:
        variables.check()
    assert f"{caught.value.what}{caught.value.fix}".isprintable()


@pytest.mark.parametrize("name", variables.FILES)
def test_a_pipe_in_a_files_place_is_not_waited_for(monkeypatch, tmp_path, name) -> None:
    """Libraries and programs would."""
    pipe(tmp_path / "pipe")
    monkeypatch.setenv(name, str(tmp_path / "pipe"))
    with pytest.raises(VariableError, match="a named pipe, not a file"):
        variables.check()


@pytest.mark.parametrize(
    "pairs",
    [
        {"PIP_CONFIG_FILE": os.devnull},
        {"PIP_EXTRA_INDEX_URL": "https://a.example/simple\n  https://b.example/simple"},
        {"COSIGN_KEY": "awskms:///alias/x", "COSIGN_PUBLIC_KEY": "/nowhere"},
        {"DOCKER_HOST": "unix:///run/docker.sock", "http_proxy": "http://proxy.example:3128", "HTTPS_PROXY": ""},
        {"REQUESTS_CA_BUNDLE": "/etc"},
        {"NETRC": os.devnull, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        {"http_proxy": "proxy.example:3128", "HTTPS_PROXY": "https://user:word@proxy.example:3128/"},
    ],
    ids=["null device", "several lines", "keys", "sockets and proxies", "a directory of certificates", "no logins, no settings", "a proxy by name"],
)
def test_what_teams_have_set_is_accepted(monkeypatch, pairs) -> None:
    """A file that is missing is told of where it is needed."""
    for name, value in pairs.items():
        monkeypatch.setenv(name, value)
    variables.check()


@pytest.mark.parametrize("name", variables.NETRCS)
@pytest.mark.parametrize("wrong", ["pipe", "socket", "long", "random"])
def test_logins_that_are_no_text_are_refused(monkeypatch, tmp_path, name, wrong) -> None:
    """``~/.netrc``, and what ``NETRC`` names: libraries would wait for a pipe, and end in a traceback for random bytes."""
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ODD.get(wrong, lambda path: path.write_bytes(b"machine \xff\xfe\x80"))(tmp_path / name)
    with pytest.raises(VariableError, match=rf"logins of servers: .*{name}"):
        variables.check()


@pytest.mark.parametrize("made", [Path.mkdir, lambda path: path.symlink_to("/nowhere"), lambda path: path.symlink_to(os.devnull), Path.touch])
def test_logins_that_libraries_pass_over_are_passed_over(monkeypatch, tmp_path, made) -> None:
    """A directory, a link to nothing, the null device, an empty file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made(tmp_path / ".netrc")
    variables.check()


def test_github_without_its_variables_is_one_line(monkeypatch, tmp_path) -> None:
    """Somebody has set one of them by hand."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_ACTOR", raising=False)
    with pytest.raises(VariableError, match="GITHUB_ACTOR is not set"):
        ledger_branch.author(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"\xff", b'{"currentContext": 5}', b'{"auths": []}', b'{"credHelpers": {"h": 1}}', b"[" * 100_000],
    ids=lambda each: each[:12].decode("latin1"),
)
def test_dockers_configuration_of_another_shape_is_refused(monkeypatch, tmp_path, content) -> None:
    """Docker's own library ends in a traceback."""
    (tmp_path / "config.json").write_bytes(content)
    monkeypatch.setenv(docker_config.VARIABLE, str(tmp_path))
    with pytest.raises(VariableError, match="Docker's configuration"):
        docker_config.check()


@pytest.mark.parametrize(("name", "value"), [("PIP_TIMEOUT", "abc"), ("PIP_RETRIES", "nan"), ("PIP_RETRIES", "-1"), ("PIP_TIMEOUT", "1e99")])
def test_pips_numbers_are_numbers(name, value) -> None:
    """From 0 to what makes sense."""
    with pytest.raises(FetchError, match="pip's"):
        pip_config.read({"PIP_CONFIG_FILE": os.devnull, name: value})


@settings(derandomize=True, max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=200))
def test_any_text_is_a_value_or_an_error(monkeypatch, value) -> None:
    """Surrogates included, which stand for bytes that are no UTF-8."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return  # no environment can hold it
    monkeypatch.setenv("TORCHSTRATA_REGISTRY", value)
    found = outcome(lambda: variables.text("TORCHSTRATA_REGISTRY"))
    assert isinstance(found, VariableError) or found is None or (isinstance(found, str) and found.isprintable())


@settings(derandomize=True, max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 300))
def test_a_file_is_read_up_to_its_limit(tmp_path, content, limit) -> None:
    """All of it, or an error."""
    (tmp_path / "file").write_bytes(content)
    found = outcome(lambda: files.read(tmp_path / "file", limit))
    assert found == content if len(content) <= limit else isinstance(found, files.UnreadableError)
