"""Verbs for people: ``inv plan``, ``inv lock``, ``inv cache``. Sessions over the matrix are in noxfile.py."""

from __future__ import annotations

from invoke import Context, task

from torchstrata import cli


@task(positional=["cell"], help={"cell": "cell ids or globs, such as 2.8-cu121 or '*-debian13'", "json": "print JSON instead of a table"})
def plan(_: Context, cell: str = "", json: bool = False) -> None:  # noqa: FBT001, FBT002  # flags of the command line
    """Show what a build would reuse and make; needs no engine, writes nothing."""
    cli.plan(cell.split(), as_json=json)


@task(
    positional=["cell"],
    help={
        "cell": "cell ids or globs; all if none are given",
        "check": "only check that the committed locks match matrix.yaml and images/*/requirements.in",
        "os": "lock the OS packages instead of the wheels",
        "exclude-newer": "day after which no file is seen (default: a week ago)",
    },
)
def lock(_: Context, cell: str = "", check: bool = False, os: bool = False, exclude_newer: str = "") -> None:  # noqa: FBT001, FBT002
    """Write locks: exact versions with hashes per torch build, Python and flavour."""
    cli.lock(cell.split(), check=check, system=os, exclude_newer=exclude_newer or None)


@task(
    help={
        "prune": "remove parts, those unused longest first",
        "days": "only what was not used for so many days",
        "max-gb": "only until the store is this small",
    }
)
def cache(_: Context, prune: bool = False, days: float = -1.0, max_gb: float = -1.0) -> None:  # noqa: FBT001, FBT002
    """Show the content store (size, age), or prune it."""
    cli.cache(prune=prune, older_than=days if days >= 0 else None, max_gb=max_gb if max_gb >= 0 else None)
