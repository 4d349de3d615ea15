"""The verbs of ``inv release``: what would move is shown first, and moves only with ``--yes``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table

from torchstrata import progress
from torchstrata.attestations import record, remote, signing
from torchstrata.attestations.documents import Published
from torchstrata.attestations.record import Record
from torchstrata.attestations.signing import Signer, Trust
from torchstrata.commands.release_options import DiffOptions, LogOptions, PromoteOptions, ReleasePlace, RepairOptions, RollbackOptions
from torchstrata.errors import AbsentError, ReleaseError
from torchstrata.image import oci
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT
from torchstrata.registry import platform_indexes
from torchstrata.registry.client import Manifest
from torchstrata.registry.patience import Patience
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Registry
from torchstrata.release import difference, ledger_branch
from torchstrata.release import ledger as ledgers
from torchstrata.release.guard import Cosign
from torchstrata.release.ledger import LedgerEntry
from torchstrata.release.ledger_branch import Branch
from torchstrata.release.ledger_memory import Memory
from torchstrata.release.moves import Releases
from torchstrata.release.proposals import Proposal

SHOWN: Final = 12
"""Digits of a digest that tables show."""

DRY: Final = "nothing has moved: this was a dry run, --yes does it"


@contextlib.contextmanager
def opened(options: ReleasePlace, *, signs: bool, patience: Patience | None = None) -> Iterator[Releases]:
    """Yield the releases in the registry that was asked for; an exception in the block ends what is under way.

    :param signs: the ledger's copy is to be written, so it must be possible to sign it.
    :param patience: with the registry; that of what nobody has to wait for if ``None``.
    :raises RegistryError, SigningError, UntrustedError: no registry, key to sign with, or key to trust is known.
    """
    table = matrix.load()
    where = remote.required(options.registry, table.registry)
    with contextlib.ExitStack() as stack:
        signer = Signer.find() if signs else None
        says_who = signer is None or os.environ.get(signing.PUBLIC_KEY)
        trust = Trust.find() if says_who or signer is None else stack.enter_context(signer.trust())
        yield Releases(
            matrix=table,
            registry=stack.enter_context(Registry(where.host, scheme=where.scheme, patience=patience)),
            repository=where.repository(table.name),
            branch=Branch.parse(options.ledger, ROOT),
            author=ledger_branch.author(ROOT),
            guard=Cosign(trust=trust, signer=signer),
            memory=Memory.of(where.host, where.repository(table.name)),
        )


def promote(options: PromoteOptions) -> None:
    """Show what would move into a channel, and move it if that was asked for.

    :raises ReleaseError, UntrustedError: images of a cell may not move; then nothing moves.
    """
    target = matrix.load().channel(options.channel)
    with opened(options, signs=options.yes) as releases:
        source = releases.origin(target, options.origin)
        proposal = releases.promotion(matrix.select(releases.matrix, *options.cells), target, source, no_soak=options.no_soak)
        _carry_out(releases, proposal, f"{options.channel}, from {source}", yes=options.yes)


def rollback(options: RollbackOptions) -> None:
    """Show what a channel would go back to, and do it if that was asked for.

    :raises ReleaseError, UntrustedError: there is nothing to go back to, it does not hold, or no reason is given.
    """
    if not (options.cells and options.why):
        raise ReleaseError("a rollback needs cells and a reason", fix='inv release.rollback 2.8-cu121 --channel stable --why "..."')
    target = matrix.load().channel(options.channel)
    with opened(options, signs=options.yes) as releases:
        proposal = releases.rollback(matrix.select(releases.matrix, *options.cells), target, options.why, options.to or None)
        _carry_out(releases, proposal, f"{options.channel}, back", yes=options.yes)


def _carry_out(releases: Releases, proposal: Proposal, title: str, *, yes: bool) -> None:
    if proposal.moves:
        progress.say(steps(proposal, title))
    progress.say(*(f"{cell}: already there" for cell in proposal.settled))
    progress.say(*(f"{refusal.cell}: refused: {refusal.why}" for refusal in proposal.refusals))
    if proposal.refusals:
        first = proposal.refusals[0]
        raise first.kind(f"nothing has moved: {first.cell}: {first.why}", fix=first.fix)
    if not proposal.moves:
        progress.say("nothing to move")
    elif not yes:
        progress.say(DRY)
    else:
        ledger = releases.carry_out(proposal)
        progress.say(f"moved; entries {len(proposal.base.ledger.lines) + 1} to {len(ledger.lines)} of the ledger")


def steps(proposal: Proposal, title: str) -> Table:
    """Return the plan for people: every tag that moves, and what it points to before and after."""
    view = progress.table("cell", "image", "tag", "from", "to", title=title, title_justify="left")
    for move, tag, old, new in proposal.steps():
        view.add_row(move.cell, move.tags[tag], tag, short(old), short(new))
    return view


def short(digest: str | None) -> str:
    """Return as much of a digest as tells it from others."""
    return digest.removeprefix("sha256:")[:SHOWN] if digest else "-"


def log(options: LogOptions) -> None:
    """Print the ledger's entries about the cells that match, oldest first."""
    with _reading(options) as (table, entries):
        cells = {cell.id for cell in matrix.select(table, *options.cells)} if options.cells else None
        chosen = [entry for entry in entries if options.channel in {None, entry.channel} and (cells is None or entry.cell in {ledgers.ALL, *cells})]
        progress.say(listing(chosen))


