"""What a run has in an engine while it works: listed before it is made, so that the next run can remove it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, Literal

import msgspec

from torchstrata import decoding, process
from torchstrata.errors import CommandError, VariableError
from torchstrata.host import docker_config

LIST: Final = "leavings.jsonl"
"""File of a run's directory, a line for each."""

SECONDS: Final = 30
"""For one removal, which others may wait for; an engine goes on with one that it has begun."""

BEGUN: Final = "already in progress"
"""What an engine says of a container that it is removing, as it does by itself when one ends (``--rm``)."""

PAUSE: Final = 0.2
"""Seconds until it is asked about that again."""

Kind = Literal["container", "image"]

REMOVE: Final[dict[Kind, tuple[str, ...]]] = {"container": ("rm", "--force", "--volumes", "--"), "image": ("image", "rm", "--force", "--")}


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """A container or an image that goes with the run that has made it.

    :param engine: where the engine was that it was made in.
    """

    kind: Kind
    name: str
    engine: str

    @classmethod
    def of(cls, kind: Kind, name: str) -> Leaving:
        """Return what is about to be made in the present engine.

        :raises VariableError: Docker's configuration says of none where it is.
        """
        return cls(kind=kind, name=name, engine=docker_config.address())

    def listed(self, directory: Path) -> Leaving:
        """Write this to the list of the run that has ``directory``, wait for the disk, and return it."""
        with (directory / LIST).open("ab") as file:
            file.write(msgspec.json.encode(self) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return self

    def remove(self) -> bool:
        """Remove it, running or not; return whether it is gone.

        One of another engine than the present one stays, and so does one of an engine that is silent.
        """
        try:
            return self.engine == docker_config.address() and self._is_gone()
        except (CommandError, VariableError):  # no docker here today, or none that knows its engine
            return False

    def _is_gone(self) -> bool:
        """Let the engine remove it, and wait while it is at it already."""
        deadline = time.monotonic() + SECONDS
        while BEGUN in (refusal := self._refusal()) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        return not refusal or "No such" in refusal

    def _refusal(self) -> str:
        """Return why the engine does not remove it; nothing where it does."""
        try:
            process.run("docker", *REMOVE[self.kind], self.name, seconds=SECONDS)
        except process.Failed as error:
            return error.tail or error.what
        return ""


def removed(directory: Path) -> bool:
    """Remove all that is on the list of an ended run; return whether nothing is left.
    A line that was cut short names what was not made.
    """
    path = directory / LIST
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    gone = [_gone(line) for line in lines]
    return all(gone)


def _gone(line: bytes) -> bool:
    try:
        return decoding.decode(line, Leaving).remove()
    except msgspec.DecodeError:  # a damaged disk: nobody knows any more what it was
        return True
