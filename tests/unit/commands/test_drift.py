"""What ``inv drift`` prints, and how it ends."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest

from torchstrata.building import engine as engines
from torchstrata.commands import drift, verbs
from torchstrata.commands.container_options import DriftOptions
from torchstrata.drift import freeze, reading
from torchstrata.drift.comparison import Drift
from torchstrata.drift.freeze import FrozenPlan
from torchstrata.drift.reading import Drifted, InspectedContainer
from torchstrata.errors import DriftError

DIGEST = f"sha256:{'a' * 64}"
PUSHED = f"registry.example/team/pytorch-cuda@{DIGEST}"
EDITED = Drift("removed", "file", "/etc/profile")
BESIDE = Drift("added", "environment", "/opt/conda", note="a Python beside the image's")


@pytest.fixture
def container(monkeypatch):
    """Let a container differ in what a test says."""

    def differ(*drifts):
        labels = {reading.CELL: "2.13-cpu-debian12"}
        subject = InspectedContainer(id="c" * 64, name="desk", image="sha256:a", named="pytorch-cuda:v2.13", digests=(), labels=labels, user="1000:0")
        found = Drifted(container=subject, against="sha256:a", drifts=drifts, wheels=(), records={})
        monkeypatch.setattr(engines, "connect", lambda: SimpleNamespace(client=SimpleNamespace(api=None)))
        monkeypatch.setattr(reading, "drift", lambda engine, name, against: found)

    return differ


def run(line):
    """Run the verb with what is typed."""
    drift.run(verbs.find("drift").parse(line.split()))


def test_no_drift(container, capsys, tmp_path):
    """Is said, and ends well; there is nothing to freeze."""
    container()
    run("desk")
    run(f"desk --freeze {tmp_path}/new")
    assert "desk is what pytorch-cuda:v2.13 is" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_drift(container, capsys):
    """A line for each, a code of its own, and what to do."""
    container(EDITED, BESIDE)
    with pytest.raises(DriftError, match="differs from its image in 2") as caught:
        run("desk")
    assert "--freeze" in caught.value.fix
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [
        ["removed", "file", "/etc/profile"],
        ["added", "environment", "/opt/conda"],
    ]


def test_drift_for_programs(container, capsys):
    """The same as JSON."""
    container(EDITED)
    with pytest.raises(DriftError):
        run("desk --json")
    found = json.loads(capsys.readouterr().out)
    assert found["drift"] == [EDITED._asdict()]
    assert (found["cell"], found["not_frozen"]) == ("2.13-cpu-debian12", None)


@pytest.mark.parametrize(("drifts", "is_all"), [((EDITED,), True), ((EDITED, BESIDE), False)])
def test_freeze(drifts, is_all, container, capsys, tmp_path):
    """Ends well where all is frozen; what is not is named."""
    container(*drifts)
    if is_all:
        run(f"desk --freeze {tmp_path}/new")
    else:
        with pytest.raises(DriftError, match="1 of 2 differences cannot be frozen"):
            run(f"desk --freeze {tmp_path}/new")
    assert ("not frozen: /opt/conda" in capsys.readouterr().out) is not is_all
    assert "RUN rm -rf -- /etc/profile" in (tmp_path / "new" / "Dockerfile").read_text()


def test_line_that_builds_can_be_pasted(container, capsys, tmp_path, monkeypatch):
    """A directory may have a space in its name."""
    container(BESIDE)
    monkeypatch.setattr(freeze, "write", lambda *_: None)
    with contextlib.suppress(DriftError):
        drift.run(DriftOptions(container="desk", freeze=tmp_path / "my work"))
    assert f"docker build --build-arg BASE=pytorch-cuda:v2.13 '{tmp_path}/my work'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("base", "option"),
    [("pytorch-cuda:v2.13", "--build-arg BASE=pytorch-cuda:v2.13 "), (f"pytorch-cuda@{DIGEST}", "--build-arg BASE=pytorch-cuda:v2.13 "), (PUSHED, "")],
)
def test_line_that_builds_names_an_image_that_no_registry_has(base, option):
    """BuildKit would ask one for the digest."""
    found = SimpleNamespace(container=SimpleNamespace(named=f"pytorch-cuda:v2.13@{DIGEST}"))
    assert drift._build(found, FrozenPlan(base=base), "frozen") == f"docker build {option}frozen"
