"""The signed copy of the ledger in the registry: an artifact under the tag ``ledger``, beside the images.

Any client of registries reads it (``oras pull HOST/REPOSITORY:ledger`` writes ``ledger.jsonl``), and what tags must point to
follows from it alone.
"""

from __future__ import annotations

from typing import Final

from torchstrata.content.compose import MANIFEST, canonical, sha256
from torchstrata.distribution.registry import EMPTY, EMPTY_TYPE, Attachment, Registry
from torchstrata.distribution.upload import Source
from torchstrata.errors import AbsentError, LedgerError
from torchstrata.releases.guard import Guard
from torchstrata.releases.ledger import CHANGED, FILE, Ledger

ARTIFACT: Final = "application/vnd.torchstrata.ledger.v1"
LINES: Final = "application/jsonl"
TAG: Final = "ledger"


def push(registry: Registry, repository: str, ledger: Ledger, guard: Guard) -> str:
    """Make ``ledger`` the copy and return its digest; it is signed before the tag moves.

    :raises SigningError: it cannot be signed; the copy is as it was then.
    """
    file = Attachment(content=ledger.content, media_type=LINES, title=FILE)
    for content in (EMPTY, file.content):
        registry.push_blob(repository, Source.of(content))
    body = canonical(_artifact(file))
    digest = registry.put_manifest(repository, sha256(body), body, MANIFEST)
    guard.sign(registry, repository, digest)
    registry.put_manifest(repository, TAG, body, MANIFEST)
    return digest


def pull(registry: Registry, repository: str, guard: Guard) -> Ledger | None:
    """Return the copy, or ``None`` if there is none yet.

    :raises UntrustedError: it is not signed by who it must be.
    :raises LedgerError: it is no ledger, or somebody has changed it.
    """
    try:
        found = registry.manifest(repository, TAG)
    except AbsentError:
        return None
    guard.authentic(registry, repository, found.digest)
    document = found.document()
    layers = document.layers or ()
    if document.artifact_type != ARTIFACT or len(layers) != 1:
        raise LedgerError(f"{registry.host}/{repository}:{TAG} is no ledger", fix=CHANGED)
    return Ledger.parse(registry.content(repository, layers[0].digest))


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


def _artifact(file: Attachment) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": EMPTY_TYPE, "digest": sha256(EMPTY), "size": len(EMPTY)},
        "layers": [file.descriptor],
    }
