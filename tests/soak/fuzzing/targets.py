"""What is fuzzed: readers of what comes from outside, each a function of bytes that ends well or in an error of ours.

Add a target with one line in :data:`TARGETS`; its function and seeds lie in a module of this directory for each family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.soak.fuzzing import indexes, kept, registries, wheels
from torchstrata.errors import TorchstrataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A reader.

    :param read: reads bytes of any content; raises ``AssertionError`` where it returns what it must not.
    :param seeds: valid and invalid inputs to begin with.
    """

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]

    def accepts(self, data: bytes) -> bool:
        """Let it read; return whether it did not refuse.

        :raises Exception: what is no error of ours, which is a finding.
        """
        try:
            self.read(data)
        except TorchstrataError as error:
            if not (error.what + error.fix).isprintable():
                raise AssertionError(str(error)) from error
            return False
        return True


TARGETS: Final[Mapping[str, Target]] = {
    "wheel": Target(read=wheels.archive, seeds=wheels.ARCHIVES),
    "wheel-content": Target(read=wheels.content, seeds=wheels.CONTENTS),
    "wheel-record": Target(read=wheels.record, seeds=wheels.RECORDS),
    "wheel-entry-points": Target(read=wheels.entry_points, seeds=wheels.ENTRY_POINTS),
    "wheel-metadata": Target(read=wheels.metadata, seeds=wheels.METADATA),
    "index-html": Target(read=indexes.html, seeds=indexes.HTML),
    "index-json": Target(read=indexes.json, seeds=indexes.JSON),
    "pip-config": Target(read=indexes.pip_config, seeds=indexes.PIP_CONFIGS),
    "registry-manifest": Target(read=registries.manifest, seeds=registries.MANIFESTS),
    "registry-lists": Target(read=registries.lists, seeds=registries.LISTS),
    "registry-config": Target(read=registries.config, seeds=registries.CONFIGS),
    "registry-part": Target(read=registries.part, seeds=registries.PARTS),
    "registry-listings": Target(read=registries.listings, seeds=registries.LISTINGS),
    "registry-token": Target(read=registries.token, seeds=registries.TOKENS),
    "registry-challenge": Target(read=registries.challenge, seeds=registries.CHALLENGES),
    "seal": Target(read=registries.seal, seeds=registries.SEALS),
    "bundle": Target(read=registries.bundle, seeds=registries.BUNDLES),
    "record": Target(read=registries.recorded, seeds=kept.RECORDS),
    "ledger": Target(read=kept.ledger, seeds=kept.LEDGERS),
    "ledger-copy": Target(read=kept.copy, seeds=kept.COPIES),
    "matrix": Target(read=kept.rows, seeds=kept.MATRICES),
    "lock": Target(read=kept.lock, seeds=kept.LOCKS),
    "os-lock": Target(read=kept.os_lock, seeds=kept.OS_LOCKS),
    "evidence": Target(read=kept.verified, seeds=kept.EVIDENCE),
}
"""Every reader by the name that ``nox -s fuzz -- NAME`` takes."""
