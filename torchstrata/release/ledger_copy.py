"""The signed copy of the ledger in the registry: an artifact under the tag ``ledger``, beside the images.

Any client of registries reads it (``oras pull HOST/REPOSITORY:ledger`` writes ``ledger.jsonl``), and what tags must
point to follows from it alone.

The manifest follows from the lines alone, too. A writer of the branch first pushes it, signed, under its digest
without a tag; a reader of the branch computes that digest. So only lines that a trusted key has signed count.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from torchstrata import decoding
from torchstrata.errors import AbsentError, LedgerError, UntrustedError
from torchstrata.image.compose import MANIFEST, sha256
from torchstrata.registry.registry import EMPTY, Attachment, Registry, artifact
from torchstrata.registry.upload import Source
from torchstrata.release.guard import Guard
from torchstrata.release.ledger import CHANGED, FILE, LIMIT, Ledger
from torchstrata.store.digest import Digest
from torchstrata.text import printable

ARTIFACT: Final = "application/vnd.torchstrata.ledger.v1"
LINES: Final = "application/jsonl"
TAG: Final = "ledger"

ENTRIES: Final = "vnd.torchstrata.ledger.entries"
"""Annotation with the number of lines: it only grows, and is signed with the rest."""


class _LinesDescriptor(msgspec.Struct, frozen=True):
    """The descriptor of the lines."""

    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0, le=LIMIT)]


class _Copy(msgspec.Struct, frozen=True, rename="camel"):
    """As much of the copy's manifest as is read."""

    artifact_type: str
    layers: Annotated[tuple[_LinesDescriptor, ...], msgspec.Meta(min_length=1, max_length=1)]
    annotations: dict[str, str] = {}


def prepare(registry: Registry, repository: str, ledger: Ledger, guard: Guard) -> None:
    """Put a signed copy where only its digest finds it, before the branch says what it says.

    :raises SigningError: it cannot be signed.
    """
    for content in (EMPTY, ledger.content):
        registry.push_blob(repository, Source.of(content))
    manifest = body(ledger)
    guard.sign(registry, repository, registry.put_manifest(repository, sha256(manifest), manifest, MANIFEST))


def push(registry: Registry, repository: str, ledger: Ledger, guard: Guard) -> None:
    """Make ``ledger`` the copy; it is signed before the tag moves.

    :raises SigningError: it cannot be signed; the copy is as it was then.
    """
    prepare(registry, repository, ledger, guard)
    registry.put_manifest(repository, TAG, body(ledger), MANIFEST)


def pull(registry: Registry, repository: str, guard: Guard) -> Ledger | None:
    """Return the copy, or ``None`` if there is none yet.

    :raises UntrustedError: it is not signed by who it must be.
    :raises LedgerError: it is no ledger, or somebody has changed it.
    """
    try:
        manifest = registry.manifest(repository, TAG)
    except AbsentError:
        return None
    guard.authentic(registry, repository, manifest.digest)
    return _ledger(registry, repository, read(manifest.body, f"{registry.host}/{repository}:{TAG}"))


def _ledger(registry: Registry, repository: str, copy: _Copy) -> Ledger:
    """Return the lines of a copy, as many as it says."""
    ledger = Ledger.parse(registry.content(repository, copy.layers[0].digest))
    if copy.annotations.get(ENTRIES, str(len(ledger.lines))) != str(len(ledger.lines)):
        raise LedgerError(f"the copy in {registry.host}/{repository} has {len(ledger.lines)} entries, and says another number", fix=CHANGED)
    return ledger


def read(manifest: bytes, name: str) -> _Copy:
    """Return what the manifest of a copy says.

    :param name: of the manifest, for people.
    :raises LedgerError: it is no copy of a ledger.
    """
    try:
        copy = decoding.decode(manifest, _Copy)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LedgerError(f"{name} is no ledger: {printable(str(error))}", fix=CHANGED) from error
    if copy.artifact_type != ARTIFACT:
        raise LedgerError(f"{name} is no ledger", fix=CHANGED)
    return copy


def check(registry: Registry, repository: str, ledger: Ledger, copy: Ledger | None, guard: Guard) -> None:
    """Refuse what the branch says beyond its copy, unless it is signed; and more than a first move that has no copy.

    :raises LedgerError: somebody has rewritten or added to the branch, or deleted its copy.
    """
    compare(ledger, copy)
    if ledger == (copy or Ledger()):
        return
    if copy is None and not ledger.is_first_move:
        raise LedgerError(
            f"the branch has {len(ledger.lines)} entries, and {registry.host}/{repository}:{TAG}, the signed copy, is gone",
            fix=f"find out who has deleted it; if the branch is right, say how long it is: inv release.repair --entries {len(ledger.lines)}",
        )
    try:
        guard.authentic(registry, repository, sha256(body(ledger)))  # what nobody has prepared is not there
    except UntrustedError as error:
        begin = len(copy.lines) + 1 if copy else 1
        raise LedgerError(
            f"entries {begin} to {len(ledger.lines)} of the branch are signed by nobody who is trusted",
            fix="find out who has written them; if they are right, have all signed: inv release.repair --entries "
            f"{len(ledger.lines)}; docs/releasing.md, If the ledger was tampered with",
        ) from error


def compare(ledger: Ledger, copy: Ledger | None) -> None:
    """Refuse a ledger that does not begin with the lines that were copied.

    :raises LedgerError: somebody has rewritten history.
    """
    if copy and not ledger.continues(copy):
        first = next((number for number, (ours, theirs) in enumerate(zip(ledger.lines, copy.lines, strict=False), 1) if ours != theirs), len(ledger.lines) + 1)
        raise LedgerError(
            f"the branch's ledger is not what the registry's signed copy says: they part at entry {first}",
            fix="find out who has rewritten the branch, and push what it was: docs/releasing.md, If the ledger was tampered with",
        )


def body(ledger: Ledger) -> bytes:
    """Return the manifest of the copy of a ledger."""
    file = Attachment(content=ledger.content, media_type=LINES, title=FILE)
    return artifact(ARTIFACT, [file.descriptor], annotations={ENTRIES: str(len(ledger.lines))})
