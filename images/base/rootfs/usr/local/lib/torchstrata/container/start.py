"""The start of a container, as PID 1: from whoever it was started as and whatever is mounted to a command under an init."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from container import adoption, authorities, belongings, endings, environment, hooks, limits, locales, notices, preflight, settings, state, users, workspace

INIT: Final = "/usr/bin/tini"
MAIN: Final = Path(__file__).parents[1]
SERVE: Final = (sys.executable, "-I", "-S", str(MAIN), "serve")
SHELL: Final = ("bash",)
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
        settings.check(os.environ)
        settings.check_command(arguments)
        refused = adoption.adopt(arguments) if os.getuid() == 0 else 0
        return refused or _start(arguments, dict(os.environ))
    except settings.SettingError as error:
        notices.warn(error.what, error.fix)
        return NOTHING_RUNS


def _start(arguments: list[str], given: dict[str, str]) -> int:
    for name in settings.links(given):
        notices.inform(f"{name} is a service link of Kubernetes and is left aside (enableServiceLinks: false keeps it away)")
    wanted = [] if arguments else _installed()
    trouble = _claim(wanted) if wanted else ""
    variables = _environment(given)
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
        return _become(arguments, variables | environment.secret(given), services=False)
    command = _services(wanted, given, variables) if wanted else list(SHELL)
    return _become(command, variables, services=bool(wanted)) if command else NOTHING_RUNS


def _environment(given: dict[str, str]) -> dict[str, str]:
    """Return the container's environment: what was given, less secrets, and what follows from user, limits and authorities."""
    variables = environment.public(given)
    variables |= users.environment(users.identify(given), given)
    variables |= locales.environment(variables)
    variables |= limits.thread_environment(variables)
    variables |= authorities.environment(variables)
    return variables


def _installed() -> list[str]:
    """Return the services that this image has."""
    from container import jupyter, ssh  # noqa: PLC0415  # not needed for a command

    return [name for name, program in (("jupyter", jupyter.PROGRAM), ("ssh", ssh.PROGRAM)) if program.exists()]


def _claim(wanted: list[str]) -> str:
    """Take the place of what services remember, and say there that they will run: nobody is to take a start with hooks for a command.

    :return: why there is no such place; empty where there is.
    """
    from container import services  # noqa: PLC0415  # not needed for a command

    trouble = state.claim()
    if not trouble:
        services.remember(services.Service(name, 0, "", refused="starting") for name in wanted)
    return trouble


def _services(installed: list[str], given: dict[str, str], variables: dict[str, str]) -> list[str]:
    """Plan the services that are wanted of those that this image has; return the command that runs them."""
    from container import jupyter, services, ssh  # noqa: PLC0415  # not needed for a command

    variables.setdefault("JUPYTER_RUNTIME_DIR", str(state.directory() / "jupyter"))
    wanted = settings.services("TORCHSTRATA_SERVICES", given.get("TORCHSTRATA_SERVICES", "jupyter ssh"))
    planned = []
    if "jupyter" in installed and "jupyter" in wanted:
        planned.append(jupyter.plan(given))
    if "ssh" in installed and "ssh" in wanted:
        planned += filter(None, [ssh.plan(given, Path(variables["HOME"]))])
    services.keep_apart(planned)
    services.remember(planned)
    if all(service.refused for service in planned):
        notices.warn("no service can run: the container ends here", "give a command, or what the lines above ask for")
        return []
    return list(SERVE)


def _advise_on_home() -> None:
    """Say what programs cannot write below home; other mounts may be for reading, and are the doctor's business."""
    for problem in belongings.problems(os.getuid(), os.getgid(), home_only=True):
        notices.warn(problem.what, problem.fix)


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
    reaping = [] if os.getpid() == 1 else ["-s"]  # PID 1 gets orphans anyhow, and QEMU 7.2 cannot ask for them (PR_SET_CHILD_SUBREAPER)
    os.execve(INIT, [INIT, *reaping, "-g", "--", *endings.UNBLOCK, *command], variables)  # noqa: S606
