"""Verbs for people: ``inv plan``, ``inv push``, ``inv lock``, ``inv cache``. Sessions over the matrix are in noxfile.py."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from invoke import Collection, Context, Exit, Task, task

from torchstrata.commands import cli
from torchstrata.commands.options import BuildOptions, MirrorOptions, NightlyOptions, PruneOptions, ReleaseOptions

cli.answer_interrupts()

N = TypeVar("N", int, float)

CELLS: Final = "cell ids or globs, with commas between them, such as 2.8-cu121 or '2.8-*,*-debian12' (default: all)"
IMAGE: Final = "HOST[:PORT]/REPOSITORY:TAG or ...@sha256:..."

REGISTRY: Final = "HOST[/PATH] of the registry (default: TORCHSTRATA_REGISTRY)"
LEDGER: Final = "REMOTE#branch of the ledger (default: origin#ledger)"
CHANNEL: Final = "channel of matrix.yaml, such as stable"
YES: Final = "do it; without, only what would move is shown"


def _cells_of(name: str, *switches: str) -> list[str]:
    """Return ``["cells"]`` if a word follows the task's name, or its switches: Invoke's positional arguments cannot be left out, ours can."""
    words = sys.argv[sys.argv.index(name) + 1 :] if name in sys.argv else []
    rest = list(itertools.dropwhile(lambda word: word in switches, words))
    return ["cells"] if rest and not rest[0].startswith("-") else []


def _globs(cells: str | None) -> list[str]:
    return [glob for glob in (cells or "").split(",") if glob]


def _number(option: str, text: str | None, kind: Callable[[str], N]) -> N | None:
    """Return the number that an option got, ``None`` if it was not given. Invoke itself would end with a traceback for a word.

    :raises Exit: it got none, or less than 0.
    """
    if text is None:
        return None
    try:
        number = kind(text)
    except ValueError:
        raise Exit(f"{option} {text}: not a {'whole number' if kind is int else 'number'}", code=2) from None
    if not number >= 0:
        raise Exit(f"{option} {text}: less than 0, or not a number", code=2)
    return number


@task(positional=_cells_of("plan"), help={"cells": CELLS, "json": "print JSON instead of a table"})
def plan(_: Context, cells: str | None = None, json: bool = False) -> None:  # noqa: FBT001, FBT002  # a flag of the command line
    """Show what a build would reuse and make; needs no engine, writes nothing."""
    cli.plan(_globs(cells), as_json=json)


@task(
    positional=["cells"],
    help={
        "cells": "a cell id or glob, such as 2.8-cu121",
        "flavour": "only these flavours and their parents, with commas between them (default: all)",
        "locked": "refuse OS packages that are not to be had at their locked version",
        "gzip": "compress new layers with gzip (default: zstd)",
        "level": "of the compression (default: 3 for zstd, 6 for gzip)",
        "names": "push also under the names that the images have in an engine, which moves these tags",
        "registry": REGISTRY,
        "trust-unsealed-parts": cli.UNSEALED,
    },
)
def push(  # noqa: PLR0913, PLR0917  # flags of the command line
    _: Context,
    cells: str,
    flavour: str | None = None,
    locked: bool = False,  # noqa: FBT001, FBT002
    gzip: bool = False,  # noqa: FBT001, FBT002
    level: str | None = None,
    names: bool = False,  # noqa: FBT001, FBT002
    registry: str | None = None,
    trust_unsealed_parts: bool = False,  # noqa: FBT001, FBT002
) -> None:
    """Push the images of a cell, without an engine; what neither the content store nor the registry has is built."""
    chosen, codec, number = tuple(_globs(flavour)), "gzip" if gzip else "zstd", _number("--level", level, int)
    where = {"registry": registry, "trust_unsealed_parts": trust_unsealed_parts}
    cli.push(cells, BuildOptions(flavour=chosen, locked=locked, to=None, codec=codec, level=number or None, names=names, **where))


@task(
    positional=_cells_of("lock", "--os"),
    help={
        "cells": f"{CELLS}; with --os also names of OSes, such as ubuntu24.04",
        "check": "only check that the committed locks match matrix.yaml, images/*/requirements.in and pyproject.toml",
        "os": "lock the OS packages instead of the wheels",
        "toolchain": "lock the CUDA 12 compiler instead of the wheels",
        "tool": "lock what torchstrata itself needs instead of the wheels",
        "exclude-newer": "day after which no file is seen (default: a week ago)",
    },
)
def lock(  # noqa: PLR0913, PLR0917  # flags of the command line
    _: Context,
    cells: str | None = None,
    check: bool = False,  # noqa: FBT001, FBT002
    os: bool = False,  # noqa: FBT001, FBT002
    toolchain: bool = False,  # noqa: FBT001, FBT002
    tool: bool = False,  # noqa: FBT001, FBT002
    exclude_newer: str | None = None,
) -> None:
    """Write locks: exact versions with hashes per torch build, Python and flavour."""
    kind: cli.LockKind = "check" if check else "os" if os else "toolchain" if toolchain else "tool" if tool else "wheels"
    cli.lock(_globs(cells), kind, exclude_newer)


@task(positional=_cells_of("sizes"), help={"cells": CELLS, "write": "record the layers' sizes, and print what to write into matrix.yaml"})
def sizes(_: Context, cells: str | None = None, write: bool = False) -> None:  # noqa: FBT001, FBT002  # a flag of the command line
    """Show what images in the engine weigh, compressed, and their budgets."""
    cli.sizes(_globs(cells), write=write)


@task(help={"prune": "remove parts, those unused longest first", "days": "only what was not used for so many days", "max-gb": "only until it is this small"})
def cache(_: Context, prune: bool = False, days: str | None = None, max_gb: str | None = None) -> None:  # noqa: FBT001, FBT002
    """Show the content store (size, age), or prune it."""
    cli.cache(prune=prune, older_than=_number("--days", days, float), max_gb=_number("--max-gb", max_gb, float))


@task(help={"to": "path of the pair, without .key and .pub (default: cosign)"})
def key(_: Context, to: str = "cosign") -> None:
    """Make a pair of keys to sign with, and say what to put where; its password is COSIGN_PASSWORD, or asked for."""
    cli.key(to)


@task(positional=["image"], help={"image": IMAGE, "key": "private key (default: COSIGN_KEY; in GitHub Actions none is needed)"})
def attest(_: Context, image: str, key: str | None = None) -> None:
    """Attach the result of its tests to an image in a registry, signed."""
    cli.attest(image, key)


@task(
    positional=["image"],
    help={
        "image": IMAGE,
        "key": "public key whose signatures count (default: COSIGN_PUBLIC_KEY)",
        "identity": "for keyless signatures: regular expression on who has signed (default in GitHub Actions: a workflow of this repository)",
        "issuer": "for keyless signatures: who has vouched for that (default: GitHub Actions)",
    },
)
def verify_release(_: Context, image: str, key: str | None = None, identity: str | None = None, issuer: str | None = None) -> None:
    """Check all that is signed about an image in a registry, and say what each part proves."""
    cli.verify_release(image, key, identity, issuer)


@task(
    positional=_cells_of("release.promote"),
    help={
        "cells": CELLS,
        "channel": CHANNEL,
        "from": "channel that images come from, or a build such as 20261124.1, the last push that counts (default: what matrix.yaml says)",
        "no-soak": "a reason not to wait for the soak time, or to take what was rolled back before",
        "yes": YES,
        "registry": REGISTRY,
        "ledger": LEDGER,
    },
)
def promote(  # noqa: PLR0913, PLR0917  # flags of the command line
    _: Context,
    cells: str | None = None,
    channel: str = "",
    from_: str | None = None,
    no_soak: str = "",
    yes: bool = False,  # noqa: FBT001, FBT002
    registry: str | None = None,
    ledger: str | None = None,
) -> None:
    """Take images into a channel, by digest, all of a cell together."""
    cli.promote(_globs(cells), channel, ReleaseOptions(registry=registry, ledger=ledger, yes=yes), origin=from_, no_soak=no_soak)


@task(
    positional=_cells_of("release.rollback"),
    help={
        "cells": CELLS,
        "channel": CHANNEL,
        "to": "number of a ledger entry: what the channel held then (default: what it held before)",
        "why": "the reason, for the ledger",
        "yes": YES,
        "registry": REGISTRY,
        "ledger": LEDGER,
    },
)
def rollback(  # noqa: PLR0913, PLR0917  # flags of the command line
    _: Context,
    cells: str | None = None,
    channel: str = "",
    to: str | None = None,
    why: str = "",
    yes: bool = False,  # noqa: FBT001, FBT002
    registry: str | None = None,
    ledger: str | None = None,
) -> None:
    """Let a channel go back to images that it held before."""
    number = _number("--to", to, int)
    cli.rollback(_globs(cells), channel, ReleaseOptions(registry=registry, ledger=ledger, yes=yes), to=number or None, why=why)


@task(
    name="log",
    positional=_cells_of("release.log"),
    help={
        "cells": CELLS,
        "channel": "only this channel",
        "from-registry": "read the registry's signed copy of the ledger instead of the branch",
        "registry": REGISTRY,
        "ledger": LEDGER,
    },
)
def release_log(  # flags of the command line
    _: Context,
    cells: str | None = None,
    channel: str | None = None,
    from_registry: bool = False,  # noqa: FBT001, FBT002
    registry: str | None = None,
    ledger: str | None = None,
) -> None:
    """Show what moved when, by whom and why."""
    cli.release_log(_globs(cells), channel, ReleaseOptions(registry=registry, ledger=ledger), from_registry=from_registry)


@task(help={"registry": REGISTRY, "ledger": LEDGER, "entries": "have the branch signed as it is, if it has so many: you know that it is right"})
def repair(_: Context, registry: str | None = None, ledger: str | None = None, entries: str | None = None) -> None:
    """Move every tag to what the ledger says."""
    cli.repair(ReleaseOptions(registry=registry, ledger=ledger, yes=True), _number("--entries", entries, int))


@task(
    name="diff",
    help={"old": "a tag or digest of the team's images, or a full reference", "new": "another one", "markdown": "print Markdown", "registry": REGISTRY},
)
def release_diff(_: Context, old: str, new: str, markdown: bool = False, registry: str | None = None) -> None:  # noqa: FBT001, FBT002
    """Show what differs between two images: torch, CUDA, packages, sizes, fixes, bytes to pull."""
    cli.release_diff(old, new, ReleaseOptions(registry=registry), as_markdown=markdown)


@task(
    positional=_cells_of("nightly"),
    help={
        "cells": CELLS,
        "plan": "only show what would be done; needs neither a registry nor keys",
        "json": "show the plan as JSON",
        "step": "do one step only: locks; cells (as the locks are), or of that push, verify or publish; promote",
        "commit": "commit the OS locks that move",
        "send": "push that commit to the branch that it is on",
        "flavour": "what the step verify verifies, with commas between them (default: all)",
        "registry": REGISTRY,
        "ledger": LEDGER,
    },
)
def nightly(  # noqa: PLR0913, PLR0917  # flags of the command line
    _: Context,
    cells: str | None = None,
    plan: bool = False,  # noqa: FBT001, FBT002
    json: bool = False,  # noqa: FBT001, FBT002
    step: str = "all",
    commit: bool = False,  # noqa: FBT001, FBT002
    send: bool = False,  # noqa: FBT001, FBT002
    flavour: str | None = None,
    registry: str | None = None,
    ledger: str | None = None,
) -> None:
    """Ask mirrors, index and registries what is new; build, verify, push and promote what follows, and nothing else."""
    where, flavours = {"registry": registry, "ledger": ledger}, tuple(_globs(flavour))
    cli.nightly(_globs(cells), NightlyOptions(**where, plan=plan or json, json=json, step=cli.step(step), commit=commit, send=send, flavour=flavours))


@task(
    name="try-os",
    positional=_cells_of("try-os", "--only-lock"),
    help={"cells": "names of OSes, or cell ids or globs (default: all)", "only-lock": "only lock them, where no image fits on the disk"},
)
def try_os(_: Context, cells: str | None = None, only_lock: bool = False) -> None:  # noqa: FBT001, FBT002  # a flag of the command line
    """Lock, build and verify a cell of each OS that nobody has verified, and write `verified: true` into matrix.yaml."""
    cli.try_systems(_globs(cells), only_lock=only_lock)


@task(help={"registry": REGISTRY, "ledger": LEDGER})
def watchdog(_: Context, registry: str | None = None, ledger: str | None = None) -> None:
    """Fail if a channel is too old, lacks an image, or points to one that is gone."""
    cli.watchdog(ReleaseOptions(registry=registry, ledger=ledger))


@task(
    name="prune",
    help={
        "channel": "only what this channel held (default: every channel)",
        "keep": "sets of images of a cell that stay (default: keep: of the channel in matrix.yaml)",
        "older-than": "days since they were replaced, before others go (default: keep_for: of the channel)",
        "pinned": "digests that stay, with commas between them, besides pinned: in matrix.yaml",
        "parts": "parts may go too; not while somebody pushes",
        "yes": "do it; without, only what would go is shown",
        "registry": REGISTRY,
        "ledger": LEDGER,
    },
)
def registry_prune(  # noqa: PLR0913, PLR0917  # flags of the command line
    _: Context,
    channel: str = "",
    keep: str | None = None,
    older_than: str | None = None,
    pinned: str = "",
    parts: bool = False,  # noqa: FBT001, FBT002
    yes: bool = False,  # noqa: FBT001, FBT002
    registry: str | None = None,
    ledger: str | None = None,
) -> None:
    """Delete images that no channel keeps any more, with all that belongs to them."""
    limits = {"keep": _number("--keep", keep, int), "older_than": _number("--older-than", older_than, float)}
    where = {"registry": registry, "ledger": ledger}
    cli.prune(PruneOptions(channel=channel, **limits, pinned=tuple(_globs(pinned)), parts=parts, yes=yes, **where))


@task(
    positional=["cells"],
    help={
        "cells": "cell ids or globs, with commas between them; or a tag; or a digest",
        "to": "HOST[/PATH] of another registry, or a directory",
        "from": "HOST[/PATH] or a directory to copy from (default: the team's registry)",
        "channel": "channel that holds the images (default: the last one of matrix.yaml)",
        "build": "copy what was pushed up to this build, such as 20261124.1, whatever channels hold",
        "key": "public key of who has signed the images, which goes into the directory (default: COSIGN_PUBLIC_KEY)",
        "registry": REGISTRY,
        "ledger": LEDGER,
    },
)
def mirror(  # noqa: PLR0913, PLR0917  # flags of the command line
    _: Context,
    cells: str,
    to: str,
    from_: str | None = None,
    channel: str = "",
    build: str = "",
    key: str | None = None,
    registry: str | None = None,
    ledger: str | None = None,
) -> None:
    """Copy images with signatures, SBOMs and all else that belongs to them to another registry or to a directory, or back."""
    cli.mirror(cells, MirrorOptions(to=to, origin=from_, channel=channel, build=build, key=key, registry=registry, ledger=ledger))


release = Collection("release", promote, rollback, release_log, repair, release_diff)
registry = Collection("registry", registry_prune)
collected = (*release.tasks.values(), *registry.tasks.values())
namespace = Collection(release, registry, *(each for each in tuple(vars().values()) if isinstance(each, Task) and each not in collected))
