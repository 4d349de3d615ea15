"""What can be asked of verbs and sessions: each option is declared once, as a field of the value that the work gets.

:mod:`torchstrata.arguments` makes parsers of these classes, for ``inv`` and for nox. A field without a declaration is none of the command
line's. The first line of a docstring is the sentence in ``inv --list``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from torchstrata.arguments import option, required, switch, words
from torchstrata.store.layer import PLATFORM

CELLS: Final = "cell ids or globs, with spaces or commas between them, such as 2.8-cu121 or '2.8-*' (default: all)"
IMAGE: Final = "HOST[:PORT]/REPOSITORY:TAG or ...@sha256:..."
NAMES: Final = "push also under the names that the images have in an engine, which moves these tags"
LOCKED: Final = "refuse OS packages that are not to be had at their locked version"
UNSEALED: Final = "use parts that nobody whom the build trusts has sealed: whoever may push to the registry then decides what is in the images"
UPGRADE: Final = "take newer wheels, also where locks are right; without, only locks that are missing or stale are written"
CHANNEL: Final = "channel of matrix.yaml, such as stable (must be given)"
WRITE: Final = "do it; without, only what would change is shown"
YES: Final = "do it; without, only what would move is shown"


def _cells() -> Any:
    return words(CELLS, "CELL")


def _platform() -> Any:
    return option("platform of the images, such as linux/arm64 (default: linux/amd64)", "OS/ARCHITECTURE", PLATFORM)


def _registry() -> Any:
    return option("registry of the team (default: TORCHSTRATA_REGISTRY, then registry: in matrix.yaml, if any)", "HOST[/PATH]")


def _ledger() -> Any:
    return option("branch of the ledger (default: origin#ledger)", "REMOTE#BRANCH")


def _flavours(text: str) -> Any:
    return option(f"{text}; with commas between them, or given more than once (default: all)", "FLAVOUR", ())


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelLockOptions:
    """Lock the wheels of cells."""

    cells: tuple[str, ...] = _cells()
    upgrade: bool = switch(UPGRADE)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """Show what a build would reuse and make; needs no engine, writes nothing."""

    cells: tuple[str, ...] = _cells()
    platform: str = _platform()
    json: bool = switch("print JSON instead of a table")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """Build the images of a cell, and load them into the engine, write them to a directory, or push them.

    :param flavour: flavours to build, with their parents; all if empty.
    :param level: of the codec; its default if ``None``.
    :param load: load them into the engine.
    """

    flavour: tuple[str, ...] = _flavours("build only this flavour and its parents")
    platform: str = _platform()
    locked: bool = switch(LOCKED)
    to: Path | None = option("write an OCI image layout there (default: load the images into an engine)", "DIRECTORY")
    codec: Literal["zstd", "gzip"] = option("compression of new layers (default: zstd)", default="zstd")
    level: int | None = option("level of the compression (default: 3 for zstd, 6 for gzip)", "NUMBER")
    registry: str | None = _registry()
    push: bool = switch("push the images to the registry afterwards")
    load: bool = True
    names: bool = switch(NAMES)
    trust_unsealed_parts: bool = switch(UNSEALED)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushOptions:
    """Push the images of a cell, without an engine; what neither the content store nor the registry has is built."""

    cells: tuple[str, ...] = required("cell ids or globs, such as 2.8-cu121", "CELL")
    flavour: tuple[str, ...] = _flavours("push only this flavour and its parents")
    platform: str = _platform()
    locked: bool = switch(LOCKED)
    gzip: bool = switch("compress new layers with gzip (default: zstd)")
    level: int | None = option("level of the compression (default: 3 for zstd, 6 for gzip)", "NUMBER")
    names: bool = switch(NAMES)
    registry: str | None = _registry()
    trust_unsealed_parts: bool = switch(UNSEALED)


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinOptions:
    """Join what was pushed of a cell for each of its platforms: one index for each tag; refused unless all platforms are there.

    :param build: the last push that counts; what was pushed last if empty.
    """

    cells: tuple[str, ...] = required("cell ids or globs, such as 2.15-cu132", "CELL")
    build: str = option("join what was pushed up to this build, such as 20261124.1 (default: what was pushed last)", "BUILD", "")
    names: bool = switch(NAMES)
    registry: str | None = _registry()


@dataclass(frozen=True, kw_only=True, slots=True)
class LockOptions:
    """Write the locks that are missing or stale: exact versions with hashes per torch build, Python and flavour."""

    cells: tuple[str, ...] = words(f"{CELLS}; with --os also names of OSes, such as ubuntu24.04", "CELL")
    check: bool = switch("only check that the committed locks match matrix.yaml, images/*/requirements.in and pyproject.toml", group="what")
    os: bool = switch("lock the OS packages instead of the wheels", group="what")
    toolchain: bool = switch("lock the CUDA 12 compiler instead of the wheels", group="what")
    tool: bool = switch("lock what torchstrata itself needs instead of the wheels", group="what")
    platform: str | None = option("only for this platform (default: for all on which a row is offered; with --os: linux/amd64)", "OS/ARCHITECTURE")
    upgrade: bool = switch(UPGRADE)
    exclude_newer: str | None = option("upgrade to what there was on a day (default: a week ago)", "YYYY-MM-DD")

    def contradiction(self) -> str:
        """Return which options were given that what is locked has no use for."""
        chosen = next((name for name in ("check", "os", "toolchain", "tool") if getattr(self, name)), "")
        dated, alone = ("upgrade", "exclude_newer"), ("upgrade", "cells", "platform")
        useless = {"check": (*dated, "platform"), "os": dated, "toolchain": alone, "tool": alone}
        given = [name for name in useless.get(chosen, ()) if getattr(self, name)]
        names = {"cells": "cells"} | {name: f"--{name.replace('_', '-')}" for name in ("upgrade", "exclude_newer", "platform")}
        return f"--{chosen} takes no {' and no '.join(names[name] for name in given)}" if given else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddTorchOptions:
    """Add a torch: read what indexes publish of it, show the change to facts, matrix.yaml and README, and write it."""

    torch: str = required("minor version, such as 2.9", "TORCH")
    cuda: str | None = option("build, such as cu126 (default: the one that the default index carries)", "CUDA")
    os: tuple[str, ...] = option("OSes, the default one first, with commas between them (default: all verified ones that fit)", "OS", ())
    architectures: str | None = option("compute capabilities of the wheel, such as '7.5 8.0' (default: read from it)", "LIST")
    source: str | None = option("where these architectures stand (default: measured)", "TEXT")
    released: str | None = option("day of the release (default: that of its first upload)", "YYYY-MM-DD")
    yes: bool = switch(WRITE)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueOptions:
    """Write a static site about the images of a registry or of the engine: a picker, the matrix, a page for each image, a feed."""

    output: Path = option("directory to write, new or a catalogue (default: catalogue)", "DIRECTORY", Path("catalogue"))
    engine: bool = switch("show the images of the local engine instead of the registry's")
    address: str = option("where the site will be, for the links of its feed (default: relative ones)", "URL", "")
    key: str | None = option("public key whose signatures count (default: COSIGN_PUBLIC_KEY; without any, nothing is checked, and every page says so)", "FILE")
    identity: str | None = option("for keyless signatures: who has signed (default: in GitHub Actions, a workflow of this repository)", "REGEX")
    issuer: str | None = option("for keyless signatures: who has vouched for that (default: GitHub Actions)", "URL")
    registry: str | None = _registry()


@dataclass(frozen=True, kw_only=True, slots=True)
class DropTorchOptions:
    """Take a torch out again: its rows, their locks, its lines in README, and the facts that add-torch brought."""

    torch: str = required("minor version, such as 2.9", "TORCH")
    yes: bool = switch(WRITE)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFlavourOptions:
    """Make a flavour in a folder of its own, which locks, builds and passes as it is: images/NAME."""

    name: str = required("lower-case letters, digits and hyphens", "NAME")
    parent: str = required("the flavour that it contains (must be given)", "FLAVOUR", positional=False, name="from")


@dataclass(frozen=True, kw_only=True, slots=True)
class TryOsOptions:
    """Lock, build and verify a cell of each OS that nobody has verified, and write `verified: true` into matrix.yaml."""

    cells: tuple[str, ...] = words("names of OSes, or cell ids or globs (default: all)", "OS")
    only_lock: bool = switch("only lock them, where no image fits on the disk")


@dataclass(frozen=True, kw_only=True, slots=True)
class SizesOptions:
    """Show what images in the engine weigh, compressed, and their budgets."""

    cells: tuple[str, ...] = _cells()
    platform: str = _platform()
    write: bool = switch("record the layers' sizes, and make the images' sizes the budgets of their flavours")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOptions:
    """Show the content store (size, age), or prune it."""

    prune: bool = switch("remove parts, those unused longest first")
    days: float | None = option("remove only what was not used for so many days (default: everything)", "DAYS")
    max_gb: float | None = option("remove only until the store is this small (default: everything)", "GB")


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """Look at this machine, or at one that is described, and say which cells run on it, why others do not, and which to take."""

    cells: tuple[str, ...] = _cells()
    driver: str | None = option("judge a machine with this NVIDIA driver, such as 530.30 (default: look at this one)", "VERSION")
    gpu: tuple[str, ...] = option("judge a machine with these GPUs, such as sm_90 or 9.0, with commas between them (default: look at this one)", "GPU", ())
    flavour: str | None = option("flavour of the image that is named (default: the last of matrix.yaml)", "FLAVOUR")
    platform: str | None = option("platform of the machine, such as linux/arm64 (default: this one's; linux/amd64 if one is described)", "OS/ARCHITECTURE")
    json: bool = switch("print JSON instead of tables")


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftOptions:
    """Show what differs between a container and its image: packages, files, torch; or write the files that make it an image."""

    container: str = required("name or ID of a container, running or not", "CONTAINER")
    against: str | None = option("compare with this image of the engine (default: the one that the container was made of)", "IMAGE")
    freeze: Path | None = option("write requirements.txt, Dockerfile and what else they need into a new directory (default: do not)", "DIRECTORY")
    json: bool = switch("print JSON")


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
    identity: str | None = option("for keyless signatures: who has signed (default: in GitHub Actions, a workflow of this repository)", "REGEX")
    issuer: str | None = option("for keyless signatures: who has vouched for that (default: GitHub Actions)", "URL")


class ReleasePlace(Protocol):
    """Where the verbs of a release look: what the options of all of them have."""

    @property
    def registry(self) -> str | None:
        """``HOST[/PATH]``."""

    @property
    def ledger(self) -> str | None:
        """``REMOTE#branch``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteOptions:
    """Take images into a channel, by digest, all of a cell together."""

    cells: tuple[str, ...] = _cells()
    channel: str = option(CHANNEL, "CHANNEL", "")
    origin: str | None = option("channel that images come from, or the last push that counts (default: what matrix.yaml says)", "CHANNEL|BUILD", name="from")
    no_soak: str = option("why not to wait for the soak time, or to take what was rolled back before (default: wait)", "REASON", "")
    yes: bool = switch(YES)
    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class RollbackOptions:
    """Let a channel go back to images that it held before."""

    cells: tuple[str, ...] = words(CELLS.replace("default: all", "must be given"), "CELL")
    channel: str = option(CHANNEL, "CHANNEL", "")
    to: int | None = option("ledger entry that says what the channel held then; 0 is none (default: what it held before)", "NUMBER")
    why: str = option("the reason, for the ledger (must be given)", "REASON", "")
    yes: bool = switch(YES)
    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class LogOptions:
    """Show what moved when, by whom and why."""

    cells: tuple[str, ...] = _cells()
    channel: str | None = option("only this channel (default: all)", "CHANNEL")
    from_registry: bool = switch("read the registry's signed copy of the ledger instead of the branch")
    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairOptions:
    """Move every tag to what the ledger says."""

    entries: int | None = option("have the branch signed as it is, if it has so many entries: you know that it is right (default: do not)", "NUMBER")
    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffOptions:
    """Show what differs between two images: torch, CUDA, packages, sizes, fixes, bytes to pull."""

    old: str = required("a tag or digest of the team's images, or a full reference", "OLD")
    new: str = required("another one", "NEW")
    markdown: bool = switch("print Markdown instead of tables")
    registry: str | None = _registry()