def listing(entries: Sequence[LedgerEntry]) -> Table:
    """Return entries for people."""
    view = progress.table("#", "time", "action", "channel", "cell", "images", "tags", "who", "why")
    for entry in entries:
        images = " ".join(f"{name}={short(digest)}" for name, digest in entry.images.items())
        view.add_row(str(entry.sequence), entry.time, entry.action, entry.channel, entry.cell, images, str(len(entry.tags)), entry.run or entry.who, entry.why)
    return view


@contextlib.contextmanager
def _reading(options: LogOptions) -> Iterator[tuple[matrix.Matrix, tuple[LedgerEntry, ...]]]:
    """Yield the matrix and the entries; the branch alone needs neither a registry nor keys."""
    if options.from_registry:
        with opened(options, signs=False, patience=Patience.attended()) as releases:
            yield releases.matrix, releases.copied().entries
    else:
        yield matrix.load(), Branch.parse(options.ledger, ROOT).read().ledger.entries


def repair(options: RepairOptions) -> None:
    """Move every tag to what the ledger says, and say which were elsewhere."""
    with opened(options, signs=True) as releases:
        ledger, astray = releases.repair(options.entries)
        progress.say(*(f"{tag}: moved to {short(ledger.state.tags[tag])}" for tag in astray))
        progress.say(f"{len(astray)} of {len(ledger.state.tags)} tags were not where the ledger says; the registry's copy has {len(ledger.lines)} entries")


def diff(options: DiffOptions) -> None:
    """Print what differs between two images: tags or digests of the team's repository, or full references.

    Of indexes each platform is compared with itself, and one that only one of them has is named.

    :raises AbsentError: there is no such image, or it has no record.
    """
    differences, others = difference.of_platforms(*(_by_platform(name, options) for name in (options.old, options.new)))
    only = difference.platform_lines(others)
    if options.markdown:
        sys.stdout.write("\n".join([*map(difference.markdown, differences), *(f"- {line}\n" for line in only)]))
        return
    for platform_difference in differences:
        if len(differences) > 1 or only:
            progress.say(f"{platform_difference.new.platform}:")
        progress.say(*difference.tables(platform_difference), difference.summary(platform_difference))
    progress.say(*only)


def _by_platform(name: str, options: DiffOptions) -> dict[str, Record]:
    """Return the record of an image, or of each image of an index, by platform."""
    image, scheme = _named(name, options)
    with Registry(image.host, scheme=scheme, patience=Patience.attended()) as registry:
        manifest = registry.manifest(image.repository, image.name)
        several = manifest.media_type == oci.INDEX
        children = platform_indexes.images(registry, image.repository, manifest, str(image)).values() if several else (manifest,)
        records = [_record(registry, image, child) for child in children]
    return {image_record.platform: image_record for image_record in records}


def _record(registry: Registry, image: Reference, manifest: Manifest) -> Record:
    """Return the record that is attached to an image; ``inv verify-release`` tells whether it is signed."""
    attached = registry.referrers(image.repository, manifest.digest, record.MEDIA_TYPE)
    if not attached:
        raise AbsentError(f"{image} has no record", fix="push it with a key to sign with, so that its record is attached: docs/registry.md")
    published = Published(registry=registry, repository=image.repository, name=str(image), manifest=manifest.body)
    return record.decode(published.content(attached[-1]))


def _named(name: str, options: DiffOptions) -> tuple[Reference, str | None]:
    """Return the image that a word means, and how its registry is spoken to."""
    if "/" in name:
        return Reference.parse(name), None
    table = matrix.load()
    where = remote.required(options.registry, table.registry)
    repository = where.repository(table.name)
    return Reference.parse(f"{where.host}/{repository}{'@' if ':' in name else ':'}{name}"), where.scheme
