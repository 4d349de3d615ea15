"""Fresh machines: what they are told to type, what they are given, and what is refused before one is made."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys

import pytest

from tests.fresh import cases, circumstances, given, options, visiting
from tests.fresh.cases import CASES, Wishes
from tests.fresh.given import Given
from tests.fresh.readme import Commands
from tests.fresh.visiting import Visit
from torchstrata.errors import CommandError
from torchstrata.host import apt
from torchstrata.matrix.matrix import ROOT

README = """\
# A title

```sh
other --command
```

## Two commands

Words.

```sh
pip install 'tool[x]'         # in an environment
tool -s build-1-a build-2-b   # builds
tool -s tests
```
"""

NOTHING = Given(variables={}, pip={}, apt={}, mirrors=(), certificates=())


def typed(name, commands, **choices):
    """Return the lines typed at a machine of a case, with who types them."""
    wishes = Wishes(readme=True, **choices)
    return [(step.user, step.line) for step in cases.steps(CASES[name], commands, wishes)]


def test_commands_are_those_of_the_right_block():
    """They are the three lines under "Two commands", without the comments behind them."""
    commands = Commands.read(README)
    assert commands == Commands(install="pip install 'tool[x]'", first="tool -s build-1-a build-2-b", second="tool -s tests")


def test_readme_has_commands_that_can_be_run():
    """The README of this checkout installs nox, builds a cell and runs the tests."""
    commands = Commands.here()
    assert "nox" in commands.install
    assert "build-" in commands.first
    assert commands.second.startswith("nox -s tests")


@pytest.mark.parametrize("text", ["", README.replace("## Two commands", "## Three commands"), README.replace("tool -s tests\n", "")])
def test_a_readme_without_the_three_lines_is_refused(text):
    """What cannot be read is not guessed."""
    with pytest.raises(ValueError, match="unpack"):
        Commands.read(text)


@pytest.mark.parametrize(("cells", "command"), [((), "tool -s build-1-a build-2-b"), (("3-c",), "tool -s build-3-c")])
def test_other_cells_take_the_place_of_readmes(cells, command):
    """Everything else in the command stays as README has it."""
    assert Commands.read(README).building(cells) == command


def test_each_case_types_readmes_lines_as_they_stand():
    """The user's last three lines are README's, in the clone and in an environment."""
    commands = Commands.here()
    for name, case in CASES.items():
        lines = typed(name, commands)
        assert [line.rpartition("activate && ")[2] for _, line in lines[-3:]] == [
            commands.install,
            commands.first,
            commands.second,
        ]
        assert {user for user, _ in lines[-5:]} == {case.user}


@pytest.mark.parametrize(("name", "engine"), [("root", False), ("user", True), ("runner", True)])
def test_only_a_machine_with_an_engine_is_prepared(name, engine):
    """Root of an empty machine gets nothing; the others find an engine, and are in its group."""
    before = typed(name, Commands.here())[:-5]
    assert any("nox -s engine" in line for _, line in before) is engine
    assert any("--groups docker" in line for _, line in before) is engine
    assert {user for user, _ in before} == ({"root"} if engine else set())


def test_the_second_command_can_be_left_out():
    """Twenty runs of the first one would else take a night."""
    commands = Commands.here()
    assert commands.second not in str(typed("root", commands, first=True))


def test_a_machine_knows_no_variable_that_is_not_named(monkeypatch, tmp_path):
    """Of all that this host has set, only certificates, proxies and where packages come from are handed on."""
    for name, value in {
        "PIP_FIND_LINKS": str(tmp_path),
        "https_proxy": "http://proxy:1",
        "AWS_SECRET": "x",
        "SSL_CERT_FILE": "/a/ca.pem",
    }.items():
        monkeypatch.setenv(name, value)
    here = given.by_this_host()
    assert set(here.variables) <= {*apt.PROXIES, *given.BUNDLES}
    assert here.variables["https_proxy"] == "http://proxy:1"
    assert here.variables["SSL_CERT_FILE"] == given.SYSTEM_BUNDLE
    assert tmp_path in here.directories


def test_directories_are_those_that_pip_looks_in():
    """An index in a directory lies beside the files that it leads to; addresses of other kinds are no directories."""
    pip = {
        "index-url": "https://index.example/simple",
        "extra-index-url": "file:///srv/index/simple",
        "find-links": "/srv/wheels https://x.example/y",
    }
    shown = Given(variables={}, pip=pip, apt={}, mirrors=(), certificates=()).directories
    assert list(map(str, shown)) == ["/srv/index", "/srv/wheels"]


def test_sources_are_the_distributions_own_where_this_host_knows_none():
    """A host that is not Debian cannot name mirrors of Debian."""
    assert NOTHING.sources("bookworm") == ""


def test_sources_have_updates_and_security():
    """A machine of somebody has both."""
    here = Given(variables={}, pip={}, apt={}, mirrors=("http://a/debian", "http://a/security"), certificates=())
    assert here.sources("trixie").splitlines() == [
        "deb http://a/debian trixie main",
        "deb http://a/debian trixie-updates main",
        "deb http://a/security trixie-security main",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--as", "nobody"],
        ["--on", "debian1"],
        ["--repeat", "many"],
        ["--repeat", "0"],
        ["--store", "/proc/nowhere"],
        ["--in", "/proc/nowhere"],
        ["--workflow", "none.yml"],
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(words, capsys):
    """Nothing is made before the words are understood."""
    with pytest.raises(SystemExit) as ended:
        options.parse(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_the_program_refuses_so_too():
    """As the session runs it, without a traceback."""
    done = subprocess.run([sys.executable, "-m", "tests.fresh", "--repeat", "many"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--repeat" in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_are_typed_as_they_are_and_what_is_left_out_has_a_default():
    """A comma in a line separates nothing."""
    asked = options.parse(["--then", "echo a,b", "--then", "true", "--as", "root,user"])
    assert (asked.then, asked.as_, asked.on) == (("echo a,b", "true"), ("root", "user"), ("debian12",))


def test_a_cell_that_does_not_exist_is_refused_before_a_machine_is_made(capsys):
    """With the nearest ones, as nox's sessions do; a machine takes minutes to come to that."""
    with pytest.raises(SystemExit) as ended:
        options.parse(["--cells", "2.13-cpu,2.9-cu999"])
    assert ended.value.code == 10
    assert "no cell matches 2.9-cu999" in capsys.readouterr().err


