"""The action by which jobs of other repositories see that they run in an approved image, unchanged."""

from __future__ import annotations

import argparse
import ast
import base64
import importlib.util
import json
import sys
from itertools import chain
from pathlib import Path

import pytest

from tests.scripts import script
from torchstrata.drift import comparison, contents
from torchstrata.matrix.matrix import ROOT

SCRIPT = ROOT / ".github/actions/same-image/same_image.py"
SPEC = importlib.util.spec_from_file_location("same_image", SCRIPT)
same_image = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(same_image)

WHEELS = {"typing-extensions": "4.15.0"}
DIGEST = "sha256:" + "a" * 64
IMAGE = f"registry.example/team/pytorch-cuda@{DIGEST}"
FACTS = {"labels": {"torchstrata.cell": "2.13-cpu-debian12", "torchstrata.flavour": "base", "torchstrata.lock": "0" * 64}}
RECORD = {
    "name": "2.13-cpu-debian12-base",
    "digest": DIGEST,
    "cell": "2.13-cpu-debian12",
    "flavour": "base",
    "inputs": {"lock": "0" * 64},
    "wheels": [{"name": "typing-extensions", "version": "4.15.0"}],
    "packages": [{"name": "libc6", "version": "2.36-9", "architecture": "amd64"}],
}
PLACE = "/opt/venv/lib/python3.13/site-packages"
PACKAGES = {"libc6:amd64": "2.36-9"}


def envelope(predicate=RECORD, subject=DIGEST, kind=same_image.RECORD):
    """Return a line of what cosign prints."""
    statement = {"predicateType": kind, "subject": [{"digest": {"sha256": subject.removeprefix("sha256:")}}], "predicate": predicate}
    return json.dumps({"payload": base64.b64encode(json.dumps(statement).encode()).decode()})


def here(wheels, packages=PACKAGES):
    """Return what is installed in a job's container."""
    return contents.Contents(tuple(contents.InstalledWheel(name, version, f"{PLACE}/{name}-{version}.dist-info") for name, version in wheels.items()), packages)


@pytest.mark.parametrize(
    "path", [SCRIPT, Path(contents.__file__), Path(comparison.__file__), ROOT / "torchstrata/__init__.py", ROOT / "torchstrata/drift/__init__.py"]
)
def test_it_needs_nothing_but_the_standard_library(path):
    """Other repositories have nothing else; what it shares with ``inv drift`` neither."""
    tree = ast.parse(path.read_text())
    aliases = chain.from_iterable(node.names for node in ast.walk(tree) if isinstance(node, ast.Import))
    names = {alias.name for alias in aliases}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names if not name.startswith("torchstrata.drift")} <= sys.stdlib_module_names


def test_a_container_as_recorded_has_no_differences():
    """Names of wheels are compared in their normal form."""
    recorded = RECORD | {"wheels": [{"name": "Typing_Extensions", "version": "4.15.0"}]}
    assert same_image.compare(recorded, FACTS, here(WHEELS), {}) == []


@pytest.mark.parametrize(
    ("wheels", "packages", "says"),
    [
        ({"typing-extensions": "4.16.0"}, PACKAGES, "wheel typing-extensions: 4.16.0, recorded 4.15.0"),
        ({}, PACKAGES, "wheel typing-extensions: not installed, recorded 4.15.0"),
        (WHEELS | {"evil": "1"}, PACKAGES, "wheel evil: 1, recorded as not there"),
        (WHEELS, {"libc6:amd64": "2.36-10"}, "package libc6:amd64: 2.36-10, recorded 2.36-9"),
        (WHEELS, {}, "package libc6:amd64: not installed, recorded 2.36-9"),
    ],
)
def test_every_difference_is_named(wheels, packages, says):
    """What was changed, removed or added."""
    assert same_image.compare(RECORD, FACTS, here(wheels, packages), {}) == [says]


def test_edited_files_are_named():
    """Though every version is the recorded one."""
    path = f"{PLACE}/typing_extensions.py"
    assert same_image.compare(RECORD, FACTS, here(WHEELS), {path: "typing-extensions"}) == [f"file {path}: not what typing-extensions has brought"]


