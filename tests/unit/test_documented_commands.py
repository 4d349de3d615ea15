"""Every fenced command of README.md and docs/ is executed: here, where that is cheap; else by a test, a session or a workflow that the table names.

Who adds a command to a guide says here what executes it. A test is there, and the module that has it knows the verb and the options.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from torchstrata import arguments
from torchstrata.commands import verbs
from torchstrata.matrix.matrix import ROOT

BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCKERFILE = re.compile(r"^```dockerfile\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\s+# .*$", re.MULTILINE)
PROMPT = re.compile(r"^[$#] ", re.MULTILINE)

HERE = {
    "inv plan 2.15-cu132 --platform linux/arm64",
    "inv doctor --platform linux/arm64 --gpu 12.1",
    "inv doctor --driver 530.30 --gpu sm_70",
    "export TORCHSTRATA_REGISTRY=registry.example:5000/team",
    "export COSIGN_PUBLIC_KEY=$PWD/cosign.pub",
    "export COSIGN_KEY=cosign.key COSIGN_PASSWORD=...",
}

FRESH, UP, CATALOGUE = "tests/unit/test_fresh.py", "tests/system/test_up.py", "tests/system/test_catalogue.py"
TORCHES, REGISTRY_OS, CHAIN = "tests/unit/commands/test_torches.py", "tests/system/test_registry_os.py", "tests/system/test_supply_chain.py"
MIRROR, RELEASE, ALL_IN_ONE = "tests/system/test_mirror.py", "tests/system/test_release_verbs.py", "images/ssh/tests/test_all_in_one.py"
DERIVING, DRIFT, SERVE = "images/base/tests/test_deriving.py", "tests/system/test_drift.py", "images/serve/tests/test_serve.py"

TESTS = {
    "docker run -it --gpus all -p 8888:8888 -p 2222:22 -v ./workspace:/root/workspace pytorch-cuda:v2.8": f"{ALL_IN_ONE}::test_nothing_runs_as_root",
    "inv add-torch 2.9": f"{TORCHES}::test_only_what_would_change_is_shown",
    "inv add-torch 2.9 --yes": f"{TORCHES}::test_row_and_line_stand_in_order_and_all_else_stays",
    "inv lock --os 'ubuntu*'": f"{REGISTRY_OS}::test_locking_again_writes_nothing",
    "nox -s build-2.8-cu121-ubuntu24.04 test-2.8-cu121-ubuntu24.04": f"{REGISTRY_OS}::test_what_is_built_is_verified",
    "inv new-flavour gym --from jupyter": "tests/unit/commands/test_new_flavour.py::test_it_is_one_folder_and_one_line",
    "inv catalogue": f"{CATALOGUE}::test_without_a_key_nothing_is_checked_and_the_catalogue_says_so",
    "inv catalogue --output site --key cosign.pub": f"{CATALOGUE}::test_a_registry_becomes_a_catalogue",
    "inv catalogue --engine": f"{CATALOGUE}::test_the_engine_becomes_a_catalogue",
    "docker run --rm --gpus all --shm-size 8g -v ./workspace:/workspace pytorch-cuda:2.8-cu121-vision"
    " python /usr/local/share/torchstrata/examples/segment_defects.py": "images/vision/tests/test_vision.py::test_example",
    "docker run --rm --gpus all -p 127.0.0.1:8000:8000 -v ./models:/models:ro -e SERVE_WEIGHTS=/models/resnet50.pth -e SERVE_LABELS=/models/labels.txt"
    " pytorch-cuda:2.8-cu121-serve": f"{SERVE}::test_weights_and_labels_decide",
    "curl --data-binary @picture.jpg http://127.0.0.1:8000/predict": f"{SERVE}::test_answer",
    "inv key": f"{CHAIN}::test_a_pair_of_keys_is_made_in_one_step",
    "inv push 2.8-cu121": f"{UP}::test_image_of_the_registry",
    "inv join 2.15-cu132": "tests/system/test_indexes.py::test_a_tag_names_the_index_of_its_images",
    "inv verify-release registry.example:5000/team/pytorch-cuda:2.8-cu121-devel --key cosign.pub": f"{CHAIN}::test_the_verb_shows_what_each_part_proves",
    "cosign verify --key cosign.pub --insecure-ignore-tlog REF": f"{CHAIN}::test_cosign_verifies_the_signature",
    "cosign verify-attestation --key cosign.pub --insecure-ignore-tlog --type slsaprovenance1 --new-bundle-format REF": (
        f"{CHAIN}::test_cosign_verifies_attestations"
    ),
    "oras discover REF": f"{CHAIN}::test_oras_discovers_every_document",
    "inv registry.prune": "tests/system/test_prune.py::test_the_verb_deletes_only_when_told",
    "inv registry.prune --channel nightly --keep 7 --older-than 30 --yes": "tests/system/test_prune.py::test_the_verb_deletes_only_when_told",
    "docker-registry garbage-collect /etc/docker/registry/config.yml": "tests/system/test_prune.py::test_bytes_are_what_the_disk_loses",
    "inv mirror 2.8-cu121 --to registry.lab.example/team": f"{MIRROR}::test_another_registry_gets_everything_unchanged",
    "inv mirror 2.8-cu121 --to ./cell --key cosign.pub": f"{MIRROR}::test_a_directory_names_every_tag",
    "inv mirror 2.8-cu121 --from ./cell --to registry.lab.example/team": f"{MIRROR}::test_a_directory_goes_back_into_a_registry",
    "inv mirror 2.8-cu121-devel --to ./devel": f"{MIRROR}::test_a_tag_or_a_digest_is_copied_alone",
    "inv release.promote 2.8-cu121 --channel nightly": f"{RELEASE}::test_a_dry_run_shows_what_would_move",
    "inv release.promote 2.8-cu121 --channel nightly --yes": f"{RELEASE}::test_a_promotion_moves",
    "inv release.promote '2.8-*' --channel stable --yes": f"{RELEASE}::test_images_that_have_not_soaked_are_refused",
    'inv release.rollback 2.8-cu121 --channel stable --why "NCCL hangs on 8 GPUs" --yes': f"{RELEASE}::test_a_rollback_needs_a_reason",
    "inv release.log 2.8-cu121": f"{RELEASE}::test_the_log_is_the_same_from_branch_and_registry",
    "inv release.log --from-registry": f"{RELEASE}::test_the_log_is_the_same_from_branch_and_registry",
    "inv release.diff 2.8-cu121-devel nightly-2.8-cu121-devel": f"{RELEASE}::test_what_differs_is_told",
    "oras pull HOST/PATH/pytorch-cuda:ledger && cat ledger.jsonl": f"{RELEASE}::test_oras_and_cosign_read_the_copy",
    "inv up 2.8-cu121": f"{UP}::test_from_nothing_to_a_notebook",
    "env -u PIP_CONSTRAINT pip install torch==...": "images/base/tests/test_install.py::test_override",
    "env -u UV_CONSTRAINT uv pip install torch==...": "images/base/tests/test_install.py::test_override",
    "inv drift CONTAINER --freeze frozen": f"{DRIFT}::test_change",
    "docker build --tag mine frozen": f"{DRIFT}::test_change",
    "inv drift CONTAINER --against mine": f"{DRIFT}::test_change",
    "pip install 'nox[uv]'": f"{FRESH}::test_each_case_types_readmes_lines_as_they_stand",
    "nox -s engine build-2.8-cu121": f"{FRESH}::test_each_case_types_readmes_lines_as_they_stand",
    "nox -s tests": f"{FRESH}::test_each_case_types_readmes_lines_as_they_stand",
}
"""The test that executes a command, or what it does: with another cell, registry, file or container, and without a GPU."""

ELSEWHERE = {
    "inv lock 2.9-cu128": "`.github/workflows/update.yml` locks all rows each week; `nox -s rehearse` runs it",
    "nox -s build-2.13-cpu test-2.13-cpu -- --flavour gym": "`nox -s tests` builds and tests the flavours that there are",
    "nox -s build-2.15-cu132 -- --platform linux/arm64": "by hand, half a day under QEMU: docs/arm64.md says what came out",
    "nox -s test-2.15-cu132 -- --platform linux/arm64 --scope quick": "by hand, as above",
    "docker run -it --rm --platform linux/arm64 pytorch-cuda:2.15-cu132-base-arm64": "by hand, as above",
    "inv push 2.15-cu132": "as for 2.8-cu121",
    "inv push 2.15-cu132 --platform linux/arm64": "by hand: no other machine is here to push from",
    "nox -s fresh": "`.ci/run`",
    "nox -s fresh -- --as root,user,runner --on debian12,debian13": "`nox -s soak`",
    "nox -s fresh -- --cells 2.13-cpu --first --repeat 20 --apt-locked 60": "by hand, for hours: docs/fresh.md says what came out",
    "nox -s fresh -- --drop less,make --year-ahead": "by hand, as above",
    "docker login registry.example:5000": "it asks for a password; what it leaves is read in `tests/unit/registry/test_authorization.py`",
    "systemctl stop docker-registry": "nobody: it needs a machine with systemd",
    "systemctl start docker-registry": "nobody, as above",
}
"""Where a command is executed that no test executes, or why it is not."""

DOCKERFILES = {
    "RUN python3 -I -S -m compileall -q --invalidation-mode checked-hash /usr/local/lib/torchstrata/services/gym.py": (
        "images/base/tests/test_services.py::test_added_service"
    ),
    "RUN pip install --no-cache-dir einops": f"{DERIVING}::test_derived",
    "RUN pip install --no-cache-dir /tmp/wheels/*.whl": f"{DERIVING}::test_derived",
    "ONBUILD RUN pip install --no-cache-dir -r /tmp/requirements.txt": f"{DERIVING}::test_onbuild",
    "CMD []": "images/base/tests/test_services.py::test_added_service",
}
"""The test that builds an image like that of a Dockerfile, by its last line."""


def guides() -> Iterator[str]:
    """Yield the texts of the guides."""
    yield from (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


def commands() -> Iterator[str]:
    """Yield the commands, each as one line without its prompt and its comment."""
    for text in guides():
        for block in BLOCK.findall(text):
            joined = re.sub(r"\s*\\\n\s*", " ", PROMPT.sub("", block))
            yield from filter(None, (COMMENT.sub("", line).strip() for line in joined.splitlines()))


def test_every_command_is_executed_somewhere():
    """A new command needs a line here, once, and a line goes with its command."""
    named = [*HERE, *TESTS, *ELSEWHERE]
    assert {*commands()} - {*named} == set(), "say in HERE, TESTS or ELSEWHERE what executes it"
    assert {*named} - {*commands()} == set(), "no guide has it any more"
    assert len({*named}) == len(named)


def test_every_dockerfile_is_built_somewhere():
    """The same of Dockerfiles."""
    blocks = chain.from_iterable(map(DOCKERFILE.findall, guides()))
    assert {block.splitlines()[-1] for block in blocks} == {*DOCKERFILES}


@pytest.mark.parametrize("command", sorted(HERE))
def test_command(command):
    """It can be typed in a checkout, and ends well."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-e", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def modules(statement: ast.ImportFrom) -> list[str]:
    """Return what may be a module of all that a statement names."""
    return [str(statement.module), *(f"{statement.module}.{alias.name}" for alias in statement.names)]


