"""Who to become, where home is, what a passwd entry says."""

from __future__ import annotations

import os

import pytest
from container import adoption, belongings, locales, mounts, state, users
from container.adoption import Owner


@pytest.mark.parametrize(
    ("owner", "in_namespace", "chosen"),
    [
        (None, False, (1000, 0)),
        (Owner(1234, 5678), False, (1234, 5678)),
        (Owner(1234, 5678), True, (1234, 5678)),
        (Owner(0, 0), False, (1000, 0)),
        (Owner(0, 0), True, (0, 0)),
        (None, True, (1000, 0)),
        (Owner(65534, 65534), True, (1000, 0)),
    ],
)
def test_whom_root_becomes(owner, in_namespace, chosen):
    """The owner of a mounted workspace; dev for root's or nobody's; root only in a user namespace, where it is no root."""
    assert adoption.choose(owner, in_namespace=in_namespace) == chosen


@pytest.mark.parametrize(
    ("text", "expected"), [("         0          0 4294967295\n", False), ("         0       1000          1\n", True), ("0 100000 65536", True)]
)
def test_user_namespace(text, expected):
    """Only the initial namespace maps everything to itself."""
    assert adoption.in_user_namespace(text) is expected


@pytest.mark.parametrize(("status", "found"), [("CapEff:\t00000000000000c1\n", {0, 6, 7}), ("CapEff:\t0000000000000000\n", set()), ("", set())])
def test_capabilities(status, found):
    """The mask of /proc/PID/status is read as numbers of capabilities."""
    assert adoption.capabilities(status) == found


@pytest.mark.parametrize(("asked", "chosen"), [("own", "own"), ("", "usual"), ("/", "usual"), ("/root", "usual"), ("missing", "usual")])
def test_home(tmp_path, asked, chosen):
    """The home asked for is used where it can be; root's is not, since nobody here is root."""
    for name in ("own", "usual"):
        (tmp_path / name).mkdir()
    wanted = str(tmp_path / asked) if asked in {"own", "missing"} else asked
    assert users.choose_home(wanted, 1000, tmp_path / "usual", tmp_path / "spare") == tmp_path / chosen


def test_home_that_cannot_be_one(tmp_path):
    """A path that the kernel refuses to look up, as one with a name of 300 letters or below what only another user may enter, ends no start."""
    (tmp_path / "usual").mkdir()
    assert users.choose_home(f"/{300 * 'a'}", 1000, tmp_path / "usual", tmp_path / "spare") == tmp_path / "usual"


def test_spare_home(tmp_path):
    """Where no home is there, a private one is made."""
    assert users.choose_home("", 1000, tmp_path / "usual", tmp_path / "spare") == tmp_path / "spare"
    assert (tmp_path / "spare").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", ["writable by others", "a link"])
def test_spare_home_of_somebody_else(tmp_path, planted):
    """A home that others may have filled, as in a shared ``/tmp``, is never used: a new one is made beside it."""
    (tmp_path / "elsewhere").mkdir()
    if planted == "a link":
        (tmp_path / "spare").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "spare").mkdir()
        (tmp_path / "spare").chmod(0o777)
    found = users.choose_home("", 1000, tmp_path / "usual", tmp_path / "spare")
    assert (found.parent, found.name.startswith("spare-"), found.stat().st_mode & 0o777) == (tmp_path, True, 0o700)


def test_nowhere_for_a_home(tmp_path, capsys):
    """Where not even a spare home can be made, the usual one is named all the same, with a line that says why."""
    assert users.choose_home("", 1000, tmp_path / "usual", tmp_path / "missing/spare") == tmp_path / "usual"
    assert "missing cannot be written: user 1000 has no home" in capsys.readouterr().err


MOUNTINFO = r"""22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a
30 22 0:30 / /workspace rw,relatime shared:1 - ext4 /dev/vda1 rw
31 22 0:31 /x /with\040space ro,relatime - nfs4 host:/x rw
32 22 0:30 / /workspace ro,relatime - ext4 /dev/vda1 rw
"""


def test_mounts(tmp_path):
    """Mounts are read with their escapes; the last one at a path counts; a path is held by the longest."""
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    found = mounts.read(tmp_path / "mountinfo")
    assert mounts.at("/workspace", found) == mounts.Mount("/workspace", "ext4", read_only=True)
    assert mounts.at("/with space", found) == mounts.Mount("/with space", "nfs4", read_only=True)
    assert mounts.at("/home", found) is None
    assert mounts.below("/workspace/data", found).kind == "ext4"
    assert mounts.below("/home", found).kind == "overlay"
    assert mounts.is_volume("/workspace/data", found)
    assert not mounts.is_volume("/home/dev", found)


def mounted(*paths):
    """Return mounts at these paths."""
    return tuple(mounts.Mount(path, "ext4", read_only=False) for path in paths)


@pytest.mark.parametrize(
    ("path", "lineage"),
    [
        ("/data", ["/data"]),
        ("/a/b", ["/a", "/a/b"]),
        ("/home/dev/.cache/x", ["/home/dev", "/home/dev/.cache", "/home/dev/.cache/x"]),
        ("/mnt/disk", ["/mnt/disk"]),
        ("/database", ["/database"]),  # which is not in ``/data``
        ("/etcetera", ["/etcetera"]),
        *((path, []) for path in ("/", "/etc/hosts", "/usr/local/bin", "/root/.cache", "/opt/cuda/lib", "/opt/cuda-12.4", "/tmp", "/var/lib/x", "/proc/acpi")),
    ],
)
def test_what_an_engine_makes(path, lineage):
    """A mount point and its parents, but for what is the system's, where root finds programs, and what every image has."""
    assert list(belongings._chain(mounted(path))) == lineage


