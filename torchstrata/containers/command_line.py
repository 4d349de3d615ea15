"""A container as a line of ``docker run``."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence

from torchstrata.containers.description import HOME, ContainerDescription
from torchstrata.image.runtime import WORKSPACE

FILE = "run.sh"


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return a file with the line, which can be pasted into a shell, too."""
    lines = [shlex.join(("docker", "run", "--detach", "--name", description.name)), *_lines(description), description.image]
    workspace = f'"$PWD"/{shlex.quote(description.workspace[2:])}' if _is_relative(description) else shlex.quote(description.workspace)
    head = f"# {description.title}. {_into(description)}\n{description.made(workspace)}\n"
    return {FILE: head + " \\\n  ".join(lines) + "\n"}


def _into(description: ContainerDescription) -> str:
    name = shlex.quote(description.name)
    if description.is_interactive:
        return f"Into it: docker exec -it {name} bash -l"
    return f"Its address{description.moved and f', with port {description.moved}'}: docker logs {name}"


def _lines(description: ContainerDescription) -> Iterator[str]:
    """Yield the options, those that belong together on one line."""
    yield from (shlex.join(words) for words in _options(description) if words)
    if description.is_for_anybody:
        yield '--user "$(id -u):0"'
    yield from (shlex.join(("--publish", each)) for each in description.bindings)
    yield from (shlex.join(("--env", f"{name}={value}")) for name, value in description.environment.items())
    if description.has_ssh and not description.authorized_keys:
        yield "--env SSH_PUBLIC_KEY"  # docker takes it from the shell's environment, where it is there
    yield _workspace(description)
    yield shlex.join(("--mount", mount(type="volume", source=description.volume, target=HOME)))


def _options(description: ContainerDescription) -> Sequence[tuple[str, ...]]:
    return (
        () if description.is_pullable else ("--pull", "never"),
        ("--platform", description.unusual_platform) if description.unusual_platform else (),
        ("--interactive", "--tty") if description.is_interactive else (),
        ("--gpus", str(description.gpus)) if description.gpus else (),
        ("--shm-size", description.memory, *(word for name, value in description.limits.items() for word in ("--ulimit", f"{name}={value}"))),
        () if description.is_for_anybody else ("--user", description.user),
    )


def _workspace(description: ContainerDescription) -> str:
    if not _is_relative(description):
        return shlex.join(("--mount", mount(type="bind", source=description.workspace, target=WORKSPACE)))
    before, dot, after = mount(type="bind", source=description.workspace, target=WORKSPACE).partition("./")
    return f'--mount {shlex.quote(before)}"$PWD"{shlex.quote(dot[1:] + after)}'


def _is_relative(description: ContainerDescription) -> bool:
    return description.workspace.startswith("./")


def mount(**fields: str) -> str:
    """Return the value of ``--mount``: fields of CSV (RFC 4180), so that a path may have a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{name}={value}" for name, value in fields.items())
    return line.getvalue()
