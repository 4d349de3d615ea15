"""A container as a line of ``docker run``."""

from __future__ import annotations

import csv
import io
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence

from torchstrata.containers.description import HOME, ContainerDescription
from torchstrata.image.runtime import WORKSPACE

FILE = "run.sh"


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return a file with the line; people may paste it into a shell, too."""
    command = shlex.join(("docker", "run", "--detach", "--name", description.name))
    lines = " \\\n  ".join([command, *_lines(description), description.image])
    made = description.made(description.workspace_below("PWD"))
    return {FILE: f"# {description.title}. {_into(description)}\n{made}\n{lines}\n"}


def _into(description: ContainerDescription) -> str:
    name = shlex.quote(description.name)
    if description.is_interactive:
        return f"Into it: docker exec -it {name} bash -l"
    return f"Its address{description.moved and f', with port {description.moved}'}: docker logs {name}"


def _lines(description: ContainerDescription) -> Iterator[str]:
    """Yield the options, a line each; what belongs together shares one."""
    yield from (shlex.join(words) for words in _options(description) if words)
    if description.is_for_anybody:
        yield '--user "$(id -u):0"'
    yield from (shlex.join(("--publish", binding)) for binding in description.bindings)
    yield from (shlex.join(("--env", f"{name}={value}")) for name, value in description.environment.items())
    if description.lacks_ssh_key:
        yield "--env SSH_PUBLIC_KEY"  # docker takes its value from the shell's environment, if it is set there
    yield _workspace(description)
    yield shlex.join(("--mount", mount(type="volume", source=description.volume, target=HOME)))


def _options(description: ContainerDescription) -> Sequence[tuple[str, ...]]:
    """Return the words of options that each container has, or lacks as a whole."""
    limits = (("--ulimit", f"{name}={value}") for name, value in description.limits.items())
    return (
        () if description.is_pullable else ("--pull", "never"),
        ("--platform", description.unusual_platform) if description.unusual_platform else (),
        ("--interactive", "--tty") if description.is_interactive else (),
        ("--gpus", str(description.gpus)) if description.gpus else (),
        ("--shm-size", description.memory, *itertools.chain(*limits)),
        () if description.is_for_anybody else ("--user", description.user),
    )


def _workspace(description: ContainerDescription) -> str:
    value = mount(type="bind", source=description.workspace, target=WORKSPACE)
    if not description.is_workspace_relative:
        return shlex.join(("--mount", value))
    before, dot, after = value.partition("./")
    return f'--mount {shlex.quote(before)}"$PWD"{shlex.quote(dot[1:] + after)}'


def mount(**fields: str) -> str:
    """Return the value of ``--mount``: fields of CSV (RFC 4180), so that a path may have a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{name}={value}" for name, value in fields.items())
    return line.getvalue()