def test_what_is_not_root_s_is_not_looked_through(tmp_path, monkeypatch):
    """A start lists no directory that it hands over in no case: a data set may have millions of files."""
    monkeypatch.setattr(belongings.os, "scandir", lambda *_: pytest.fail("it was listed"))
    tmp_path.chmod(0o777)
    assert not belongings._is_given(str(tmp_path), {})


def test_names_that_a_directory_may_hold(tmp_path):
    """What an engine has made is told by its names."""
    (tmp_path / "lost+found").mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert belongings._holds_only(descriptor, {"lost+found"})
    assert not belongings._holds_only(descriptor, {"other"})
    os.close(descriptor)


def test_directory_that_is_no_mount_is_not_handed_over(tmp_path):
    """An empty directory in a mount is none, whatever the table of mounts says."""
    tmp_path.chmod(0o700)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert not belongings._is_of_engine(descriptor, str(tmp_path), {})
    os.close(descriptor)


def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    """All of it is named at once, with one command that cures it and names no directory; below home alone where that is asked for."""
    monkeypatch.setattr(belongings.os, "access", lambda *_: False)
    monkeypatch.setattr(belongings.users, "HOME", tmp_path)
    monkeypatch.setattr(belongings, "SYSTEM", ())
    (tmp_path / "a/b").mkdir(parents=True)
    found = mounted(str(tmp_path / "a/b"), "/home")
    (problem,) = belongings.problems(1000, 0, found, home_only=True)
    assert problem.what == f"{tmp_path}/a {tmp_path}/a/b cannot be written by 1000:0"
    assert str(tmp_path) not in problem.fix


@pytest.mark.parametrize(("name", "known"), [("C", True), ("POSIX", True), ("xx_YY.UTF-8", False), ("a\0b", False), ("C" * 5000, False)])
def test_locales(name, known):
    """The C library says which locales there are; a name that is none breaks nothing."""
    assert locales.exists(name) is known


def test_unknown_locales_are_replaced(capsys):
    """Only what is unknown has another value, and one line names it."""
    given = {"LANG": "xx_YY", "LC_TIME": "C", "LC_ALL": "", "LANGUAGE": "xx", "LC_CTYPE": "yy_XX"}
    assert locales.environment(given) == {"LANG": "C.UTF-8", "LC_CTYPE": "C.UTF-8"}
    assert capsys.readouterr().err == "torchstrata: LANG=xx_YY, LC_CTYPE=yy_XX: no such locale here, C.UTF-8 is used\n"


@pytest.fixture
def processes(monkeypatch, tmp_path):
    """Return a function that adds a process to those that are seen: its number, user, time, container, and whether it shows its namespace."""
    monkeypatch.setattr(state, "FIRST_PROCESS", tmp_path / "1")
    monkeypatch.setattr(state, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(state, "_users", lambda: iter([4242]))
    (tmp_path / "own").write_text("0::/\n")

    def add(number, uid, began, *, here=True, shown=False):
        process = tmp_path / str(number)
        (process / "ns").mkdir(parents=True)
        (process / "status").write_text(f"Uid:\t{uid}\t{uid}\nGid:\t{uid + 1}\t{uid + 1}\n")
        (process / "stat").write_text(f"{number} (a ) b) S {'0 ' * 18}{began} 0\n")
        (process / "cgroup").write_text("0::/\n" if here and not shown else "0::/../another\n")
        if shown:
            (process / "ns/mnt").symlink_to(state.NAMESPACE if here else tmp_path / "own")
        return process

    return add


@pytest.mark.parametrize("shown", [True, False])
def test_user_of_a_container_is_whose_its_first_process_is(processes, shown):
    """Where process 1 is of this container, nobody who began before it elsewhere, or has a directory beside its own, becomes its user."""
    processes(1, 1000, 7, shown=shown)
    processes(2, 5555, 3, shown=shown)
    assert state.user() == (1000, 1001)


@pytest.mark.parametrize("shown", [True, False])
def test_user_of_a_container_among_others(processes, shown):
    """In a pod whose containers see each other's processes, it is whose process began first of this container's own."""
    processes(1, 65535, 1, here=False, shown=shown)
    processes(3, 2000, 2, here=False, shown=shown)
    processes(900, 1000, 5, shown=shown)
    processes(20, 4242, 6, shown=shown)  # numbers begin anew at the kernel's limit
    assert state.user() == (1000, 1001)


def test_user_below_an_init_of_root_s(processes):
    """An init of root's, here or in a container that shares processes, tells nothing of the user; its first child does."""
    processes(1, 0, 1, here=False)
    children = processes(7, 0, 2) / "task/7/children"
    children.parent.mkdir(parents=True)
    children.write_text("12 9")
    processes(9, 1000, 3)
    processes(12, 4242, 3)
    assert state.user() == (1000, 1001)


def test_user_of_a_container_that_shows_no_process(processes):
    """Where no process of this container can be told, it is whoever has a directory here."""
    processes(1, 0, 1, here=False)
    assert state.user() == (4242, 0)