def test_another_image_is_named():
    """By cell, flavour and lock."""
    other = {"labels": FACTS["labels"] | {"torchstrata.flavour": "devel"}}
    assert same_image.compare(RECORD, other, here(WHEELS), {}) == ["image flavour: devel, recorded base"]


@pytest.mark.parametrize("image", ["registry.example/team/pytorch-cuda:v2.13", "pytorch-cuda", f"{IMAGE}0", ""])
def test_a_tag_is_refused(image):
    """It may mean something else tomorrow."""
    with pytest.raises(same_image.Refused, match="is not a digest"):
        same_image.digest(image)


def test_only_approved_digests_pass(tmp_path):
    """From a list, or from a file; without either, whatever is signed."""
    file = tmp_path / "approved.txt"
    file.write_text(f"# comment\n{IMAGE}\n")
    for approved in (IMAGE, f"other\n{IMAGE}\n", str(file), ""):
        same_image.check_approved(DIGEST, approved)
    with pytest.raises(same_image.Refused, match="is not among the approved images"):
        same_image.check_approved("sha256:" + "b" * 64, str(file))


def test_the_record_is_the_one_of_the_image():
    """An attestation about another image, or of another kind, is none."""
    assert same_image.predicate(envelope(), DIGEST) == RECORD
    other = "sha256:" + "b" * 64
    for answer in (envelope(subject=other), envelope(kind="x"), envelope(RECORD | {"digest": other}), ""):
        with pytest.raises(same_image.Refused, match="no record that is signed is about"):
            same_image.predicate(answer, DIGEST)


def test_of_an_index_the_image_for_this_machine_is_compared():
    """By the index's signed record; a machine for which it has none is told which there are."""
    index = {"digest": DIGEST, "images": {"linux/amd64": "sha256:" + "b" * 64, "linux/arm64": "sha256:" + "c" * 64}}
    assert same_image.predicate(envelope(index, kind=same_image.INDEX), DIGEST, same_image.INDEX) == index
    assert same_image.child(IMAGE, index, "aarch64") == f"registry.example/team/pytorch-cuda@sha256:{'c' * 64}"
    with pytest.raises(same_image.Refused, match="has no image for riscv64, but for linux/amd64, linux/arm64"):
        same_image.child(IMAGE, index, "riscv64")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_record_of_an_index_leads_to_that_of_an_image(monkeypatch, tmp_path, machine):
    """What a cosign says that knows the records of both; nothing is asked of a registry."""
    name = IMAGE.partition("@")[0]
    images = {platform: f"sha256:{mark * 64}" for platform, mark in (("linux/amd64", "b"), ("linux/arm64", "c"))}
    for image, line in (
        (DIGEST, envelope({"digest": DIGEST, "images": images}, kind=same_image.INDEX)),
        *((each, envelope(RECORD | {"digest": each}, each)) for each in images.values()),
    ):
        kind = "index" if image == DIGEST else "record"
        (tmp_path / f"urn:torchstrata:{kind}:v1 {name}@{image}".replace("/", "_")).write_text(line)
    kind_of = "for word; do case $word in --type=*) kind=${word#--type=};; esac; done\n"
    script(tmp_path / "cosign", kind_of + 'exec cat "$(dirname "$0")/$kind $(echo "$word" | tr / _)"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(same_image.platform, "machine", lambda: machine)
    assert same_image.record(IMAGE, "key.pub", "", "")["digest"] == images[same_image.PLATFORMS[machine]]
    with pytest.raises(same_image.Refused, match="has no signed record"):
        same_image.record(f"{name}@sha256:{'d' * 64}", "key.pub", "", "")


def test_somebody_must_be_trusted():
    """Without a key and an identity nobody is."""
    with pytest.raises(same_image.Refused, match="whose signatures count"):
        same_image.check(argparse.Namespace(image=IMAGE, approved="", key="", identity="", issuer=""))


def test_a_refusal_fails_the_job(capsys):
    """With an annotation that Actions shows."""
    assert same_image.main(["pytorch-cuda:v2.13"]) == 1
    assert capsys.readouterr().out.startswith("::error title=not the same image::'pytorch-cuda:v2.13' is not a digest")
