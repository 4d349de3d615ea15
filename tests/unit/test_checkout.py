"""The package where it is installed, outside a checkout: it says what it needs, and works on the checkout that is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from torchstrata import checkout
from torchstrata.errors import CheckoutError, LockError, MatrixError, PlatformError
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import ROOT

LOADS = "from torchstrata.errors import CheckoutError\nfrom torchstrata.matrix import matrix\ntry:\n    matrix.load()\nexcept CheckoutError as error:\n    print(error)"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Have the package where a wheel puts it, with its data, and nothing else of the checkout."""
    place = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(ROOT / "torchstrata", place / "torchstrata")  # with its bytecode, as pip leaves it
    return place


def run(installed, *words, cwd="/", **more):
    """Run Python with the installed package."""
    env = {name: value for name, value in os.environ.items() if name != checkout.VARIABLE} | {"PYTHONPATH": str(installed), **more}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def verb(installed, *words, **more):
    """Run a verb as the command of the installed package does."""
    return run(installed, "-m", "torchstrata.commands", *words, **more)


@pytest.mark.parametrize("words", [("plan",), ("lock", "--tool"), ("lock", "--check"), ("nightly", "--plan"), ("attest", "host/image:tag")])
def test_a_verb_outside_a_checkout_says_that_it_needs_one(installed, words):
    """In one line, and in another how to name one; it does not look for the matrix among installed packages."""
    ended = verb(installed, *words)
    first, second = ended.stderr.splitlines()
    assert (ended.returncode, first.startswith("error: torchstrata is installed outside a checkout")) == (CheckoutError.code, True)
    assert second.endswith("export TORCHSTRATA_ROOT=DIRECTORY")
    assert str(installed) not in ended.stderr


def test_what_needs_no_checkout_works_anywhere(installed, tmp_path):
    """Lists, help, and verbs about keys, images of others and the store."""
    assert "release.rollback" in verb(installed, "--list").stdout
    assert verb(installed, "--help", "plan").stdout.startswith("usage: inv plan")
    assert verb(installed, "cache", TORCHSTRATA_CACHE=str(tmp_path)).returncode == 0


def test_a_verb_works_on_the_checkout_that_is_named(installed):
    """From any directory, with its matrix."""
    ended = verb(installed, "plan", "9.9-cu999", TORCHSTRATA_ROOT=str(ROOT))
    assert (ended.returncode, "nearest: " in ended.stderr) == (MatrixError.code, True)
    assert verb(installed, "lock", "--check", TORCHSTRATA_ROOT=str(ROOT)).stdout == "all locks match their inputs\n"


def test_facts_are_those_of_the_checkout(installed, tmp_path):
    """`inv add-torch` writes them there, whatever the package had when it was installed."""
    older = shutil.copytree(installed, tmp_path / "older")
    facts = older / compat.FACTS.relative_to(ROOT)
    facts.write_text(facts.read_text().replace('  "2.8": {', '  "1.8": {').replace('"version": "2.8.0"', '"version": "1.8.0"'))
    assert verb(older, "lock", "--check", TORCHSTRATA_ROOT=str(ROOT)).stdout == "all locks match their inputs\n"


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("locks/os/debian12.lock", "<<<<<<< HEAD\n", "error: 1 locks do not match their inputs\n  -> run: inv lock --os debian12\n"),
        ("locks/toolchain/cuda-12.4.lock", "<<<<<<< HEAD\n", "error: 1 locks do not match their inputs\n  -> run: inv lock --toolchain\n"),
        ("images/base/requirements.in", "numpy ==\n", "images/base/requirements.in: not a requirement: numpy ==\nerror: "),
    ],
)
def test_every_lock_is_checked(installed, tmp_path, path, text, says):
    """Also those of OSes and compilers, which a merge may leave in halves; a line that is in many locks is printed once."""
    place = tmp_path / "checkout"
    for name in ("matrix.yaml", "matrix.schema.json", "pyproject.toml", "requirements.txt", "requirements-dev.txt", "locks", "images"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        place.mkdir(exist_ok=True)
        copy(ROOT / name, place / name)
    with (place / path).open("a") as file:
        file.write(text)
    ended = verb(installed, "lock", "--check", TORCHSTRATA_ROOT=str(place))
    assert (ended.returncode, says in ended.stderr) == (LockError.code, True)
    assert ended.stderr.count("\n") == 3 if path.startswith("locks") else ended.stderr.count("numpy ==") == 1


@pytest.mark.parametrize("words", [("lock", "--platform", "linux/arm"), ("lock", "--os", "--platform", "linux/arm"), ("plan", "--platform", "linux/arm")])
def test_a_platform_that_is_mistyped_is_named(installed, words):
    """Before an engine is asked, whose platforms have other names, too."""
    ended = verb(installed, *words, TORCHSTRATA_ROOT=str(ROOT), DOCKER_HOST="tcp://127.0.0.1:9")
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (PlatformError.code, "error: 'linux/arm' is no platform of images")


def test_what_is_named_must_be_a_checkout(installed, tmp_path):
    """The line says which directory is none."""
    ended = verb(installed, "plan", TORCHSTRATA_ROOT=str(tmp_path))
    assert ended.returncode == CheckoutError.code
    assert ended.stderr.startswith(f"error: TORCHSTRATA_ROOT names {tmp_path}, which is no checkout of torchstrata\n")


@pytest.mark.parametrize("named", ["/etc/passwd", "/" + "long" * 1000])
def test_a_name_that_cannot_be_looked_at_is_no_checkout(installed, named):
    """A file, a name longer than file systems take: the same line, no traceback while the package is loaded."""
    ended = verb(installed, "plan", TORCHSTRATA_ROOT=named)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (CheckoutError.code, 2)
    assert ended.stderr.startswith("error: TORCHSTRATA_ROOT names /")


def test_in_a_checkout_its_own_tasks_run(installed):
    """Also below its top; those of something else run where that has tasks."""
    ended = verb(installed, "plan", "9.9-cu999", cwd=ROOT / "docs")
    assert (ended.returncode, "nearest: " in ended.stderr) == (MatrixError.code, True)
    (installed / "tasks.py").write_text("from invoke import task\n@task\ndef hello(_):\n    print('hello')\n")
    assert verb(installed, "hello", cwd=installed).stdout == "hello\n"


def test_an_import_needs_no_checkout_before_it_is_used(installed):
    """Then the error says the same."""
    found = run(installed, "-c", LOADS)
    assert found.stdout.startswith("torchstrata is installed outside a checkout")


def test_the_checkout_beside_the_package_comes_first(monkeypatch, tmp_path):
    """What the variable says counts only where there is none, so that no checkout works on another one's files."""
    monkeypatch.setenv(checkout.VARIABLE, str(tmp_path))
    assert checkout.root() == ROOT
    assert checkout.root(tmp_path / "site-packages") == tmp_path
    monkeypatch.delenv(checkout.VARIABLE)
    assert checkout.root(tmp_path / "site-packages") == tmp_path / "site-packages"
