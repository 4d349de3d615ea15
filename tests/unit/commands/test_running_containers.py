"""What verbs say of containers: lines that can be pasted, and names that can be read."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import pytest

from torchstrata.commands import running_containers, verbs
from torchstrata.commands.container_options import LogsOptions, PsOptions
from torchstrata.containers.running import LABEL, OF_IDENTITY, OF_SERVICES, OF_TAG
from torchstrata.errors import ContainerError
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


@pytest.mark.parametrize(("verb", "cure"), [("ssh", "then: inv up 2.13-cpu-jupyter --name desk --workspace /work --replace"), ("jupyter", "--flavour jupyter")])
def test_what_a_container_lacks_is_cured_by_a_command_for_it(verb, cure, monkeypatch, tmp_path):
    """``inv up --replace`` alone would make another one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = container("desk")
    found.status = "running"
    monkeypatch.setattr(running_containers, "connect", lambda: SimpleNamespace(choose=lambda name: found))
    with pytest.raises(ContainerError, match=f"desk has no {verb}") as refused:
        getattr(running_containers, verb)(verbs.find(verb).parse(["desk"]))
    assert cure in refused.value.fix


def test_address_of_ipv6_can_be_opened():
    """A URL has it in brackets (RFC 3986)."""
    assert list(running_containers.welcome(container())) == ["port-8888   http://[::1]:8890"]


@pytest.mark.parametrize(("file", "line"), [("", "ssh -p 2222 dev@127.0.0.1"), ("/my keys/id", "ssh -i '/my keys/id' -p 2222 dev@127.0.0.1")])
def test_line_of_ssh_has_the_key_that_was_asked_for(file, line, monkeypatch, tmp_path):
    """Where ssh does not look by itself; `inv ssh` gives it the same, and a command's own options are the command's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    ports = {"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "2222"}]}
    labels = {OF_SERVICES: json.dumps({"22": ["ssh", ""]}), OF_IDENTITY: file}
    found = SimpleNamespace(name="desk", status="running", labels=labels, attrs={"HostConfig": {"PortBindings": ports}})
    assert list(running_containers.welcome(found)) == [f"SSH         {line}   (or: inv ssh desk)"]
    became = []
    monkeypatch.setattr(running_containers, "connect", lambda: SimpleNamespace(choose=lambda name: found))
    monkeypatch.setattr(running_containers.process, "become", lambda *words: became.extend(words))
    running_containers.ssh(verbs.find("ssh").parse(["desk", "--", "ls", "-l"]))
    assert became == [*shlex.split(line)[:-1], "--", "dev@127.0.0.1", "ls", "-l"]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_log_is_text_whatever_pieces_it_comes_in(size, capsys, monkeypatch):
    """An engine gives that of a terminal byte by byte, which splits letters and line ends; no terminal obeys it. Tabs stay."""
    said = "Grüße, 中文\r\n\x1b[31mred\n\tend".encode()
    pieces = [said[place : place + size] for place in range(0, len(said), size)]
    found = SimpleNamespace(logs=lambda **_: iter(pieces))
    monkeypatch.setattr(running_containers, "connect", lambda: SimpleNamespace(choose=lambda name: found))
    running_containers.logs(LogsOptions())
    assert capsys.readouterr().out == "Grüße, 中文\n?[31mred\n\tend"


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
