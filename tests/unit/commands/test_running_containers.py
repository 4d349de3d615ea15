"""What verbs say of containers: lines that can be pasted, and names that can be read."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from torchstrata.commands import running_containers
from torchstrata.commands.container_options import PsOptions
from torchstrata.containers.running import LABEL, OF_SERVICES, OF_TAG
from torchstrata.image.runtime import WORKSPACE

NAME = "torchstrata-2.13-cpu-jupyter-of-somebody-with-a-long-name"
TAG = "pytorch-cuda:2.13-cpu-jupyter"


def container(name=NAME, workspace="/work", address="::1"):
    """Return a container as an engine describes it."""
    bound = {"8888/tcp": [{"HostIp": address, "HostPort": "8890"}]}
    return SimpleNamespace(
        name=name,
        status="exited",
        labels={LABEL: "ada", OF_TAG: TAG, OF_SERVICES: json.dumps({"8888": ["port-8888", "http"]})},
        attrs={"Mounts": [{"Destination": WORKSPACE, "Source": str(workspace)}], "HostConfig": {"PortBindings": bound}},
    )


@pytest.mark.parametrize(
    ("name", "workspace", "command"),
    [
        ("torchstrata-2.13-cpu-jupyter", "workspace", "inv up 2.13-cpu-jupyter"),
        ("desk", "workspace", "inv up 2.13-cpu-jupyter --name desk"),
        ("desk", "my work", "inv up 2.13-cpu-jupyter --name desk --workspace '{}/my work'"),
    ],
)
def test_command_that_goes_on_with_a_container(name, workspace, command, tmp_path, monkeypatch):
    """Of its own image, name and workspace: without them inv up would make another."""
    monkeypatch.chdir(tmp_path)
    assert running_containers.again(container(name, tmp_path / workspace)) == command.format(tmp_path)


def test_address_of_ipv6_can_be_opened():
    """A URL has it in brackets (RFC 3986)."""
    assert list(running_containers.welcome(container())) == ["port-8888   http://[::1]:8890"]


def test_table_for_programs_is_whole(capsys, monkeypatch):
    """No name is cut, since people paste it."""
    workspace = f"/{'very/' * 30}deep"
    monkeypatch.setattr(running_containers, "connect", lambda: SimpleNamespace(own=lambda: (container(workspace=workspace),), state=lambda _: "exited"))
    running_containers.ps(PsOptions())
    (_, line) = capsys.readouterr().out.splitlines()
    assert line.split() == [NAME, TAG, "exited", "port-8888", "[::1]:8890", workspace, "ada"]


def test_table_on_a_narrow_terminal_has_whole_names(capsys, monkeypatch):
    """The other columns are folded, and lose nothing."""
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(running_containers, "connect", lambda: SimpleNamespace(own=lambda: (container(),), state=lambda _: "exited"))
    running_containers.ps(PsOptions())
    output = capsys.readouterr().out
    assert NAME in output
    assert "…" not in output
