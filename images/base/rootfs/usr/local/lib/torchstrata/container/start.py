"""The start of a container, as PID 1: from whoever it was started as and whatever is mounted to a command under an init."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from container import adoption, authorities, endings, environment, hooks, limits, notices, preflight, state, users, workspace

INIT: Final = "/usr/bin/tini"
MAIN: Final = Path(__file__).parents[1]
SERVE: Final = (sys.executable, "-I", "-S", str(MAIN), "serve")
SHELL: Final = ("bash",)
NO_GPU: Final = 69
"""Exit status where a GPU is required and none fits, EX_UNAVAILABLE of sysexits.h."""

NOTHING_RUNS: Final = 78
"""Exit status where no service can run, EX_CONFIG."""


def main(arguments: list[str]) -> int:
    """Prepare the container, then become its init with the command, or with the services where none was given.

    :return: only where the start is refused: the exit status.
    """
    endings.heed()
    if os.getuid() == 0:
        refused = adoption.adopt(arguments)
        if refused:
            return refused
    given = dict(os.environ)
    wanted = [] if arguments else _installed()
    trouble = state.claim() if wanted else ""
    variables = _environment(given)
    workspace.prepare()
    _advise_on_installing()
    if not preflight.run(variables):
        return NO_GPU
    hooks.run(variables)
    if trouble:
        notices.warn(f"no services: {trouble}", "give a command, such as bash, or a place that can be written: --tmpfs /tmp")
        return NOTHING_RUNS
    command = arguments or (_services(wanted, given, variables) if wanted else list(SHELL))
    return _become(command, variables, services=bool(wanted)) if command else NOTHING_RUNS


def _environment(given: dict[str, str]) -> dict[str, str]:
    """Return the container's environment: what was given, less secrets, and what follows from user, limits and authorities."""
    variables = environment.public(given)
    variables |= users.environment(users.identify(given), given)
    variables |= limits.thread_environment(variables)
    variables |= authorities.environment(variables)
    return variables


def _installed() -> list[str]:
    """Return the services that this image has."""
    from container import jupyter, ssh  # noqa: PLC0415  # not needed for a command

    return [name for name, program in (("jupyter", jupyter.PROGRAM), ("ssh", ssh.PROGRAM)) if program.exists()]


def _services(installed: list[str], given: dict[str, str], variables: dict[str, str]) -> list[str]:
    """Plan the services that are wanted of those that this image has; return the command that runs them."""
    from container import jupyter, services, ssh  # noqa: PLC0415  # not needed for a command

    variables.setdefault("JUPYTER_RUNTIME_DIR", str(state.directory() / "jupyter"))
    wanted = given.get("TORCHSTRATA_SERVICES", "jupyter ssh").replace(",", " ").split()
    planned = []
    if "jupyter" in installed and "jupyter" in wanted:
        planned.append(jupyter.plan(given))
    if "ssh" in installed and "ssh" in wanted:
        planned += filter(None, [ssh.plan(given, Path(variables["HOME"]))])
    services.remember(planned)
    if all(service.refused for service in planned):
        notices.warn("no service can run: the container ends here", "give a command, or what the lines above ask for")
        return []
    return list(SERVE)


def _advise_on_installing(packages: Path = Path("/opt/venv")) -> None:
    if packages.exists() and not os.access(packages, os.W_OK):
        if os.statvfs(packages).f_flag & os.ST_RDONLY:
            return
        notices.inform(f"pip cannot install as {os.getuid()}:{os.getgid()}: use --user {os.getuid()}:0 or --group-add 0")


def _become(command: list[str], variables: dict[str, str], *, services: bool) -> NoReturn:
    """Become the init, whose environment is the container's, and let it start the command."""
    if services:
        state.write(state.INIT, str(os.getpid()), mode=0o644)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    endings.defer()
    os.execve(INIT, [INIT, "-s", "-g", "--", *endings.UNBLOCK, *command], variables)  # noqa: S606
