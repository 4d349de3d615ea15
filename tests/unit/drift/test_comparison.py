"""How a container differs from an image: what is named, and what a package or an environment explains."""

from __future__ import annotations

import pytest

from torchstrata.drift import comparison
from torchstrata.drift.contents import Contents, FileState, InstalledWheel

SITE = "/opt/venv/lib/python3.11/site-packages"
USER = "/home/dev/.local/lib/python3.11/site-packages"
PACKAGES = {"libc6:amd64": "2.36-9", "less:amd64": "590-2"}
CODE = FileState("file", 0o664, 1000, 0, "a" * 64, "wheel numpy")
BINARY = FileState("file", 0o755, 0, 0, "b" * 64, "package less")
PROFILE = FileState("file", 0o644, 0, 0, "c" * 64)


def wheel(name, version, place=SITE, uid=1000, **more):
    """Return an installed package."""
    return InstalledWheel(name, version, f"{place}/{name}-{version}.dist-info", uid=uid, **more)


WHEELS = (wheel("numpy", "2.4.6"), wheel("torch", "2.13.0"))


def contents(wheels=WHEELS, packages=PACKAGES, **files):
    """Return what an image or a container has."""
    return Contents(tuple(wheels), packages, files.pop("files", {}))


def lines(here, image=None, brought=None):
    """Return what is said, in words that are easy to compare."""
    drifts = comparison.compare(image or contents(), here, brought or {})
    return [" ".join(drift.line().split()) for drift in drifts]


def test_no_difference():
    """What is the same is not named, whoever owns the package's directory."""
    assert lines(contents()) == []
    assert lines(contents([drift._replace(uid=5000) for drift in WHEELS])) == []


@pytest.mark.parametrize(
    ("wheels", "says"),
    [
        ([*WHEELS, wheel("six", "1")], "added wheel six 1"),
        ([*WHEELS, wheel("six", "1", uid=0)], "added wheel six 1 (by root)"),
        ([*WHEELS, wheel("six", "1", USER)], f"added wheel six 1 (in {USER})"),
        ([*WHEELS, wheel("six", "1", source="file:///src", editable=True)], "added wheel six 1 (editable, its code is at file:///src)"),
        ([*WHEELS, wheel("six", "1", source="git+https://example/six@abc")], "added wheel six 1 (from git+https://example/six@abc)"),
        ([*WHEELS, wheel("numpy", "1.26", USER)], f"added wheel numpy 1.26 (in {USER})"),
        ([WHEELS[1]], "removed wheel numpy 2.4.6"),
        ([wheel("numpy", "1.26"), WHEELS[1]], "changed wheel numpy 2.4.6 -> 1.26"),
        ([wheel("numpy", "2.4.6", source="file:///numpy.whl"), WHEELS[1]], "changed wheel numpy 2.4.6 -> 2.4.6 (from file:///numpy.whl)"),
        ([WHEELS[0], wheel("torch", "2.99")], "changed torch torch 2.13.0 -> 2.99"),
        ([*WHEELS, wheel("nvidia-nccl-cu12", "9")], "added torch nvidia-nccl-cu12 9"),
    ],
)
def test_python_packages(wheels, says):
    """Each with how it came there; torch and its CUDA under a name of their own."""
    assert lines(contents(wheels)) == [says]


@pytest.mark.parametrize(
    ("packages", "says"),
    [
        (PACKAGES | {"tree:amd64": "2"}, "added package tree:amd64 2"),
        ({"libc6:amd64": "2.36-9"}, "removed package less:amd64 590-2"),
        (PACKAGES | {"libc6:amd64": "2.36-10"}, "changed package libc6:amd64 2.36-9 -> 2.36-10"),
    ],
)
def test_os_packages(packages, says):
    """By version and architecture."""
    assert lines(contents(packages=packages)) == [says]


