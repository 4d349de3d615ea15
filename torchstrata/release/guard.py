"""What a release asks of signatures and test results; other modules make and check them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Protocol

from torchstrata.attestations import examination
from torchstrata.attestations.signing import Signer, Trust
from torchstrata.errors import UntrustedError
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Registry


class Guard(Protocol):
    """Signs, and believes nothing that is not signed."""

    def sign(self, registry: Registry, repository: str, digest: str) -> None:
        """Sign a manifest; once is enough.

        :raises SigningError: it cannot be signed.
        """

    def authentic(self, registry: Registry, repository: str, digest: str) -> None:
        """Refuse a manifest that is not signed by who it must be.

        :raises UntrustedError: it is not.
        """

    def verified(self, registry: Registry, repository: str, digest: str) -> None:
        """Refuse an image that is not signed, or has no signed result of its tests that says that it passed.

        :raises UntrustedError: it is not.
        """


@dataclass(frozen=True, kw_only=True)
class Cosign:
    """The guard that signs and checks with cosign.

    :param trust: whose signatures count.
    :param signer: ``None`` where nothing is to be signed.
    """

    trust: Trust
    signer: Signer | None = None

    def sign(self, registry: Registry, repository: str, digest: str) -> None:
        """Sign a manifest, unless it is signed by who it must be."""
        assert self.signer is not None
        with contextlib.suppress(UntrustedError):
            self.authentic(registry, repository, digest)
            return
        self.signer.sign_image(_reference(registry, repository, digest))

    def authentic(self, registry: Registry, repository: str, digest: str) -> None:
        """Refuse a manifest that is not signed by who it must be."""
        self.trust.check_image(_reference(registry, repository, digest))

    def verified(self, registry: Registry, repository: str, digest: str) -> None:
        """Refuse an image about which not all that must be is signed and true."""
        examination.examine(registry, _reference(registry, repository, digest), self.trust).require()


def _reference(registry: Registry, repository: str, digest: str) -> Reference:
    return Reference(host=registry.host, repository=repository, digest=digest)
