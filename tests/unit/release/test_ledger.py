"""The ledger: what its lines say, that nobody can change them unseen, and that of two writers one wins."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.desks import git
from tests.records import digest
from tests.scripts import script
from torchstrata.errors import LedgerConflictError, LedgerError
from torchstrata.release import ledger_branch
from torchstrata.release.ledger import FILE, Author, Ledger, Move
from torchstrata.release.ledger_branch import Branch
from torchstrata.release.ledger_memory import Memory

NOW = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)
WHO = Author(name="Ada", email="ada@team.example")
CELL = "2.8-cu121-debian13"


def move(mark, *, action="publish", channel="nightly", cell=CELL, why="a reason"):
    """Return a move of one image, which one tag names."""
    return Move(action=action, channel=channel, cell=cell, images={"base": digest(mark)}, tags={f"{channel}-{cell}-base": "base"}, why=why)


def ledger(*moves, base=None):
    """Return a ledger of these moves, an hour between them."""
    made = base or Ledger()
    for count, each in enumerate(moves):
        made = made.append([each], WHO, NOW + dt.timedelta(hours=count))
    return made


def check(channel="nightly"):
    """Return the move that moves nothing."""
    return Move(action="check", channel=channel, cell="*", images={}, tags={}, why="nothing changed")


@pytest.fixture
def remote(tmp_path):
    """Make a bare repository, as a forge has them."""
    made = tmp_path / "remote.git"
    git("init", "--quiet", "--bare", made)
    return made


@pytest.fixture
def checkout(tmp_path, remote):
    """Make a checkout with a commit, a change in the index and one in a file."""
    made = tmp_path / "checkout"
    git("init", "--quiet", "--initial-branch=main", made)
    git("-C", made, "remote", "add", "origin", remote)
    (made / "file").write_text("one\n")
    git("-C", made, "add", "file")
    git("-C", made, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "first")
    (made / "file").write_text("two\n")
    git("-C", made, "add", "file")
    (made / "file").write_text("three\n")
    return made


# Lines


def test_an_entry_says_all_that_there_is_to_know():
    """Number, time, action, channel, cell, images, tags with old and new digest, who and why; one line, in this order."""
    line = ledger(move("a", why="a\nreason")).lines[0]
    assert line == (
        f'{{"sequence":1,"time":"2026-11-24T03:00:00Z","action":"publish","channel":"nightly","cell":"{CELL}","images":{{"base":"{digest("a")}"}},'
        f'"tags":{{"nightly-{CELL}-base":[null,"{digest("a")}"]}},"inputs":{{}},"who":"Ada <ada@team.example>","run":"","why":"a reason","previous":""}}'
    )


def test_a_tag_that_does_not_move_is_not_among_the_tags():
    """Publishing the same image again moves nothing, and says so."""
    assert ledger(move("a"), move("a")).entries[-1].tags == {}


def test_images_that_are_named_again_do_not_arrive_again():
    """How long they have soaked counts from the first time; others in between start it anew."""
    assert ledger(move("a"), move("a")).state.arrived["nightly", CELL] == NOW
    assert ledger(move("a"), move("b"), move("a")).state.arrived["nightly", CELL] == NOW + dt.timedelta(hours=2)


def test_replay_gives_the_state():
    """What tags point to and what channels hold follows from the file alone."""
    written = ledger(move("a"), move("b"), move("a", action="promote", channel="stable"), check())
    state = Ledger.parse(written.content).state
    assert state.tags == {f"nightly-{CELL}-base": digest("b"), f"stable-{CELL}-base": digest("a")}
    assert state.images("nightly", CELL) == {"base": digest("b")}
    assert state.images("stable", "2.13-cpu-debian12") == {}
    assert state.seen == {"nightly": NOW + dt.timedelta(hours=3), "stable": NOW + dt.timedelta(hours=2)}


def test_what_was_rolled_back_stays_withdrawn_until_somebody_brings_it_back():
    """A nightly run must not promote again what a person has undone."""
    undone = ledger(move("a", channel="stable"), move("b", channel="stable"), move("a", channel="stable", action="rollback"))
    assert undone.state.is_withdrawn("stable", CELL, {"base": digest("b")})
    assert not undone.state.is_withdrawn("stable", CELL, {"base": digest("a")})
    again = ledger(move("b", channel="stable", action="promote"), base=undone)
    assert not again.state.is_withdrawn("stable", CELL, {"base": digest("b")})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda lines: [lines[0].replace("reason", "excuse"), *lines[1:]], "line 1 is not what line 2 says it was"),
        (lambda lines: [lines[0], lines[1].replace(digest("b"), digest("c")), lines[2]], "line 2 is not what line 3 says it was"),
        (lambda lines: [lines[0], lines[2]], "line 2 is entry 3: lines were removed or added"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "line 2 is entry 1: lines were removed or added"),
        (lambda lines: [lines[0], "{}", lines[2]], "line 2 is no entry"),
        (lambda lines: [lines[0].replace("00:00Z", "00:00"), *lines[1:]], "line 1 is no entry"),
    ],
)
def test_an_edit_is_detected(damage, says):
    """Changed, removed, repeated or damaged lines are named."""
    lines = damage(list(ledger(move("a"), move("b"), move("c")).lines))
    with pytest.raises(LedgerError, match=says):
        Ledger.parse("".join(f"{line}\n" for line in lines).encode())


def test_a_ledger_that_is_cut_off_is_detected():
    """Half a line is no line."""
    with pytest.raises(LedgerError, match="cut off in line 2"):
        Ledger.parse(ledger(move("a"), move("b")).content[:-20])


def test_a_copy_tells_whether_history_was_rewritten():
    """Another last line, or fewer lines, are no continuation of what was copied."""
    copied = ledger(move("a"), move("b"))
    assert ledger(move("c"), base=copied).continues(copied)
    assert not ledger(move("a")).continues(copied)
    assert not ledger(move("a"), move("c")).continues(copied)


# The branch


def test_the_first_entry_makes_the_branch(remote, checkout):
    """Nothing must be prepared; the commit's subject is what the move was."""
    branch = Branch(root=checkout)
    base = branch.read()
    assert (base.commit, base.ledger.lines) == (None, ())
    made = branch.push(base, ledger(move("a")), "publish 2.8-cu121", WHO)
    assert branch.read() == made
    assert git("-C", remote, "log", "--format=%an <%ae> %s", "ledger") == "Ada <ada@team.example> publish 2.8-cu121\n"
    assert git("-C", remote, "ls-tree", "--name-only", "ledger").split() == ["README.md", FILE]