@pytest.mark.parametrize(
    ("path", "before", "after", "says"),
    [
        (f"{SITE}/numpy/a.py", CODE, CODE._replace(digest="x"), f"edited file {SITE}/numpy/a.py (wheel numpy)"),
        (f"{SITE}/numpy/a.py", CODE, CODE._replace(mode=0o600), f"mode file {SITE}/numpy/a.py (664 1000:0 -> 600 1000:0, wheel numpy)"),
        (f"{SITE}/numpy/a.py", CODE, CODE._replace(uid=0), f"mode file {SITE}/numpy/a.py (664 1000:0 -> 664 0:0, wheel numpy)"),
        (f"{SITE}/numpy/a.py", CODE, FileState(), f"removed file {SITE}/numpy/a.py (wheel numpy)"),
        (f"{SITE}/numpy/a.py", CODE, FileState("link", 0o777, 0, 0, "/x"), f"edited file {SITE}/numpy/a.py (wheel numpy)"),
        (f"{SITE}/extra.py", FileState(), CODE._replace(owner=""), f"added file {SITE}/extra.py"),
        ("/usr/bin/less", BINARY, BINARY._replace(digest="x"), "edited file /usr/bin/less (package less)"),
        ("/etc/profile", PROFILE, PROFILE._replace(digest="x"), "edited file /etc/profile"),
        ("/usr/local/bin/hello", FileState(), BINARY._replace(owner=""), "added file /usr/local/bin/hello"),
    ],
)
def test_files(path, before, after, says):
    """Content, rights, owner and kind; with who has brought it."""
    assert lines(contents(files={path: after}), contents(files={path: before})) == [says]


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/numpy/__pycache__/a.cpython-311.pyc",
        "/workspace/train.py",
        "/home/dev/.cache/torch/x",
        "/var/log/apt/history.log",
        "/tmp/x",
        "/etc/hosts",
        "/etc/ld.so.cache",
        "/data/set.bin",
    ],
)
def test_what_is_no_drift(path):
    """Bytecode, data, caches, logs, and what an engine writes."""
    assert not comparison.is_tracked(path)
    assert lines(contents(files={path: CODE._replace(owner="")})) == []


def test_directories_are_named_by_what_is_in_them():
    """A new one is not named; one with other rights is."""
    there = FileState("directory", 0o775, 1000, 0)
    assert lines(contents(files={f"{SITE}/numpy": there}), contents()) == []
    assert lines(contents(files={f"{SITE}/numpy": there._replace(mode=0o700)}), contents(files={f"{SITE}/numpy": there}))


def test_files_of_packages_that_differ_are_not_named():
    """The package is, whether the image or only the container has it."""
    new = FileState("file", 0o664, 1000, 0, "x")
    image = contents(files={f"{SITE}/numpy/a.py": CODE, "/usr/bin/less": BINARY})
    here = contents(
        [wheel("numpy", "1"), WHEELS[1]],
        {"libc6:amd64": "2.36-9"},
        files={f"{SITE}/numpy/a.py": FileState(), "/usr/bin/less": FileState(), f"{SITE}/numpy/b.py": new},
    )
    assert lines(here, image, {f"{SITE}/numpy/b.py": "wheel numpy"}) == ["changed wheel numpy 2.4.6 -> 1", "removed package less:amd64 590-2"]


@pytest.mark.parametrize(
    ("path", "before", "is_named"),
    [
        ("/etc/alternatives/pager", FileState(), False),
        ("/etc/passwd", PROFILE, False),
        ("/usr/share/mime/mime.cache", PROFILE, False),
        ("/etc/profile", PROFILE, True),
        ("/usr/local/bin/x", FileState(), True),
        ("/opt/x", FileState(), True),
    ],
)
def test_what_scripts_of_packages_write(path, before, is_named):
    """Is theirs where OS packages differ; without that it is somebody's."""
    after = PROFILE._replace(digest="x")
    image = contents(files={path: before})
    assert any(path in line for line in lines(contents(packages=PACKAGES | {"tree:amd64": "2"}, files={path: after}), image)) is is_named
    assert any(path in line for line in lines(contents(files={path: after}), image))


@pytest.mark.parametrize(("mark", "prefix"), [("/opt/conda/conda-meta", "/opt/conda"), ("/home/dev/env/pyvenv.cfg", "/home/dev/env")])
def test_environments_beside_the_image(mark, prefix):
    """Are named once, and nothing in them; one within another belongs to it."""
    added = {mark: FileState("directory", 0o755), f"{prefix}/bin/python": BINARY._replace(owner=""), f"{prefix}/envs/b/pyvenv.cfg": PROFILE}
    assert lines(contents(files=added)) == [f"added environment {prefix} (a Python beside the image's)"]


def test_the_environment_of_the_image_is_none_beside_it():
    """Its configuration is a file as others are."""
    assert lines(contents(files={"/opt/venv/pyvenv.cfg": PROFILE})) == ["added file /opt/venv/pyvenv.cfg"]
