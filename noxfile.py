"""Sessions over the matrix (``build-2.8-cu121``) and for contributors (``lint``, ``unit``, ``system``, ``tests``)."""

from __future__ import annotations

import os
import sys
from itertools import chain
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # sessions start Python hundreds of times, and without bytecode each start takes twice as long

from torchstrata import environment, process  # noqa: E402  # after the path, so that plain `nox` finds the checkout

process.end_as_by_ctrl_c()
environment.enter(sys.argv[1:])  # goes on with the packages of requirements.txt; the imports below need them

from torchstrata.commands import sessions  # noqa: E402
from torchstrata.commands.cli import guarded  # noqa: E402
from torchstrata.matrix import matrix  # noqa: E402

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"  # what is installed is brought up to date each time; a new environment would have no bytecode
nox.options.error_on_external_run = True

LOCKED = ("--require-hashes", "--only-binary", ":all:", "--requirement", "requirements-dev.txt")
"""What sessions install: the locked packages. The checkout itself is not installed; everything runs in it."""

MEMORY, ROOM = Path("/dev/shm"), 1 << 30  # noqa: S108  # pytest makes a directory of its own there
"""Where Linux has a file system in memory, and how many bytes must be free there for unit tests to use it."""

TESTED = ("2.13-cpu", "2.8-cu121")
"""The cells that ``tests`` builds and verifies."""

UNASKED = "--json" in sys.argv
"""Whether sessions count that run only when asked for: as JSON nox lists what it would run, and should list everything."""

LISTING = not {"-l", "--list", "--list-sessions"}.isdisjoint(sys.argv)
"""Whether nox only lists: then each cell has one name."""


def _develop(session: nox.Session) -> None:
    """Give the session the environment that all checks share, with what they need."""
    sessions.share_environment(session, *LOCKED)


def _register(cell: matrix.Cell, name: str, *, tags: bool) -> None:
    """Make the sessions that build and verify ``cell`` under ``name``."""

    def build(session: nox.Session) -> None:
        sessions.build(cell.id, session.posargs)

    def test(session: nox.Session) -> None:
        def prepare() -> Path:
            _develop(session)
            return Path(session.bin, "python")

        sessions.verify(cell.id, session.posargs, prepare)

    build.__doc__, test.__doc__ = f"Build the images of {cell.id}.", f"Verify the images of {cell.id}."
    which = [f"torch-{cell.torch}", cell.cuda, cell.os.id]
    nox.session(sessions.part(build), name=f"build-{name}", tags=["build", *which] if tags else [], venv_backend="none", default=UNASKED)
    nox.session(sessions.part(test), name=f"test-{name}", tags=["test", *which] if tags else [], venv_backend="none", default=UNASKED)


sessions.check_sessions(sys.argv[1:], os.environ.get("NOXSESSION", ""))
for _cell in sessions.cells():
    for _name in _cell.names[:1] if LISTING else _cell.names:
        _register(_cell, _name, tags=_name == _cell.names[0])


@nox.session(venv_backend="none", default=UNASKED)
@sessions.part
@sessions.wordless
def engine(_: nox.Session) -> None:
    """Make a Docker engine with buildx available where there is none."""
    sessions.engine()


@nox.session(venv_backend="none", default=UNASKED)
@sessions.part
def lock(session: nox.Session) -> None:
    """Lock every cell of the matrix, or those given: -- 2.8-cu121."""
    sessions.lock(session.posargs)


