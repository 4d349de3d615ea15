"""Signed lists of parts, so that a build may believe the parts that it finds in a registry.

One signature covers all parts of a push: a file that maps identities to the digests of the parts' manifests, which
name every layer and extra. The file and its bundle are attached to each part that it adds, where
:class:`torchstrata.registry.parts.PartRepository` has them looked for. A list is verified once, however many parts
are on it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from torchstrata import decoding
from torchstrata.attestations.signing import BUNDLE, Signer, Trust
from torchstrata.errors import AbsentError, IntegrityError, UntrustedError
from torchstrata.image.compose import canonical
from torchstrata.registry import pool
from torchstrata.registry.client import SMALL
from torchstrata.registry.parts import PartRepository, Shared, Verify
from torchstrata.registry.registry import Attachment, Registry
from torchstrata.store.digest import Digest
from torchstrata.store.layer import PLATFORM
from torchstrata.store.part import Part
from torchstrata.text import printable

SEALS: Final = 50
"""Seals of one part that are looked at: each costs a run of cosign, and whoever may push may attach any number."""

SEAL: Final = "application/vnd.torchstrata.parts.seal.v1"
LIST: Final = "application/vnd.torchstrata.parts.list.v1+json"


class _List(msgspec.Struct, frozen=True, kw_only=True):
    """A list of parts: digests of their manifests by identity."""

    platform: str
    parts: dict[str, Digest]


def listed(digests: Mapping[str, str]) -> bytes:
    """Return the list of parts as it is signed.

    :param digests: of the parts' manifests, by identity.
    """
    return canonical({"schema": 1, "platform": PLATFORM, "parts": dict(digests)})


@dataclass(frozen=True, kw_only=True)
class Checker:
    """Looks for the seals of parts.

    :param repository: where the parts are.
    """

    registry: Registry
    repository: str
    trust: Trust
    _read: dict[tuple[str, ...], Mapping[str, str]] = field(default_factory=dict)

    def unsealed(self, digests: Mapping[str, str]) -> dict[str, str]:
        """Return why parts must not be used, by identity, of those that must not.

        :param digests: of the parts' manifests, by identity.
        """
        sealed: set[tuple[str, str]] = set()
        problems: dict[str, str] = {}
        for identity, digest in digests.items():
            if (identity, digest) in sealed:
                continue
            why = "it is not sealed"
            for files in self._seals(digest):
                try:
                    sealed |= set(self._contents(files).items())
                except (UntrustedError, IntegrityError, AbsentError) as error:
                    why = error.what
                if (identity, digest) in sealed:
                    break
            if (identity, digest) not in sealed:
                problems[identity] = why
        return problems

    def _seals(self, digest: str) -> Iterator[tuple[str, ...]]:
        """Yield the digests of list and bundle of each seal of a part."""
        for referrer in self.registry.referrers(self.repository, digest, SEAL)[-SEALS:]:
            manifest = self.registry.manifest(self.repository, referrer.digest).document()
            yield tuple(layer.digest for layer in manifest.layers or ())

    def _contents(self, files: tuple[str, ...]) -> Mapping[str, str]:
        """Return what a list says, once it is sure who signed it.

        :raises UntrustedError: it is somebody else, or it is no list.
        """
        if files not in self._read:
            if len(files) != 2:  # noqa: PLR2004  # list and bundle
                raise UntrustedError("its seal has not the two files that it must have", fix="push it again with the right key")
            content, bundle = (self.registry.content(self.repository, digest) for digest in files)
            self.trust.check_blob(content, bundle)
            document = decoding.read(content, _List, "its seal", limit=SMALL, error=UntrustedError)
            if document.platform != PLATFORM:
                raise UntrustedError(f"its seal is for {printable(document.platform)}", fix=f"push the parts of {PLATFORM}")
            self._read[files] = document.parts
        return self._read[files]


def verifier(registry: Registry, repository: str, trust: Trust) -> Verify:
    """Return what tells a :class:`PartRepository` which parts may be used: those that the trusted signer has sealed."""
    checker = Checker(registry=registry, repository=repository, trust=trust)

    def verify(digests: Mapping[str, str]) -> None:
        problems = checker.unsealed(digests)
        if problems:
            identity, why = next(iter(problems.items()))
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise UntrustedError(
                f"part {identity[:12]} in {registry.host}/{repository} must not be used: {why}{more}", fix="push the parts again with the right key"
            )

    return verify


def seal(part_repository: PartRepository, parts: Mapping[str, Part], signer: Signer) -> int:
    """Seal those parts in the registry that the signer has not sealed; return how many that were.

    :param parts: by identity, as they were made or verified here.
    :raises UntrustedError: the registry has another part under an identity.
    :raises SigningError: the key cannot be used.
    """
    with signer.trust() as trust:
        held = _held(part_repository, parts)
        digests = {identity: shared.digest for identity, shared in held.items()}
        new = Checker(registry=part_repository.registry, repository=part_repository.repository, trust=trust).unsealed(digests)
    if not new:
        return 0
    for identity in new:
        _check_listings(part_repository, identity, parts[identity], held[identity])
    content = listed({identity: digests[identity] for identity in new})
    files = [
        Attachment(content=content, media_type=LIST, title="parts.json"),
        Attachment(content=signer.sign_blob(content), media_type=BUNDLE, title="parts.json.sigstore.json"),
    ]
    attach = functools.partial(part_repository.registry.attach, part_repository.repository, artifact_type=SEAL, blobs=files)
    first, *others = dict.fromkeys(digests[identity] for identity in new)
    attach(first)  # alone, since it brings the files; registries refuse the same blob from many at once
    pool.answers(attach, others)
    return len(new)


def _held(part_repository: PartRepository, parts: Mapping[str, Part]) -> dict[str, Shared]:
    """Return the parts as the registry has them."""
    held = {}
    for identity, part in parts.items():
        shared = part_repository.shared(identity)
        if shared is None:
            raise AbsentError(f"{part_repository.registry.host}/{part_repository.repository} has no part {identity[:12]}", fix="push it first")
        if _layers(shared.part) != _layers(part) or not shared.part.extras.items() <= part.extras.items() or shared.part.notes != part.notes:
            raise _foreign(part_repository, identity)
        held[identity] = shared
    return held


def _check_listings(part_repository: PartRepository, identity: str, part: Part, shared: Shared) -> None:
    """Check that a part about to be sealed lists the paths that its layers have: somebody else may have pushed it.

    :raises UntrustedError: it lists others.
    """
    listings = part_repository.listings(shared)
    if any(listings[layer.diff_id] != part_repository.store.listing(layer.diff_id) for layer in part.layers):
        raise _foreign(part_repository, identity)


def _foreign(part_repository: PartRepository, identity: str) -> UntrustedError:
    return UntrustedError(
        f"part {identity[:12]} in {part_repository.registry.host} is not the one that is here", fix="find out who has pushed it, and delete it"
    )


def _layers(part: Part) -> list[tuple[str, str]]:
    return [(layer.digest, layer.diff_id) for layer in part.layers]
