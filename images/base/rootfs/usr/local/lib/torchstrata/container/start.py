"""The start of a container, as PID 1: as whatever user, with whatever is mounted, to a command under an init."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from container import (
    adoption,
    authorities,
    belongings,
    declarations,
    endings,
    environment,
    hooks,
    limits,
    locales,
    notices,
    preflight,
    settings,
    state,
    users,
    workspace,
)
from container.declarations import Catalog, Declaration

INIT: Final = "/usr/bin/tini"
MAIN: Final = Path(__file__).parents[1]
SERVE: Final = (sys.executable, "-I", "-S", str(MAIN), "serve")
NO_GPU: Final = 69
"""Exit status where a GPU is required and none fits, EX_UNAVAILABLE of sysexits.h."""

NOTHING_RUNS: Final = 78
"""Exit status where a setting is wrong, or no service can run: EX_CONFIG."""


def main(arguments: list[str]) -> int:
    """Prepare the container, then become its init with the command, or with the services where none was given.

    :return: only where the start is refused: the exit status.
    """
    endings.heed()
    try:
        catalog = declarations.read()
        settings.check(os.environ, declarations.gates(catalog.services))
        _check_by_modules(catalog)
        settings.check_command(arguments)
        refused = adoption.adopt(arguments) if os.getuid() == 0 else 0
        return refused or _start(arguments, catalog, dict(os.environ))
    except settings.SettingError as error:
        notices.warn(error.what, error.fix)
        return NOTHING_RUNS


def _start(arguments: list[str], catalog: Catalog, given: dict[str, str]) -> int:
    """Prepare the container as its user; return only where nothing can run: the exit status."""
    for name in settings.links(given, declarations.gates(catalog.services)):
        notices.inform(f"{name} is a service link of Kubernetes and is left aside (enableServiceLinks: false keeps it away)")
    wanted = None if arguments else declarations.wanted(catalog, given)
    trouble = _claim(wanted)
    secrets = declarations.secrets(catalog.services)
    variables = _environment(given, secrets)
    workspace.prepare()
    _advise_on_home()
    _advise_on_installing()
    if not preflight.run(variables):
        return NO_GPU
    hooks.run(variables)
    if trouble:
        notices.warn(f"no services: {trouble}", "give a command, such as bash, or a place that can be written: --tmpfs /tmp:exec")
        return NOTHING_RUNS
    if arguments:
        return _become(arguments, variables | environment.secret(given, secrets), serving=False)
    if wanted is None:
        return _become(list(catalog.command), variables, serving=False)
    return _serve(wanted, catalog, given, variables)


def _check_by_modules(catalog: Catalog) -> None:
    """Let modules of services check their own variables, where any was given.

    :raises SettingError: one has a value that it cannot have.
    """
    if any(not os.environ.keys().isdisjoint(declared.variables) for declared in catalog.services):
        from container import extension  # noqa: PLC0415  # not needed for most commands

        extension.check(catalog.services, os.environ)


def _claim(wanted: Sequence[Declaration] | None) -> str:
    """Make the directory of what services remember, if any are to run; return why there is none."""
    if wanted is None:
        return ""
    from container import planning  # noqa: PLC0415  # not needed for a command

    return planning.claim(wanted)


def _serve(wanted: Sequence[Declaration], catalog: Catalog, given: dict[str, str], variables: dict[str, str]) -> int:
    """Plan the services and become the init that runs them; return the exit status where none can run."""
    from container import planning  # noqa: PLC0415  # not needed for a command

    variables = planning.environment(catalog.services) | variables
    return _become(list(SERVE), variables, serving=True) if planning.plan(wanted, given, Path(variables["HOME"])) else NOTHING_RUNS


def _environment(given: dict[str, str], secrets: Sequence[str]) -> dict[str, str]:
    """Return the container's environment: what was given, less secrets, and what follows from user, limits and authorities."""
    variables = environment.public(given, secrets)
    variables |= users.environment(users.identify(given), given)
    variables |= locales.environment(variables)
    variables |= limits.thread_environment(variables)
    variables |= authorities.environment(variables)
    return variables


def _advise_on_home() -> None:
    """Say what programs cannot write below home; other mounts may be for reading, and are the doctor's business."""
    for problem in belongings.problems(os.getuid(), os.getgid(), home_only=True):
        notices.warn(problem.what, problem.fix)


def _advise_on_installing(packages: Path = Path("/opt/venv")) -> None:
    """Say what lets pip install, where it cannot; who has asked for ``--read-only`` knows."""
    if packages.exists() and not os.access(packages, os.W_OK) and not os.statvfs(packages).f_flag & os.ST_RDONLY:
        notices.inform(f"pip cannot install as {os.getuid()}:{os.getgid()}: use --user {os.getuid()}:0 or --group-add 0")


def _become(command: list[str], variables: dict[str, str], *, serving: bool) -> NoReturn:
    """Become the init, whose environment is the container's, and let it start the command."""
    if serving:
        state.write(state.INIT, str(os.getpid()), mode=0o644)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, which the command would inherit
        signal.signal(number, signal.SIG_DFL)
    endings.defer()
    reaping = [] if os.getpid() == 1 else ["-s"]  # PID 1 gets orphans anyhow, and QEMU 7.2 cannot ask for them (PR_SET_CHILD_SUBREAPER)
    os.execve(INIT, [INIT, *reaping, "-g", "--", *endings.UNBLOCK, *command], variables)  # noqa: S606