@nox.session(venv_backend="none")
@sessions.part
@sessions.wordless
def lint(session: nox.Session) -> None:
    """Check style, types, Dockerfiles, shell scripts, workflows and locks."""
    _develop(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("hadolint", *_files("images/*/Dockerfile", "bench/**/Dockerfile"))
    session.run(
        "shellcheck",
        "--shell",
        "sh",
        "--exclude",
        "SC1091",  # what a script of an image reads lies in the image; it is checked by itself
        *_files(
            ".ci/run",
            "images/apt/install",
            "images/base/rootfs/etc/profile",
            "images/base/rootfs/etc/skel/.profile",
            "images/base/rootfs/usr/local/lib/torchstrata/root.sh",
            "images/base/rootfs/usr/sbin/policy-rc.d",
            "tests/fresh/boot",
            "torchstrata/attestations/offline/verify",
        ),
    )
    session.run("zizmor", "--offline", "--no-progress", "--persona", "pedantic", ".github")
    session.run("jactionlint")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *_files(".github/workflows/*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-actions", *_files(".github/actions/*/action.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")
    session.run("check-jsonschema", "--schemafile", "matrix.schema.json", "matrix.yaml")
    session.run("check-jsonschema", "--schemafile", "flavour.schema.json", *_files("images/*/flavour.yaml"))
    session.run("inv", "lock", "--check")


@nox.session(venv_backend="none")
@sessions.part
def unit(session: nox.Session) -> None:
    """Run the tests that need neither an engine nor a network."""
    _develop(session)
    session.run("pytest", "tests/unit", "--numprocesses=3", "--dist=worksteal", *session.posargs, env=_in_memory())


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def system(session: nox.Session) -> None:
    """Build 2.13-cpu and the base of 2.8-cu121 for real, run them, and break things on the way."""
    _develop(session)
    sessions.run(session, "pytest", "tests/system", "--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder", *session.posargs)


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def browser(session: nox.Session) -> None:
    """Look at catalogues in a real Chromium: picker, keyboard, phone, dark, Chinese, 500 images, axe; needs chromium and npm."""
    _develop(session)
    sessions.run(session, "pytest", "tests/browser", *session.posargs)


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def mutants(session: nox.Session) -> None:
    """Plant faults in images and see that the tests find them; -- WORD for some of them."""
    _develop(session)
    sessions.run(session, "python", "-m", "tests.mutants", *session.posargs)


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def rehearse(session: nox.Session) -> None:
    """Run GitHub's workflows on this machine, against a registry of their own: -- --workflow ci.yml, --cells 2.13-cpu."""
    _develop(session)
    sessions.run(session, "python", "-m", "tests.rehearsal", *session.posargs)


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def fresh(session: nox.Session) -> None:
    """Run README's commands on machines that nobody prepared: -- --as root,user,runner --on debian12,debian13."""
    from tests.fresh.__main__ import main  # noqa: PLC0415  # only this session needs it

    with guarded():
        sys.exit(main(session.posargs))


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
@sessions.wordless
def required(session: nox.Session) -> None:
    """Write the lists of the image tests that must run, for review, after adding or removing some."""
    _develop(session)
    session.run("python", "-m", "pytest", "-p", "tests.images.plugin", "images", "tests/images", "-q", "--list-to", ".")


@nox.session(name="docs-check", default=UNASKED, venv_backend="none")
@sessions.part
def docs_check(session: nox.Session) -> None:
    """Check what guides, comments and docstrings name: files, links, sessions, verbs, tables, the picture of rooms (part of unit)."""
    _develop(session)
    session.run("pytest", *(f"tests/unit/test_{name}.py" for name in ("prose", "documented_commands", "repository", "rooms")), *session.posargs)


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
@sessions.wordless
def house(session: nox.Session) -> None:
    """Draw which rooms of the package import from which, for CONTRIBUTING.md."""
    _develop(session)
    session.run("python", "-m", "tests.house")


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def site(session: nox.Session) -> None:
    """Build the guides as a site, into site/."""
    _develop(session)
    session.run("mkdocs", "build", "--quiet", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def verified(session: nox.Session) -> None:
    """Take the evidence in results/, or -- DIRECTORY, into docs/verified.md."""
    _develop(session)
    session.run("python", "-m", "tests.verified", *session.posargs)


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def tests(session: nox.Session) -> None:
    """Prove a change: lint, unit, the images of two cells and the system in short; -- --again, --cells."""
    _tier(session, "tests", "quick")


@nox.session(name="tests-full", default=UNASKED, venv_backend="none")
@sessions.part
def tests_full(session: nox.Session) -> None:
    """Run every test: for nights, and before images change; -- --again, --record."""
    _tier(session, "tests-full", "full")


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def soak(session: nox.Session) -> None:
    """Find what takes long to find: planted faults, every disturbed request, fresh machines, fuzzing, stress; -- --record."""
    recorded = sessions.is_recorded("soak", session.posargs)
    session.notify("mutants", [])
    session.notify("system", ["-k", "test_registry", "--every", "1"])
    session.notify("fresh", ["--as", "root,user,runner", "--on", "debian12,debian13"])
    session.notify("browser", [])
    session.notify("fuzz", [])
    session.notify("stress", [])
    session.notify("cpu-time", ["soak", *(["--record"] if recorded else [])])


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def fuzz(session: nox.Session) -> None:
    """Feed readers of what comes from outside with bytes that coverage leads: -- --seconds 60 --seed 1 NAME."""
    _develop(session)
    sessions.run(session, "python", "-m", "tests.soak.fuzzing", *session.posargs)


@nox.session(default=UNASKED, venv_backend="none")
@sessions.part
def stress(session: nox.Session) -> None:
    """Run the tests of endurance, some of which take an hour; -- -k NAME for some of them."""
    _develop(session)
    sessions.run(session, "pytest", "tests/soak", *session.posargs)


def _tier(session: nox.Session, name: str, scope: str) -> None:
    """Let the sessions of a tier follow, and a table of what they cost; a failed one does not keep the others from running."""
    options = sessions.tier_options(name, session.posargs, TESTED)
    for prepared in ("engine", "lint", "unit", *(f"build-{cell}" for cell in options.cells)):
        session.notify(prepared, [])
    session.notify("system", ["--scope", scope, "--cells", ",".join(options.cells)])
    for cell in options.cells:
        session.notify(f"test-{cell}", ["--scope", scope, *(["--again"] if options.again else [])])
    session.notify("cpu-time", [name, *(["--record"] if options.record else [])])


if not LISTING:

    @nox.session(name="cpu-time", default=False, venv_backend="none")
    @sessions.part
    def cpu_time(session: nox.Session) -> None:
        """Show what the sessions of a tier have cost."""
        sessions.cpu_time(sessions.METER.parts, session.posargs)


def _in_memory() -> dict[str, str]:
    """Return the variable that puts temporary files into memory, where there is room and programs in it may run (not so in containers).

    Unit tests sync and remove thousands of files.
    """
    try:
        space = os.statvfs(MEMORY)
    except OSError:
        return {}
    serves = space.f_bavail * space.f_frsize > ROOM and not space.f_flag & os.ST_NOEXEC
    return {"TMPDIR": str(MEMORY)} if serves else {}


def _files(*patterns: str) -> list[str]:
    """Return the files that match, as strings; fail when a pattern matches none, so that no check is empty."""
    matches = {pattern: sorted(map(str, ROOT.glob(pattern))) for pattern in patterns}
    for pattern, files in matches.items():
        if not files:
            raise SystemExit(f"noxfile.py: {pattern} matches no file")
    return list(chain.from_iterable(matches.values()))
