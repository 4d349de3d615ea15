"""Images that people derive: steps as root and as the user, OS packages, stages, ONBUILD."""

from __future__ import annotations

import functools
import shutil

import pytest

from tests.images.boxes import mounted

VERSION = "import importlib.metadata; print(importlib.metadata.version('probe'))"

ALTERNATIVES = r"""
set -e
mkdir -p /tmp/deb/DEBIAN /tmp/deb/usr/bin /tmp/deb/usr/share/man/man1
printf 'Package: probe\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: probe\n' >/tmp/deb/DEBIAN/control
cat >/tmp/deb/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
: >/usr/share/man/man1/probe-1.1.gz
update-alternatives --install /usr/bin/probe probe /usr/bin/probe-1 1 --slave /usr/share/man/man1/probe.1.gz probe.1.gz /usr/share/man/man1/probe-1.1.gz
END
chmod 755 /tmp/deb/DEBIAN/postinst
printf '#!/bin/sh\necho works\n' >/tmp/deb/usr/bin/probe-1
chmod 755 /tmp/deb/usr/bin/probe-1
: >/tmp/deb/usr/share/man/man1/probe-1.1.gz
dpkg-deb --build /tmp/deb /tmp/probe.deb >/dev/null
dpkg --install /tmp/probe.deb >/dev/null
probe
"""
"""Installs a package whose program and manual page are alternatives, as those of Java are."""


@pytest.fixture
def building(start, index):
    """A container whose first process is root's, as in steps of a build after ``USER root``."""
    return start("infinity", entrypoint=["sleep"], user="0:0", volumes=mounted(index, "/wheels", "ro"), network_mode="none")


def test_package_with_manual_pages(building):
    """A package whose manual page is an alternative installs, though no manual page is kept."""
    done = building.run("bash", "-c", ALTERNATIVES, user="0:0")
    assert (done.status, done.out.splitlines()[-1:]) == (0, ["works"]), done.out + done.err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("pip install", "uv pip install"),
        ("uv pip install", "pip install"),
        *(pytest.param(*pair, marks=pytest.mark.costly) for pair in (("pip install",) * 2, ("uv pip install",) * 2)),
        *(pytest.param("python -m pip install", after, marks=pytest.mark.costly) for after in ("pip install", "uv pip install")),
    ],
)
def test_user_upgrades_what_root_installed(building, before, after):
    """What root's installer puts into ``/opt/venv`` the user can upgrade, by either installer, and nothing is left over."""
    options = "-q --no-index --find-links /wheels"
    first = building.run("bash", "-c", f"{before} {options} probe==1", user="0:0")
    assert first.status == 0, first.err
    second = building.run("bash", "-c", f'{after} {options} probe==2 && python -c "{VERSION}"', user="1000:0")
    assert (second.status, second.out) == (0, "2\n"), second.err
    assert building.run("bash", "-c", "ls -d /opt/venv/lib/python3*/site-packages/~*").status != 0


def test_only_installing_shares_with_the_group(building):
    """Other files that root's Python writes are root's alone to change."""
    building.run("bash", "-c", 'cd /root && python -c \'open("made", "w")\'', user="0:0")
    assert building.run("stat", "-c", "%a", "/root/made", user="0:0").out == "644\n"


@pytest.mark.costly
@pytest.mark.parametrize("command", ["su - dev -c", "su dev -c", "runuser -l dev -c"])
def test_shell_of_the_user(building, expected, command):
    """A login shell that root opens for the user finds torch, though it keeps nothing of the environment."""
    done = building.run("bash", "-c", f"{command} \"python -c 'import torch; print(torch.__version__)'\"", user="0:0")
    assert done.status == 0, done.err
    assert done.out.startswith(expected.cell.version)


def test_shell_of_root(building):
    """A login shell of root's gets no environment of the user's by it."""
    assert "/opt/venv" not in building.run("env", "-i", "PATH=/usr/bin:/bin", "bash", "-lc", "echo $PATH", user="0:0").out


@pytest.fixture
def build(derive, index, tmp_path):
    """Build a Dockerfile over the image, or over another, with the wheels beside it; return the name of what was built."""
    shutil.copytree(index, tmp_path / "wheels")
    return functools.partial(derive, context=tmp_path)


STAGES = """\
FROM IMAGE AS build
COPY --chown=1000:0 wheels /tmp/wheels
RUN pip download --no-index --find-links /tmp/wheels --dest /tmp/made probe==2
FROM IMAGE
COPY --from=build /tmp/made /tmp/made
RUN pip install --no-index --no-cache-dir /tmp/made/*.whl
"""

ROOT_AND_BACK = """\
FROM IMAGE
USER 0:0
COPY wheels /tmp/wheels
RUN pip install --no-index --find-links /tmp/wheels probe==1 && echo done >/etc/made
USER 1000:0
RUN pip install --no-index --find-links /tmp/wheels --upgrade probe
"""


@pytest.mark.costly
@pytest.mark.parametrize("text", [STAGES, ROOT_AND_BACK], ids=["stages", "root and back"])
def test_derived(build, start, text):
    """An image of stages, and one with steps of root's between the user's, starts as the user with the package and torch."""
    box = start("python", "-c", f"import torch; {VERSION}", image=build(text))
    assert (box.ended(), box.container.logs(stderr=False).decode()) == (0, "2\n"), box.log


@pytest.mark.costly
def test_onbuild(build, start):
    """Steps that an image leaves for those derived of it run there, as the user."""
    parent = build("FROM IMAGE\nONBUILD COPY --chown=1000:0 wheels /tmp/wheels\nONBUILD RUN pip install --no-index --find-links /tmp/wheels probe==1\n")
    box = start("python", "-c", VERSION, image=build("FROM IMAGE\n", base=parent))
    assert (box.ended(), box.container.logs(stderr=False).decode()) == (0, "1\n"), box.log
