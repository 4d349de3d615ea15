"""The OS image: by which lock, and how mmdebstrap runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from msgspec import structs

from tests.parts import DEBIAN13, LOCKED, UBUNTU
from tests.scripts import script
from torchstrata.errors import LockError, OsPartError
from torchstrata.host import superuser
from torchstrata.layers import os_image
from torchstrata.process import Failed

EPOCH = 1_795_478_400
VERSION = "[ $1 = --version ] && echo mmdebstrap 1.5.7 && exit 0"

ARM = structs.replace(DEBIAN13, platform="linux/arm64")


def test_bootstrap_of_another_platform_differs_in_one_option() -> None:
    """The call of the default platform decides identities, and stays; another architecture is asked for by Debian's name."""
    here, there = (os_image.arguments(system, "/in", EPOCH) for system in (DEBIAN13, ARM))
    assert [word for word in there if word not in here] == ["--architectures=arm64"]
    assert not [word for word in here if "architectures" in word]


def test_an_os_from_a_registry_is_what_its_lock_pins() -> None:
    """Its name, its tag for people, and the digest that counts; a lock without one says what to do."""
    assert os_image.reference(UBUNTU, LOCKED) == f"docker.io/library/ubuntu:24.04@sha256:{'1' * 64}"
    with pytest.raises(LockError, match=r"no digest of docker.io/library/ubuntu:24.04\n.*inv lock --os"):
        os_image.reference(UBUNTU, dataclasses.replace(LOCKED, image=""))


def test_bootstrap_names_no_mirror() -> None:
    """The program's own default decides where packages come from, and the tar goes to standard output."""
    command = os_image.arguments(DEBIAN13, "/in", EPOCH)
    assert command[-2:] == ("trixie", "-")
    assert f"SOURCE_DATE_EPOCH={EPOCH}" in command
    assert "://" not in " ".join(command)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let this machine have only the programs that a test writes, each of which says something and ends with a status."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(os_image.CONTAINER_VARIABLE, raising=False)
    monkeypatch.setattr(superuser, "_words", lambda _: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(os_image, "KEYRING", tmp_path)
    return lambda name, text: script(tmp_path / name, text)


def test_a_named_image_is_used_for_bootstrapping(bare: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever names an image gets a container of it, with few rights and the proxies of this machine, that is on the list of its run."""
    monkeypatch.setenv(os_image.CONTAINER_VARIABLE, "some/debian")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    bare("docker", "exit 0")
    lines: list[str] = []
    command = os_image.Command.find(lines.append)
    assert command.image == "some/debian"
    assert lines == ["mmdebstrap runs in a container of some/debian"]
    words = command.around(str(tmp_path / "inputs"), ("mmdebstrap", "trixie"))
    assert words[-2:] == ("mmdebstrap", "trixie")
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges", "--env=http_proxy=http://proxy.example:3128"} <= set(words)
    assert "--privileged" not in words
    (name,) = (word.removeprefix("--name=") for word in words if word.startswith("--name="))
    assert f'"{name}"' in (tmp_path / "leavings.jsonl").read_text()


def test_pinned_image_is_pulled_where_nothing_else_is_left(bare: Callable[..., None]) -> None:
    """A user with an engine and without mmdebstrap needs to name nothing: the matrix pins an image by digest."""
    bare("docker", 'if [ "$1" = image ]; then exit 1; fi')
    image = os_image.Command.find(lambda _: None).image
    assert image is not None
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image)


@pytest.mark.parametrize(
    ("programs", "what", "fix"),
    [
        ({}, "mmdebstrap is not installed, and no engine", "nox -s engine"),
        ({"apt-get": "", "apt-config": ""}, "mmdebstrap is not installed, and no engine", "run: sudo apt-get install --yes mmdebstrap"),
        ({"apt-get": "", "apt-config": "", "docker": "echo no route to host >&2; exit 1"}, "no route to host", "run: sudo apt-get install --yes mmdebstrap"),
        ({"mmdebstrap": "[ $1 = --version ] && echo mmdebstrap 0.8.4", "apt-get": ""}, "is too old", "run: sudo apt-get install"),
        ({"mmdebstrap": f"{VERSION}; echo E: cannot find newuidmap >&2; exit 1", "apt-get": ""}, "cannot find newuidmap", "uidmap"),
        ({"mmdebstrap": f"{VERSION}; echo E: failed to parse /etc/subuid and /etc/subgid >&2; exit 1"}, "/etc/subuid", "usermod --add-subuids"),
        ({"mmdebstrap": f"{VERSION}; echo E: unshare syscall failed: no >&2; exit 1", "apt-get": ""}, "unshare syscall failed", "nox -s engine"),
        ({"mmdebstrap": f"{VERSION}; exit 1", "apt-get": ""}, "mmdebstrap failed with status 1", "uidmap"),
    ],
)
def test_no_way_to_bootstrap_names_the_command_that_cures_it(bare: Callable[..., None], programs: Mapping[str, str], what: str, fix: str) -> None:
    """Without root, sudo and an engine, the error says what is missing and the one command that helps."""
    for name, text in programs.items():
        bare(name, text)
    with pytest.raises(OsPartError, match=re.escape(what)) as caught:
        os_image.Command.find(print)
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("W: GPG error: trixie InRelease: NO_PUBKEY 762F67A0B2C39DE4\nE: failed\n", "upgrade debian-archive-keyring"),
        ("E: apt-get update failed: Could not resolve host\nE: mmdebstrap failed to run\n", "Could not resolve host"),
        ("rm: cannot remove 'x/tmp/y': No such file\nE: rm failed: 256\n", "'x/tmp/y': No such file"),
        ("E: rm failed: 256\n", "rm failed: 256"),
    ],
)
def test_failed_bootstrap_says_why(tail: str, message: str) -> None:
    """Old keys and an unreachable mirror are told apart."""
    with pytest.raises(OsPartError, match=message):
        raise os_image.refusal(DEBIAN13, Failed(("mmdebstrap",), 1, tail))
