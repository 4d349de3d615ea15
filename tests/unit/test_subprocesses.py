"""Every place that starts a program with words that are not its own, and what keeps such a word from being an option or a command."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from torchstrata.errors import LedgerError, VariableError
from torchstrata.layers import os_image
from torchstrata.locks import resolver
from torchstrata.locks.pip_config import PipConfig
from torchstrata.matrix.matrix import ROOT
from torchstrata.release import ledger_remote
from torchstrata.release.ledger_branch import Branch

STARTERS = {
    *(("process", name) for name in ("run", "piped", "follow", "become")),
    *(("superuser", name) for name in ("run", "command")),
    *(("subprocess", name) for name in ("run", "Popen", "call", "check_call", "check_output")),
    *(("os", name) for name in ("system", "popen", "execv", "execve", "execvp", "posix_spawn")),
    ("self", "_git"),
    ("cosign", "run"),
    ("", "_uv"),
}
"""Owner and name of the functions that take the words of a command."""

KNOWN = {
    "host/apt.py:_patiently": "packages are constants of this program",
    "host/apt.py:ask": "directories of this program; names of packages, which a lock has only if they begin with a letter or digit",
    "host/apt.py:proxies": "names of settings are constants",
    "image/source.py:_last_commit": "paths after --",
    "building/bootstrap.py:_forget_dead": "paths that begin with /",
    "building/bootstrap.py:_start_by_hand": "settings of this program after --",
    "environment.py:_run": "paths that begin with /",
    "environment.py:enter": "nox's own words, which somebody typed for nox",
    "host/emulator.py:_register": "constants, and the name of a known platform's emulator",
    "host/leavings.py:_refusal": "names that this program made, after --",
    "locks/resolver.py:_uv": "requirements by standard input; all values after =",
    "locks/resolver.py:resolve": "all values after =",
    "locks/requirements.py:_compile": "all values after =",
    "commands/__main__.py:main": "words for Invoke, which somebody typed for Invoke",
    "commands/nightly.py:_move_locks": "the constant origin",
    "commands/nightly.py:move_locks": "the author after user.name=, paths after --",
    "layers/buildkit.py:bake": "the definition by standard input",
    "layers/buildkit.py:save": "after --",
    "layers/image_tags.py:_asked": "constants, and an image after --",
    "layers/os_image.py:_inside": "after --",
    "layers/os_image.py:_pull": "after --",
    "layers/os_image.py:around": "proxies after the name of their variable and =",
    "layers/os_image.py:sources": "the suite of an OS of the matrix, which begins with a letter",
    "layers/os_image.py:tar": "the suite of an OS of the matrix, which begins with a letter",
    "layers/deb.py:downloaded": "suite, component and package as the toolchain's lock has them, quoted for the shell",
    "layers/bytecode.py:make": "the name of an image that this program made",
    "commands/running_containers.py:ssh": "a user and an address after --; names of containers and files after = of -o",
    "drift/reading.py:read_image": "after --, and there a program of ours; paths by standard input",
    "process.py:_kill": "a number after --",
    "process.py:become": "what the others pass",
    "process.py:_started": "what the others pass",
    "attestations/materials.py:repository": "the root of the checkout after -C",
    "release/ledger_branch.py:_commit": "object names that git has printed",
    "release/ledger_branch.py:_content": "an object name that git has printed, and a constant",
    "release/ledger_branch.py:_git": "what the others pass",
    "release/ledger_branch.py:_head": "after --, and checked by ledger_remote",
    "release/ledger_branch.py:_setting": "names of settings are constants",
    "release/ledger_branch.py:parse": "after refs/heads/",
    "release/ledger_branch.py:push": "after --, and checked by ledger_remote",
    "release/ledger_branch.py:read": "after --, and checked by ledger_remote",
    "host/superuser.py:run": "what the others pass",
    "host/emulator.py:_version": "the path that the kernel has of QEMU, which begins with /",
    "attestations/cosign.py:run": "what the others pass",
    "attestations/signing.py:attest": "a file name of letters, digits and . _ -, of a reference, which begins with a letter or digit; the rest after =",
    "attestations/signing.py:check_attestation": "all values after =",
    "attestations/signing.py:check_blob": "all values after =",
    "attestations/signing.py:check_image": "a reference, whose host begins with a letter or digit; the rest after =",
    "attestations/key_pair.py:make_key": "a path that process.find has found",
    "attestations/signing.py:sign_blob": "all values after =",
    "attestations/signing.py:sign_image": "a reference, whose host begins with a letter or digit; the rest after =",
    "attestations/signing.py:trust": "the key after =",
    "host/temporary.py:_as_root": "paths of this program, which begin with /",
    "host/temporary.py:_in_namespaces": "paths of this program, which begin with /",
    "verification/inspection.py:saved": "after --",
    "verification/suite.py:_verify": "pytest's own words, which somebody typed for pytest",
}


def places() -> Iterator[str]:
    """Yield module and function of every call that starts a program with a word that does not stand in it."""
    for path in sorted((ROOT / "torchstrata").rglob("*.py")):
        module, text = path.relative_to(ROOT / "torchstrata").as_posix(), path.read_text()
        if not any(f"{name}(" in text for _, name in STARTERS):
            continue  # parsing takes long
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        yield from (f"{module}:{function.name}" for function in functions if any(map(starts, ast.walk(function))))


def starts(node: ast.AST) -> bool:
    """Return whether this is such a call."""
    return isinstance(node, ast.Call) and named(node.func) in STARTERS and not all(map(is_fixed, node.args))


def named(function: ast.expr) -> tuple[str, str]:
    """Return owner and name of what is called."""
    if isinstance(function, ast.Attribute):
        return (function.value.id if isinstance(function.value, ast.Name) else "?", function.attr)
    return ("", function.id) if isinstance(function, ast.Name) else ("?", "?")


def is_fixed(word: ast.expr) -> bool:
    """Return whether a word is text, or a constant of its module."""
    return isinstance(word, ast.Constant) or (isinstance(word, ast.Name) and word.id.isupper())


def test_every_place_that_starts_a_program_is_known() -> None:
    """A new one must say here what keeps text from outside from being an option; one that is gone leaves the list."""
    assert sorted(set(places())) == sorted(KNOWN)


@pytest.mark.parametrize(
    "text",
    [
        "--upload-pack=touch ran;#x",
        "-c#x",
        "ext::sh -c touch% ran#x",
        "fd::17#x",
        "anything::http://h/x#x",
        "ftp://h/x#x",
        "HTTPS+x://h/x#x",
        "ssh://-oProxyCommand=touch/x#x",
        "git@-oProxyCommand=touch:x#x",
        "ssh://git@-oProxyCommand=touch/x#x",
        "a\x1b[2Jb#x",
        "a\nb#x",
        f"{'x' * 2_000}#x",
    ],
)
def test_a_ledger_is_at_no_address_that_git_takes_for_something_else(tmp_path, text) -> None:
    """Options, commands, other programs and unknown transports are refused before git sees them, with code 37 and printable lines."""
    with pytest.raises(LedgerError, match="is no git repository") as caught:
        Branch.parse(text, tmp_path)
    assert f"{caught.value.what}{caught.value.fix}".isprintable()


@pytest.mark.parametrize(
    "text",
    ["origin", "/srv/ledger.git", "../ledger", "file:///srv/x.git", "https://h.example/team/x.git", "ssh://git@h.example:22/x.git", "git@h.example:team/x.git"],
)
def test_a_ledger_may_be_where_teams_have_them(text) -> None:
    """Names of remotes, paths, and addresses of git's own transports."""
    assert ledger_remote.checked(text) == text


def test_what_pip_is_told_is_no_option_of_uv() -> None:
    """Each value stands after the equals sign of its option."""
    config = PipConfig(
        index_url="--offline",
        extra_index_urls=("-x",),
        find_links=("--y://z",),
        no_index=False,
        cert=None,
        client_cert=None,
        trusted_hosts=("-z",),
        timeout=60,
        retries=1,
    )
    options = resolver.sources(config)
    assert options[2:] == ["--default-index=--offline", "--index=-x", "--find-links=--y://z", "--allow-insecure-host=-z"]


@pytest.mark.parametrize("image", ["--privileged", "-v/:/host", "a b", "x" * 600, "a\x1b[2J"])
def test_the_image_to_bootstrap_in_is_no_option_of_docker(monkeypatch, image) -> None:
    """A variable names it; what is no name of an image ends with code 48."""
    monkeypatch.setenv(os_image.CONTAINER_VARIABLE, image)
    with pytest.raises(VariableError, match=os_image.CONTAINER_VARIABLE):
        os_image.Command.find(lambda _: None)