def test_the_checkout_is_not_touched(checkout):
    """Neither its files nor its index nor its branches change, whatever is half done in it; no hook of it runs."""
    script(checkout / ".git/hooks/pre-push", "exit 1")
    before = git("-C", checkout, "status", "--porcelain=v2", "--branch"), git("-C", checkout, "branch", "--list"), git("-C", checkout, "ls-files", "--stage")
    branch = Branch(root=checkout)
    for mark in "ab":
        base = branch.read()
        branch.push(base, ledger(move(mark), base=base.ledger), "publish", WHO)
    after = git("-C", checkout, "status", "--porcelain=v2", "--branch"), git("-C", checkout, "branch", "--list"), git("-C", checkout, "ls-files", "--stage")
    assert after == before
    assert (checkout / "file").read_text() == "three\n"


@pytest.mark.parametrize("first", [True, False], ids=["no branch yet", "a branch"])
def test_of_two_writers_one_wins_and_the_other_says_so(tmp_path, remote, checkout, first):
    """The loser has changed nothing, has a code of its own, and can go on from what the winner wrote."""
    other = Branch(root=Path(shutil.copytree(checkout, tmp_path / "other")))
    mine = Branch(root=checkout)
    if not first:
        mine.push(mine.read(), ledger(move("0")), "publish", WHO)
    base, same = mine.read(), other.read()
    won = mine.push(base, ledger(move("a"), base=base.ledger), "publish a", WHO)
    with pytest.raises(LedgerConflictError, match="somebody else wrote to the ledger") as caught:
        other.push(same, ledger(move("b"), base=same.ledger), "publish b", WHO)
    assert "\n" not in caught.value.what
    again = other.read()
    assert again == won
    other.push(again, ledger(move("b"), base=again.ledger), "publish b", WHO)
    assert [entry.images["base"] for entry in mine.read().ledger.entries][-2:] == [digest("a"), digest("b")]
    assert git("-C", remote, "log", "--format=%s", "ledger").split("\n")[:2] == ["publish b", "publish a"]


def test_a_lost_answer_is_no_failure(remote, checkout):
    """If the branch is where it should be after a push that failed, it has not failed."""
    branch = Branch(root=checkout)
    script(remote / "hooks/post-receive", "kill -9 $PPID")
    made = branch.push(branch.read(), ledger(move("a")), "publish", WHO)
    assert branch.read() == made


