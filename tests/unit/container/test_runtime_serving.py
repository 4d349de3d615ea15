"""What the variables of the inference server may be, before any server is started."""

from __future__ import annotations

import pytest
from container.settings import SettingError
from services import serve
from serving import settings


def test_nothing_given_is_the_default():
    """Without variables the default network is served, one process of each kind."""
    wanted = settings.read({})
    assert (wanted.model, wanted.weights, wanted.batch, wanted.workers, wanted.size) == ("", "", 8, 1, 224)


def test_what_is_given_is_read():
    """Every variable has its field."""
    given = {"SERVE_MODEL": "shop.nets:dents", "SERVE_WEIGHTS": "/models/a.pth", "SERVE_BATCH": "32", "SERVE_WAIT": "0", "SERVE_TOP": "1"}
    wanted = settings.read(given)
    assert (wanted.model, wanted.weights, wanted.batch, wanted.wait, wanted.top) == ("shop.nets:dents", "/models/a.pth", 32, 0, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVE_MODEL", "resnet50"),
        ("SERVE_MODEL", "a b:c"),
        ("SERVE_MODEL", "os:system('x')"),
        ("SERVE_WORKER", ":x"),
        ("SERVE_BATCH", "0"),
        ("SERVE_BATCH", "1025"),
        ("SERVE_BATCH", "08" * 9),
        ("SERVE_WAIT", "-1"),
        ("SERVE_TOP", "\u0663"),
    ],
)
def test_what_cannot_be_is_refused(name, value):
    """With the variable's name and what to write, by the server and by the start of a container alike."""
    with pytest.raises(settings.WantedError) as caught:
        settings.read({name: value})
    assert caught.value.what.startswith(f"{name}=")
    assert caught.value.fix
    with pytest.raises(SettingError):
        serve.check({name: value})


def test_files_that_are_there_are_fine(tmp_path):
    """Nothing is said of a file that can be read, and of none given."""
    (tmp_path / "weights").write_bytes(b"x")
    settings.check_files(settings.read({"SERVE_WEIGHTS": str(tmp_path / "weights")}))
    settings.check_files(settings.read({}))


@pytest.mark.parametrize("name", ["SERVE_WEIGHTS", "SERVE_LABELS"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    """With its variable, its path and the reason."""
    with pytest.raises(settings.WantedError, match=f"{name}={tmp_path}/none cannot be read: No such file"):
        settings.check_files(settings.read({name: f"{tmp_path}/none"}))