def test_a_visit_ends_with_the_step_that_failed(monkeypatch, tmp_path, capsys):
    """It keeps the status, the times and the last lines, and its log has all of them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    visit = Visit.begin("debian12 root", verbose=False)

    def fail():
        for number in range(100):
            visit.say(f"line {number}")
        return 22

    assert visit.step("first", lambda: 1.0, lambda: 0)
    assert not visit.step("second", lambda: 1.0, fail)
    assert (visit.failed.step, visit.failed.result) == ("second", "failed with status 22")
    assert visit.tail[-1] == "line 99"
    assert visit.log.read_text().count("line ") == 100
    assert "second: failed with status 22" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CommandError("no room", fix="make some")])
def test_a_step_that_is_broken_off_has_not_succeeded(monkeypatch, tmp_path, error):
    """Its machine is none of those where all commands succeeded, though it has no status."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    visit = Visit.begin("debian12 root", verbose=False)

    def break_off():
        raise error

    with pytest.raises(type(error)):
        visit.step("first", lambda: 1.0, break_off)
    assert (visit.failed.step, visit.failed.result) == ("first", "broken off")


def test_what_cannot_be_cloned_is_refused_before_a_machine_is_made(tmp_path):
    """An unpacked archive, or a shallow clone: the error says how to get one that serves."""
    with pytest.raises(CommandError, match="this checkout cannot be cloned: fatal: not a git repository") as caught:
        visiting.check_clonable(tmp_path)
    assert "git clone" in caught.value.fix
    work = ["-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "--quiet", "--allow-empty", "--message=one"]
    for words in (["init", "--quiet", "full"], ["-C", "full", *work], ["-C", "full", *work], ["clone", "-q", "--depth=1", f"file://{tmp_path}/full", "part"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    visiting.check_clonable(tmp_path / "full")
    with pytest.raises(CommandError, match="shallow"):
        visiting.check_clonable(tmp_path / "part")


def test_the_stand_in_for_a_mirror_needs_no_checkout(tmp_path):
    """A machine has one file of it, and Python."""
    circumstances.bring_mirror(tmp_path / "mirror.pyz")
    helped = subprocess.run([sys.executable, "-E", "-S", "mirror.pyz", "--help"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "--drop" in helped.stdout


def test_only_payload_is_offered(tmp_path):
    """A store gives its layers of wheels, not those of the OS nor what was compiled with it."""
    parts = {"wheel": {"inventory": "sha256:1"}, "os": {"inventory": "sha256:2", "packages": "sha256:3"}, "bytecode": {}}
    (tmp_path / "parts").mkdir()
    for name, extras in parts.items():
        layers = [{"digest": f"sha256:{name}", "diff_id": f"sha256:{name}-tar"}]
        (tmp_path / "parts" / f"{name}.json").write_text(json.dumps({"layers": layers, "extras": extras, "notes": {}}))
    offered = set(map(str, visiting.payload(tmp_path)))
    assert offered == {"parts/wheel.json", "blobs/sha256/wheel", "blobs/sha256/1", "listings/wheel-tar"}


@pytest.mark.parametrize("ending", visiting.ENDINGS)
def test_ctrl_c_while_a_machine_is_removed_ends_what_comes_after_it(ending: signal.Signals) -> None:
    """The removal goes on, and nothing else does: `--repeat` made the next machine."""
    seen = []
    with pytest.raises(KeyboardInterrupt), visiting.interrupted_once() as hold:  # noqa: PT012  # what is interrupted is the end of the block
        hold()
        signal.raise_signal(ending)
        seen.append("removed")
    assert seen == ["removed"]


def test_second_ctrl_c_is_none() -> None:
    """Whoever presses it twice is answered once, when all is tidy; and signals are as they were."""
    before = [signal.getsignal(ending) for ending in visiting.ENDINGS]
    with pytest.raises(KeyboardInterrupt), visiting.interrupted_once() as hold, contextlib.ExitStack() as up:  # noqa: PT012
        up.callback(signal.raise_signal, signal.SIGTERM)
        up.callback(hold)
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(ending) for ending in visiting.ENDINGS] == before
    assert not signal.sigpending()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(visiting.ENDINGS)
