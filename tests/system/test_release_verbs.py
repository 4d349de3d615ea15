"""``inv release`` and ``inv watchdog`` as people run them, on images that cosign has signed; cosign, oras and git read what they leave."""

from __future__ import annotations

import functools
import json
import subprocess

import pytest

from tests import released
from tests.signed import REPOSITORY, push
from torchstrata.attestations import documents
from torchstrata.attestations.documents import Published
from torchstrata.attestations.signing import Signer
from torchstrata.registry.registry import Registry
from torchstrata.release.ledger import FILE, Ledger


@pytest.fixture(scope="module")
def story(team):
    """Live a few days of a channel; return what each verb said, by name, and what was pushed."""
    said, first = {}, push(team, 1, untested=("jupyter",))
    said["unverified"] = team.promote("nightly", "--yes")
    with Registry(team.host) as registry:
        body = registry.manifest(REPOSITORY, first["jupyter"].digest).body
        published = Published(registry=registry, repository=REPOSITORY, name="jupyter", manifest=body)
        documents.attach(published, (documents.result(released.result(first["jupyter"].digest, flavour="jupyter")),), Signer.find(str(team.key)))
    said["dry run"] = team.promote("nightly")
    said["tag after the dry run"] = team.tag("nightly-2.13-cpu-devel")
    said["nightly"] = team.promote("nightly", "--yes")
    said["too early"] = team.promote("stable", "--yes")
    said["stable"] = team.promote("stable", "--no-soak", "the first one", "--yes")
    second = push(team, 2)
    said["second nightly"] = team.promote("nightly", "--yes")
    said["second stable"] = team.promote("stable", "--no-soak", "a fix", "--yes")
    said["tag after the second"] = team.tag("v2.13")
    back = functools.partial(team.inv, "release.rollback", "2.13-cpu", "--channel", "stable", "--ledger", f"{team.ledger}#ledger")
    said["rollback without a reason"] = back("--yes")
    said["rollback"] = back("--why", "it is broken", "--yes")
    return said, first, second


def test_an_unverified_image_is_refused(story):
    """One image of five without a test result: nothing moves, exit code 36, two lines that name it."""
    refused = story[0]["unverified"]
    assert refused.returncode == 36
    what, fix = refused.stderr.splitlines()
    assert what.startswith("error: nothing has moved: 2.13-cpu-debian12: ")
    assert "verification: there is none that is signed" in what
    assert fix.startswith("  -> ")


def test_a_dry_run_shows_what_would_move(story):
    """Every tag, from nothing to the new digest; nothing has moved."""
    said, first, _ = story
    assert said["dry run"].returncode == 0
    rows = {line.split()[2]: line.split()[3:] for line in said["dry run"].stdout.splitlines() if line.startswith("2.13-cpu-debian12")}
    assert rows["nightly-2.13-cpu-devel"] == ["-", first["devel"].digest[7:19]]
    assert "dry run" in said["dry run"].stdout
    assert said["tag after the dry run"] is None


def test_a_promotion_moves(story):
    """And says which entries of the ledger tell of it."""
    assert (story[0]["nightly"].returncode, story[0]["nightly"].stdout.splitlines()[-1]) == (0, "moved; entries 1 to 1 of the ledger")


def test_images_that_have_not_soaked_are_refused(story):
    """Unless somebody gives a reason."""
    assert story[0]["too early"].returncode == 39
    assert "it soaks in nightly until" in story[0]["too early"].stderr
    assert story[0]["stable"].returncode == 0


def test_a_rollback_needs_a_reason(team, story):
    """With one, the channel is where it was."""
    said, first, second = story
    assert said["rollback without a reason"].returncode == 39
    assert said["rollback"].returncode == 0
    assert said["tag after the second"] == second["v2.13"].digest
    assert team.tag("v2.13") == first["v2.13"].digest


def test_the_log_is_the_same_from_branch_and_registry(team, story):
    """The registry's copy is enough; reading the branch needs no keys."""
    branch = team.inv("release.log", "2.13-cpu", "--ledger", f"{team.ledger}#ledger", keys=False)
    copy = team.inv("release.log", "2.13-cpu", "--from-registry")
    assert (branch.returncode, copy.returncode) == (0, 0), branch.stderr + copy.stderr
    assert branch.stdout == copy.stdout
    assert [line.split()[2] for line in branch.stdout.splitlines() if line[:1].isdigit()] == ["publish", "promote", "publish", "promote", "rollback"]


def test_oras_and_cosign_read_the_copy(team, story, tmp_path):
    """Without this program: the file is there, signed, and its lines prove each other."""
    reference = f"{team.host}/{REPOSITORY}:ledger"
    subprocess.run(["oras", "pull", "--plain-http", reference], cwd=tmp_path, check=True, capture_output=True)
    ledger = Ledger.parse((tmp_path / FILE).read_bytes())
    assert ledger.state.tags["v2.13"] == team.tag("v2.13")
    verified = subprocess.run(
        ["cosign", "verify", f"--key={team.key.with_suffix('.pub')}", "--insecure-ignore-tlog=true", "--allow-insecure-registry", reference],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(verified.stdout)


def test_the_readme_of_the_branch_is_true(team, story, tmp_path):
    """Its two commands: where a tag is, and whether a line was changed."""
    subprocess.run(["git", "clone", "--quiet", "--branch", "ledger", team.ledger, tmp_path / "ledger"], check=True)
    commands = [line[4:] for line in (tmp_path / "ledger/README.md").read_text().splitlines() if line.startswith("    ")]
    ask, check = commands[0].replace("v2.8", "v2.13"), "\n".join(commands[1:])
    run = functools.partial(subprocess.run, shell=True, cwd=tmp_path / "ledger", capture_output=True, text=True, check=True)
    assert run(ask).stdout.strip() == team.tag("v2.13")
    assert run(check).stdout == ""
    run("sed -i '2s/2026/2025/' ledger.jsonl")
    assert "broken before" in run(check).stdout


def test_what_differs_is_told(team, story):
    """The fix that the second night brought, as a table and as Markdown."""
    _, first, second = story
    table = team.inv("release.diff", first["base"].digest, "nightly-2.13-cpu-base")
    assert table.returncode == 0, table.stderr
    assert ["openssl", "3.0.17-1~deb12u1", "3.0.17-1~deb12u2", "fix"] in [line.split() for line in table.stdout.splitlines()]
    markdown = team.inv("release.diff", first["base"].digest, f"{team.host}/{REPOSITORY}@{second['base'].digest}", "--markdown")
    assert "| openssl | `3.0.17-1~deb12u1` | `3.0.17-1~deb12u2` | fix |" in markdown.stdout.splitlines()


def test_the_watchdog_is_content_and_barks(team, story):
    """A tag that somebody removed from its place is named; repair puts it back."""
    watch = functools.partial(team.inv, "watchdog", "--ledger", f"{team.ledger}#ledger")
    assert watch().returncode == 0
    with Registry(team.host) as registry:
        found = registry.manifest(REPOSITORY, "nightly-2.13-cpu-base")
        registry.put_manifest(REPOSITORY, "2.13-cpu-devel", found.body, found.media_type)
    barked = watch()
    assert (barked.returncode, "stable: 2.13-cpu-devel points to" in barked.stdout) == (41, True)
    repaired = team.inv("release.repair", "--ledger", f"{team.ledger}#ledger")
    assert "2.13-cpu-devel: moved to" in repaired.stdout
    assert watch().returncode == 0
