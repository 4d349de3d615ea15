"""Environments that people make in a container: plain ones work, and those that may see the system's packages see the image's torch."""

from __future__ import annotations

import pytest

from tests.images.boxes import mounted

HAS_TORCH = "import importlib.util; print(importlib.util.find_spec('torch') is not None)"
VERSION = "import importlib.metadata; print(importlib.metadata.version('probe'))"


@pytest.fixture(scope="module")
def box(start_shared, index):
    """A container with these wheels and no network."""
    return start_shared("sleep", "infinity", volumes=mounted(index, "/wheels", "ro"), network_mode="none")


def said(box, command, user="1000:0"):
    """Return what a command that must succeed prints."""
    done = box.run("bash", "-c", command, user=user)
    assert done.status == 0, done.out + done.err
    return done.out.strip()


@pytest.mark.costly
@pytest.mark.parametrize("user", ["1000:0", "4321:0"])
def test_plain(box, user):
    """``python -m venv`` makes an environment with a pip that works and without the image's packages, for any user."""
    place = f"/tmp/plain-{user[:4]}"
    said(box, f"python -m venv {place} && {place}/bin/pip install -q --no-index --find-links /wheels probe==1", user)
    assert said(box, f'{place}/bin/python -c "{VERSION}"', user) == "1"
    assert said(box, f'{place}/bin/python -c "{HAS_TORCH}"', user) == "False"


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("venv", "python -m venv --system-site-packages"),
        ("bare", "python -m venv --without-pip --system-site-packages"),
        ("system", "/usr/bin/python3 -m venv --system-site-packages"),
        ("uv", "uv venv -q --offline --system-site-packages"),
    ],
)
def test_that_sees_the_system(box, expected, name, command):
    """An environment that may see the system's packages sees torch, and a package of its own comes before the image's."""
    said(box, "pip install -q --no-index --find-links /wheels probe==1")
    place = f"/tmp/seeing-{name}"
    said(box, f"{command} {place}")
    assert said(box, f"{place}/bin/python -c 'import torch; print(torch.__version__)'").startswith(expected.cell.version)
    assert said(box, f'{place}/bin/python -c "{VERSION}"') == "1"
    said(box, f"VIRTUAL_ENV={place} uv pip install -q --no-index --find-links /wheels probe==2")
    assert said(box, f'{place}/bin/python -c "{VERSION}"') == "2"
    assert said(box, f'python -c "{VERSION}"') == "1"


@pytest.mark.parametrize("user", ["1000:0", "0:0"])
def test_system_python(box, user):
    """The system's own Python, which root's programs run in, does not look into ``/opt/venv``, where the user may write."""
    assert said(box, f'/usr/bin/python3 -c "{HAS_TORCH}"', user) == "False"
    assert "/opt/venv" not in said(box, "/usr/bin/python3 -c 'import sys; print(sys.path)'", user)
