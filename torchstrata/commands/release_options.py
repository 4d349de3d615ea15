"""Options of the verbs about registries, signatures, channels, catalogue: see :mod:`torchstrata.commands.options`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from torchstrata.arguments import option, required, switch, words
from torchstrata.commands.options import CELLS, NAMES, cell_words, flavour_option, registry_option

IMAGE: Final = "HOST[:PORT]/REPOSITORY:TAG or ...@sha256:..."
CHANNEL: Final = "channel of matrix.yaml, such as stable (must be given)"
YES: Final = "do it; without, only what would move is shown"


def _identity() -> Any:
    return option("for keyless signatures: who has signed (default: in GitHub Actions, a workflow of this repository)", "REGEX")


def _issuer() -> Any:
    return option("for keyless signatures: who has vouched for that (default: GitHub Actions)", "URL")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyOptions:
    """Make a pair of keys to sign with, and say what to put where; its password is COSIGN_PASSWORD, or asked for."""

    to: Path = option("path of the pair, without .key and .pub (default: cosign)", "PATH", Path("cosign"))


@dataclass(frozen=True, kw_only=True, slots=True)
class AttestOptions:
    """Attach the result of its tests to an image in a registry, signed."""

    image: str = required(IMAGE, "IMAGE")
    key: str | None = option("private key (default: COSIGN_KEY; in GitHub Actions none is needed)", "FILE")


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReleaseOptions:
    """Check all that is signed about an image in a registry, and say what each part proves."""

    image: str = required(IMAGE, "IMAGE")
    key: str | None = option("public key whose signatures count (default: COSIGN_PUBLIC_KEY)", "FILE")
    identity: str | None = _identity()
    issuer: str | None = _issuer()


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinOptions:
    """Join what was pushed of a cell for each of its platforms: one index for each tag; refused unless all platforms are there.

    :param build: the last push that counts; what was pushed last if empty.
    """

    cells: tuple[str, ...] = required("cell ids or globs, such as 2.15-cu132", "CELL")
    build: str = option("join what was pushed up to this build, such as 20261124.1 (default: what was pushed last)", "BUILD", "")
    names: bool = switch(NAMES)
    registry: str | None = registry_option()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasePlace:
    """Where the verbs of a release look."""

    registry: str | None = registry_option()
    ledger: str | None = option("branch of the ledger (default: origin#ledger)", "REMOTE#BRANCH")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteOptions(ReleasePlace):
    """Take images into a channel, by digest, all of a cell together."""

    cells: tuple[str, ...] = cell_words()
    channel: str = option(CHANNEL, "CHANNEL", "")
    origin: str | None = option("channel that images come from, or the last push that counts (default: what matrix.yaml says)", "CHANNEL|BUILD", name="from")
    no_soak: str = option("why not to wait for the soak time, or to take what was rolled back before (default: wait)", "REASON", "")
    yes: bool = switch(YES)


@dataclass(frozen=True, kw_only=True, slots=True)
class RollbackOptions(ReleasePlace):
    """Let a channel go back to images that it held before."""

    cells: tuple[str, ...] = words(CELLS.replace("default: all", "must be given"), "CELL")
    channel: str = option(CHANNEL, "CHANNEL", "")
    to: int | None = option("ledger entry that says what the channel held then; 0 is none (default: what it held before)", "NUMBER")
    why: str = option("the reason, for the ledger (must be given)", "REASON", "")
    yes: bool = switch(YES)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogOptions(ReleasePlace):
    """Show what moved when, by whom and why."""

    cells: tuple[str, ...] = cell_words()
    channel: str | None = option("only this channel (default: all)", "CHANNEL")
    from_registry: bool = switch("read the registry's signed copy of the ledger instead of the branch")


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairOptions(ReleasePlace):
    """Move every tag to what the ledger says."""

    entries: int | None = option("have the branch signed as it is, if it has so many entries: you know that it is right (default: do not)", "NUMBER")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffOptions:
    """Show what differs between two images: torch, CUDA, packages, sizes, fixes, bytes to pull."""

    old: str = required("a tag or digest of the team's images, or a full reference", "OLD")
    new: str = required("another one", "NEW")
    markdown: bool = switch("print Markdown instead of tables")
    registry: str | None = registry_option()


Step = Literal["all", "locks", "cells", "push", "verify", "publish", "promote"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NightlyOptions(ReleasePlace):
    """Ask mirrors, index and registries what is new; build, verify, push and promote what follows, and nothing else."""

    cells: tuple[str, ...] = cell_words()
    plan: bool = switch("only show what would be done; needs neither a registry nor keys")
    json: bool = switch("only show what would be done, as JSON")
    step: Step = option("do one step only; cells is push, verify and publish (default: all)", default="all")
    commit: bool = switch("commit the OS locks that move")
    send: bool = switch("push that commit to the branch that it is on")
    flavour: tuple[str, ...] = flavour_option("what the step verify verifies")


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchdogOptions(ReleasePlace):
    """Fail if a channel is too old, lacks an image, or points to one that is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneOptions(ReleasePlace):
    """Delete images that no channel keeps any more, with all that belongs to them.

    :param channel: only what this channel held; all if empty.
    """

    channel: str = option("only what this channel held (default: every channel)", "CHANNEL", "")
    keep: int | None = option("sets of images of a cell that stay (default: keep: of the channel in matrix.yaml)", "SETS")
    older_than: float | None = option("time since they were replaced, before others go (default: keep_for: of the channel)", "DAYS")
    pinned: tuple[str, ...] = option("images that stay, with commas between them (default: pinned: in matrix.yaml, which always stay)", "DIGEST", ())
    parts: bool = switch("parts may go too; not while somebody pushes")
    yes: bool = switch("do it; without, only what would go is shown")


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorOptions(ReleasePlace):
    """Copy images with signatures, SBOMs and all else that belongs to them to another registry or to a directory, or back."""

    images: str = required("cell ids or globs, with commas between them; or a tag; or a digest", "CELLS|TAG|DIGEST")
    to: str = required("another registry, or a directory (must be given)", "HOST[/PATH]|DIRECTORY", positional=False)
    origin: str | None = option("where to copy from (default: the team's registry)", "HOST[/PATH]|DIRECTORY", name="from")
    channel: str = option("channel that holds the images (default: the last one of matrix.yaml)", "CHANNEL", "")
    build: str = option("copy what was pushed up to this build, such as 20261124.1, whatever channels hold (default: what the channel holds)", "BUILD", "")
    key: str | None = option("public key of who has signed the images, which goes into the directory (default: COSIGN_PUBLIC_KEY)", "FILE")


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueOptions:
    """Write a static site about the images of a registry or of the engine: a picker, the matrix, a page for each image, a feed."""

    output: Path = option("directory to write, new or a catalogue (default: catalogue)", "DIRECTORY", Path("catalogue"))
    engine: bool = switch("show the images of the local engine instead of the registry's")
    address: str = option("where the site will be, for the links of its feed (default: relative ones)", "URL", "")
    key: str | None = option("public key whose signatures count (default: COSIGN_PUBLIC_KEY; without any, nothing is checked, and every page says so)", "FILE")
    identity: str | None = _identity()
    issuer: str | None = _issuer()
    registry: str | None = registry_option()
