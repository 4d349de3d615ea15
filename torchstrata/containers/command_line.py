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
    into = f"docker exec -it {shlex.quote(description.name)} bash -l" if description.is_interactive else f"docker logs {shlex.quote(description.name)}"
    head = f"# {description.title}. {'Into it' if description.is_interactive else 'Its address'}: {into}\nmkdir -p {workspace}\n"
    return {FILE: head + " \\\n  ".join(lines) + "\n"}


def _lines(description: ContainerDescription) -> Iterator[str]:
    """Yield the options, those that belong together on one line."""
    yield from (shlex.join(words) for words in _options(description) if words)
    yield from (f"--publish {description.address}:{each.published}:{each.port}" for each in description.endpoints)
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
        ("--user", description.user),
    )


def _workspace(description: ContainerDescription) -> str:
    if not _is_relative(description):
        return shlex.join(("--mount", mount(type="bind", source=description.workspace, target=WORKSPACE)))
    return f'--mount type=bind,source="$PWD"/{shlex.quote(description.workspace[2:])},target={WORKSPACE}'


def _is_relative(description: ContainerDescription) -> bool:
    return description.workspace.startswith("./")


def mount(**fields: str) -> str:
    """Return the value of ``--mount``: fields of CSV (RFC 4180), so that a path may have a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{name}={value}" for name, value in fields.items())
    return line.getvalue()
