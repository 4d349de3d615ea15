"""What can be asked of the verbs, as values: what the command line fills in and the work takes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """What can be asked of a build.

    :param flavour: flavours to build, with their parents; all if empty.
    :param locked: refuse OS packages that are not to be had at their locked version.
    :param to: write an OCI image layout there instead of loading the images into an engine.
    :param level: of the codec; its default if ``None``.
    :param registry: ``HOST[/PATH]`` to look for parts in, and to push to.
    :param push: push the images.
    :param load: load them into the engine.
    :param names: push also under the names that images have in an engine, which moves these tags.
    :param trust_unsealed_parts: use parts of the registry whoever has pushed them.
    """

    flavour: tuple[str, ...]
    locked: bool
    to: Path | None
    codec: Literal["zstd", "gzip"]
    level: int | None
    registry: str | None = None
    push: bool = False
    load: bool = True
    names: bool = False
    trust_unsealed_parts: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseOptions:
    """Where the verbs of a release look, and whether they move anything.

    :param registry: ``HOST[/PATH]``.
    :param ledger: ``REMOTE#branch``.
    """

    registry: str | None = None
    ledger: str | None = None
    yes: bool = False


Step = Literal["all", "locks", "push", "verify", "publish", "cells", "promote"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NightlyOptions:
    """What can be asked of a nightly run.

    :param plan: only say what would be done.
    :param json: say it as JSON.
    :param step: ``all``; or only ``locks``; ``cells``, or of these ``push``, ``verify`` or ``publish``; or ``promote``.
    :param commit: commit the OS locks that move.
    :param send: push that commit.
    :param flavour: what ``verify`` verifies, all if empty.
    """

    registry: str | None
    ledger: str | None
    plan: bool
    json: bool
    step: Step
    commit: bool
    send: bool = False
    flavour: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneOptions:
    """What may go from a registry.

    :param channel: only what this channel held; all if empty.
    :param keep: sets of images of a cell, instead of what ``matrix.yaml`` says.
    :param older_than: days since they were replaced, instead of what ``matrix.yaml`` says.
    :param pinned: digests that stay, besides those of ``matrix.yaml``.
    :param parts: parts may go too.
    """

    channel: str = ""
    keep: int | None = None
    older_than: float | None = None
    pinned: tuple[str, ...] = ()
    parts: bool = False
    yes: bool = False
    registry: str | None = None
    ledger: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorOptions:
    """From where to where images are copied, and which.

    :param to: ``HOST[/PATH]``, or a directory.
    :param origin: the same; the team's registry if ``None``.
    :param channel: the last one of ``matrix.yaml`` if empty.
    :param build: such as ``20261124.1``: what was pushed up to it, instead of what a channel holds.
    :param key: public key by which the images are signed.
    """

    to: str
    origin: str | None = None
    channel: str = ""
    build: str = ""
    key: str | None = None
    registry: str | None = None
    ledger: str | None = None