@functools.cache
def sources(path: str) -> str:
    """Return the text of a module of tests, and of those of tests/ that it imports."""
    text = (ROOT / path).read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tests"]
    files = [ROOT / f"{name.replace('.', '/')}.py" for name in set(chain.from_iterable(map(modules, imports)))]
    return text + "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())


@pytest.mark.parametrize(("command", "test"), [*TESTS.items(), *DOCKERFILES.items()])
def test_the_test_of_a_command_is_there(command, test):
    """Its module has it, the verb, as a word or as its function, and every option, as a word or as a field."""
    path, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    program, *words = command.split()
    if program != "inv":
        return
    verb = next(verb for verb in verbs.VERBS if verb.name == words[0])
    assert re.search(rf'"{re.escape(verb.name)}"|\b{re.escape(verb.work.rpartition(".")[0])}\.{verb.work.rpartition(".")[2]}\(', sources(path))
    fields = {argument.name: argument.field for argument in arguments.declared(verb.options)}
    options = {word[2:] for word in words if word.startswith("--")}
    assert {each for each in options if not re.search(rf'"--{each}\b|\b{fields[each]}\b["=]', sources(path))} == set()


@pytest.mark.parametrize("where", [where for where in ELSEWHERE.values() if "`" in where])
def test_what_executes_other_commands_is_there(where):
    """A file of the repository, or a session of noxfile.py."""
    for word in re.findall(r"`([^`]+)`", where):
        session = word.removeprefix("nox -s ")
        assert (ROOT / word).is_file() or re.search(rf"^def {session}\(", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE), word
