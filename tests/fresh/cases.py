"""Who uses a machine, and what they type: root of an empty one, a user of one with an engine, a runner like GitHub's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fresh.readme import Commands
from torchstrata.arguments import option, switch
from torchstrata.layers import os_image
from torchstrata.matrix import matrix

BUNDLE: Final = "srv/torchstrata.bundle"
STORE: Final = "srv/store"
PARTS: Final = "srv/parts"
COPY: Final = f"xargs --arg-file=/{PARTS} cp --parents --target-directory ~/.cache/torchstrata"
SEED: Final = f"mkdir --parents .cache/torchstrata && cd /{STORE} && {COPY}"
CLONE: Final = f"git clone --quiet /{BUNDLE} torchstrata"
VENV: Final = "python3 -m venv venv"
INSIDE: Final = "cd torchstrata && . ~/venv/bin/activate"
GB: Final = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One line typed at a machine.

    :param user: whose login shell gets it.
    :param name: what the table calls it.
    :param first: whether it is README's first command.
    """

    user: str
    line: str
    name: str
    first: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineCase:
    """A kind of machine, by its user.

    :param packages: that it has besides what README needs.
    :param disk: bytes of its disk; None for as much as there is.
    :param prepared: what its administrator typed before anybody used it.
    :param workflow: whose steps it runs, instead of README's commands.
    """

    user: str
    packages: tuple[str, ...] = ()
    disk: int | None = None
    prepared: tuple[str, ...] = ()
    workflow: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What else than README's commands as they stand is to be typed.

    :param store: a content store whose layers machines are offered, to begin with.
    """

    cells: tuple[str, ...] = option("cells that the first command builds (default: README's)", "CELL", ())
    first: bool = switch("leave README's second command out")
    workflow: str | None = option("the steps of a workflow, as a runner does by itself (default: README's commands)", "NAME")
    readme: bool = switch("README's commands, as a runner too")
    then: tuple[str, ...] = option("one more line; more than once for more (default: none)", "LINE", (), verbatim=True)
    store: Path | None = option("a content store whose layers of wheels they have (default: none)", "DIR")


ENGINE: Final = (
    CLONE,
    VENV,
    f"{INSIDE} && {{install}}",
    f"{INSIDE} && nox -s engine",
    "rm -r torchstrata venv .cache",
)
"""What an administrator types to have an engine."""

STAND_IN: Final = "torchstrata-stand-in"
WHOLE: Final = "tar --create --directory / --one-file-system --exclude ./var/lib/docker --exclude ./srv --exclude ./opt ."
NAMED: Final = f"echo {os_image.CONTAINER_VARIABLE}={STAND_IN} >> /etc/environment"
BOOTSTRAP: Final = f"docker pull --quiet {{bootstrap}} || {{ {WHOLE} | docker import - {STAND_IN} && {NAMED}; }}"
"""The image that mmdebstrap runs in for who cannot run it otherwise; where no registry can be reached, the machine's own files."""

CASES: Final = {
    "root": MachineCase(user="root"),
    "user": MachineCase(user="user", prepared=(*ENGINE, "useradd --create-home --shell /bin/bash --groups docker user", BOOTSTRAP)),
    "runner": MachineCase(
        user="runner",
        packages=("sudo",),
        disk=14 * GB,
        workflow="ci.yml",
        prepared=(
            *ENGINE,
            "useradd --create-home --shell /bin/bash --uid 1001 --groups docker runner",
            "echo 'runner ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/runner",
        ),
    ),
}


def steps(case: MachineCase, commands: Commands, wishes: Wishes) -> Iterator[Step]:
    """Yield all that is typed at a machine of this case."""
    for line in case.prepared:
        typed = line.replace("{install}", commands.install).replace("{bootstrap}", str(matrix.load().bootstrap_image))
        name = "an image for mmdebstrap" if line == BOOTSTRAP else typed.rpartition("&& ")[2]
        yield Step(user="root", line=typed, name=f"administrator: {name}")
    if wishes.store:
        yield Step(user=case.user, line=SEED, name="layers of wheels")
    yield Step(user=case.user, line=CLONE, name="git clone")
    yield Step(user=case.user, line=VENV, name=VENV)
    yield Step(user=case.user, line=f"{INSIDE} && {commands.install}", name=commands.install)
    for number, line in enumerate((*_asked(case, commands, wishes), *wishes.then)):
        yield Step(user=case.user, line=f"{INSIDE} && {line}", name=line, first=number == 0)


def _asked(case: MachineCase, commands: Commands, wishes: Wishes) -> tuple[str, ...]:
    """Return what the machine is for: the steps of a workflow, or README's commands."""
    if workflow := wishes.workflow or (not wishes.readme and case.workflow):
        return (f"nox -s rehearse -- --workflow {workflow}",)
    return commands.asked(wishes.cells, only_first=wishes.first)