def test_a_remote_that_refuses_is_told_from_a_race(remote, checkout):
    """A server's hook says no: no conflict, and its words are shown."""
    script(remote / "hooks/pre-receive", "echo no writing today >&2; exit 1")
    branch = Branch(root=checkout)
    with pytest.raises(LedgerError, match=r"cannot be written: .*pre-receive hook declined") as caught:
        branch.push(branch.read(), ledger(move("a")), "publish", WHO)
    assert not isinstance(caught.value, LedgerConflictError)


def test_an_edit_on_the_branch_is_detected(remote, checkout, tmp_path):
    """Somebody pushes another past."""
    branch = Branch(root=checkout)
    branch.push(branch.read(), ledger(move("a"), move("b")), "publish", WHO)
    forger = tmp_path / "forger"
    git("clone", "--quiet", "--branch", "ledger", remote, forger)
    file = forger / FILE
    file.write_text(file.read_text().replace(digest("a"), digest("f")))
    git("-C", forger, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--all", "-m", "tidy")
    git("-C", forger, "push", "--quiet", "origin", "ledger")
    with pytest.raises(LedgerError, match="line 1 is not what line 2 says it was"):
        branch.read()


def test_a_remote_that_is_not_there_is_one_line(tmp_path, checkout):
    """What git says, and what to do."""
    with pytest.raises(LedgerError, match="cannot be read: fatal:") as caught:
        Branch.parse(f"{tmp_path}/nowhere.git#ledger", checkout).read()
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("scheme", ["http", "git"])
def test_a_remote_that_never_answers_is_given_up(checkout, monkeypatch, scheme):
    """It takes the connection and says nothing: git is ended, with the program of its transport."""
    monkeypatch.setattr(ledger_branch, "DEADLINE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        branch = Branch.parse(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x.git#ledger", checkout)
        with pytest.raises(LedgerError, match=r"cannot be read: git has not ended within 0\.5 s"):
            branch.read()


def test_a_remote_over_http_that_is_silent_for_a_minute_is_given_up(checkout, monkeypatch):
    """By git itself, long before the deadline; the test shortens the minute."""
    monkeypatch.setattr(ledger_branch, "PATIENT", (*ledger_branch.PATIENT[:-1], "http.lowSpeedTime=1"))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(LedgerError, match="too slow"):
        Branch.parse(f"http://127.0.0.1:{silent.getsockname()[1]}/x.git#ledger", checkout).read()


def test_the_place_can_be_named(checkout, tmp_path):
    """Another remote, another branch, or both."""
    names = {text: str(Branch.parse(text, checkout)) for text in (None, "upstream", "#moves", f"{tmp_path}/x.git#moves")}
    assert list(names.values()) == ["origin#ledger", "upstream#ledger", "origin#moves", f"{tmp_path}/x.git#moves"]
    with pytest.raises(LedgerError, match="is no name of a branch"):
        Branch.parse("origin#two words", checkout)


def test_a_place_to_remember_that_cannot_be_is_named(monkeypatch, tmp_path):
    """Nothing was remembered there, and nothing can be."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("x" * 300)))
    memory = Memory.of("registry.example", "team/x")
    assert memory.recall() is None
    with pytest.raises(LedgerError, match="File name too long") as caught:
        memory.keep(ledger(move("a")))
    assert "XDG_STATE_HOME" in caught.value.fix


def test_what_may_not_be_looked_at_is_not_taken_for_nothing(tmp_path):
    """A ledger that was put back would be believed by who reads and keeps nothing, as `inv release.log --from-registry` does."""
    memory = Memory(name="the ledger", path=tmp_path / "closed" / "seen.json")
    memory.keep(ledger(move("a")))
    memory.path.parent.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        with pytest.raises(LedgerError, match="Permission denied") as caught:
            memory.recall()
    finally:
        os.seteuid(user)
        memory.path.parent.chmod(0o700)
    assert "XDG_STATE_HOME" in caught.value.fix
    assert memory.recall().entries == 1


def test_a_machine_names_its_run(checkout, monkeypatch):
    """In GitHub Actions the actor and the address of the run; else git's user."""
    git("-C", checkout, "config", "user.name", "Grace")
    git("-C", checkout, "config", "user.email", "grace@team.example")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert str(ledger_branch.author(checkout)) == "Grace <grace@team.example>"
    settings = {"ACTIONS": "true", "ACTOR": "octocat", "SERVER_URL": "https://forge.example", "REPOSITORY": "team/images", "RUN_ID": "7"}
    for name, value in settings.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    found = ledger_branch.author(checkout)
    assert (found.name, found.run) == ("octocat", "https://forge.example/team/images/actions/runs/7")