Step = Literal["all", "locks", "cells", "push", "verify", "publish", "promote"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NightlyOptions:
    """Ask mirrors, index and registries what is new; build, verify, push and promote what follows, and nothing else."""

    cells: tuple[str, ...] = _cells()
    plan: bool = switch("only show what would be done; needs neither a registry nor keys")
    json: bool = switch("only show what would be done, as JSON")
    step: Step = option("do one step only; cells is push, verify and publish (default: all)", default="all")
    commit: bool = switch("commit the OS locks that move")
    send: bool = switch("push that commit to the branch that it is on")
    flavour: tuple[str, ...] = _flavours("what the step verify verifies")
    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchdogOptions:
    """Fail if a channel is too old, lacks an image, or points to one that is gone."""

    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneOptions:
    """Delete images that no channel keeps any more, with all that belongs to them.

    :param channel: only what this channel held; all if empty.
    """

    channel: str = option("only what this channel held (default: every channel)", "CHANNEL", "")
    keep: int | None = option("sets of images of a cell that stay (default: keep: of the channel in matrix.yaml)", "SETS")
    older_than: float | None = option("time since they were replaced, before others go (default: keep_for: of the channel)", "DAYS")
    pinned: tuple[str, ...] = option("images that stay, with commas between them (default: pinned: in matrix.yaml, which always stay)", "DIGEST", ())
    parts: bool = switch("parts may go too; not while somebody pushes")
    yes: bool = switch("do it; without, only what would go is shown")
    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorOptions:
    """Copy images with signatures, SBOMs and all else that belongs to them to another registry or to a directory, or back."""

    images: str = required("cell ids or globs, with commas between them; or a tag; or a digest", "CELLS|TAG|DIGEST")
    to: str = required("another registry, or a directory (must be given)", "HOST[/PATH]|DIRECTORY", positional=False)
    origin: str | None = option("where to copy from (default: the team's registry)", "HOST[/PATH]|DIRECTORY", name="from")
    channel: str = option("channel that holds the images (default: the last one of matrix.yaml)", "CHANNEL", "")
    build: str = option("copy what was pushed up to this build, such as 20261124.1, whatever channels hold (default: what the channel holds)", "BUILD", "")
    key: str | None = option("public key of who has signed the images, which goes into the directory (default: COSIGN_PUBLIC_KEY)", "FILE")
    registry: str | None = _registry()
    ledger: str | None = _ledger()


@dataclass(frozen=True, kw_only=True, slots=True)
class TierOptions:
    """Run a tier of tests: see CONTRIBUTING.md."""

    cells: tuple[str, ...] = option("only these cells, with commas between them, for a small disk (default: all)", "CELL", ())
    again: bool = switch("test images though they have passed the same tests before")
    record: bool = switch("keep the CPU times in bench/results/tests.json")


CONTAINER: Final = "name of the container (default: the only one)"


def _launcher(what: str) -> Any:
    return switch(f"start nothing: write {what}", group="launcher")


@dataclass(frozen=True, kw_only=True, slots=True)
class UpOptions:
    """Start a container, or go on with the one that is there, and say how to reach it; or write files that start it without this tool."""

    cells: tuple[str, ...] = words("cell, such as 2.8-cu121, or tag, such as v2.8 (default: the newest for a machine with, or without, a GPU)", "CELL|TAG")
    flavour: str | None = option("of a cell (default: the all-in-one)", "FLAVOUR")
    platform: str | None = option("platform of the image, such as linux/arm64 (default: this machine's)", "OS/ARCHITECTURE")
    workspace: Path = option("directory that is /workspace in the container, made if it is not there (default: workspace)", "DIRECTORY", Path("workspace"))
    gpus: str | None = option("all, none, a number, or device=0,2 (default: all that are here)", "GPUS")
    name: str | None = option("of the container (default: torchstrata-TAG)", "NAME")
    port: tuple[str, ...] = option(
        "port of this machine for a service, such as jupyter=8890 (default: the one of the service, 2222 for SSH, or the next free one)", "SERVICE=PORT", ()
    )
    listen: str = option("address of this machine that the ports are at; 0.0.0.0 is all (default: 127.0.0.1)", "ADDRESS", "127.0.0.1")
    shm: float = option("size of /dev/shm (default: 8)", "GB", 8.0)
    ssh_key: Path | None = option("public key that SSH lets in (default: those in ~/.ssh)", "FILE")
    ssh_entry: bool = switch("let `ssh NAME` lead to the container: an entry in a file that ~/.ssh/config includes")
    replace: bool = switch("make the container anew; workspace and home stay, what was installed in it goes")
    pull: bool = switch("ask the registry for the image though one of that name is here")
    yes: bool = switch("build an image that is nowhere, without asking")
    wait: float = option("time until its services must answer (default: 300)", "SECONDS", 300.0)
    registry: str | None = _registry()
    print: bool = _launcher("a line of docker run")
    compose: bool = _launcher("compose.yaml")
    devcontainer: bool = _launcher("devcontainer.json")
    k8s: bool = _launcher("a pod of Kubernetes")
    jupyterhub: bool = _launcher("a profile of JupyterHub with DockerSpawner")
    slurm: bool = _launcher("a batch job of Slurm, for Apptainer or enroot")
    output: Path | None = option("write the files there (default: to standard output)", "DIRECTORY")


@dataclass(frozen=True, kw_only=True, slots=True)
class SshOptions:
    """Log in to a container by SSH, or run a command there; nobody is asked whether its host key is right."""

    words: tuple[str, ...] = words(f"{CONTAINER}, then a command", "NAME")


@dataclass(frozen=True, kw_only=True, slots=True)
class JupyterOptions:
    """Print the address of a container's JupyterLab, with its token."""

    words: tuple[str, ...] = words(CONTAINER, "NAME")
    open: bool = switch("open it in a browser, too")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogsOptions:
    """Print what a container has said."""

    words: tuple[str, ...] = words(CONTAINER, "NAME")
    follow: bool = switch("go on until it ends, or Ctrl-C")


@dataclass(frozen=True, kw_only=True, slots=True)
class PsOptions:
    """Show the containers that were started here, running or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownOptions:
    """Stop containers; what is in them stays, and `inv up` goes on with it."""

    words: tuple[str, ...] = words("names of containers (default: the only one)", "NAME")
    remove: bool = switch("remove them, too: what was installed in them goes, workspace and home stay")
