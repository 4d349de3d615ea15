"""How an image was made, put together from its plan, its parts, the locks and git."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

from torchstrata import process
from torchstrata.attestations.made import Made
from torchstrata.attestations.record import SourceRepository
from torchstrata.building.assembly import Composed
from torchstrata.building.plan import Item, OsPart
from torchstrata.errors import CommandError, StoreError
from torchstrata.layers import contexts, os_image
from torchstrata.layers.strata import Stratum
from torchstrata.layers.toolchain_lock import Toolchain
from torchstrata.locks import os_locks
from torchstrata.store import inventory
from torchstrata.store.codec import Codec
from torchstrata.store.layer import OpenBlob
from torchstrata.store.part import Part
from torchstrata.store.store import Store


def gather(composed: Composed, store: Store, codec: Codec, root: Path, open_blob: OpenBlob | None = None) -> Made:
    """Return all that is known of an image that was composed.

    :param open_blob: where blobs of parts come from that the store lacks.
    :raises StoreError: a part is nowhere.
    """
    opened = open_blob or store.open_blob
    plan, system = composed.plan, composed.plan.cell.os
    parts = {item.identity: _part(item, store, opened) for item in plan.items}
    lock = os_locks.read(system, root)
    called = os_image.reference(system, lock) or f"{os_image.PROGRAM} {system.suite} {os_image.identity(system, lock, contexts.apt_config(root), codec)}"
    return Made(
        composed=composed,
        parts=parts,
        inventories={item.identity: inventory.of(parts[item.identity], opened) for item in plan.items if _has_packages(item)},
        source=SourceRepository(revision=_labels(composed)["org.opencontainers.image.revision"], repository=repository(root)),
        os_lock=lock.digest(plan.lineage),
        os_lock_date=lock.date,
        os_image=called,
        codec=codec.identity,
    )


def _part(item: Item, store: Store, open_blob: OpenBlob) -> Part:
    part = store.known(item.identity) or item.part
    if part is None:
        raise StoreError(f"nothing is known of {item.title}", fix="build the image first")
    return inventory.ensure(item.identity, part, store, open_blob) if _has_packages(item) else part


def _has_packages(item: Item) -> bool:
    return isinstance(item.source, OsPart | Toolchain) or (isinstance(item.source, Stratum) and item.source.kind != "skeleton")


def _labels(composed: Composed) -> dict[str, str]:
    labels: dict[str, str] = json.loads(composed.image.config)["config"]["Labels"]
    return labels


def repository(root: Path) -> str:
    """Return the URL of the repository that ``origin`` names, without credentials; nothing for one on a disk."""
    try:
        remote = process.run("git", "-C", str(root), "remote", "get-url", "origin").strip()
    except CommandError:
        return ""
    return web_address(remote)


def web_address(remote: str) -> str:
    """Return a git remote as a URL that names no user: ``git@host:team/x.git`` is ``https://host/team/x``; nothing for others."""
    if scp := re.fullmatch(r"(?:[^@/:]+@)?([^/:]+):(?!/)(.+)", remote):
        remote = f"ssh://{scp[1]}/{scp[2]}"
    try:
        parts = urlsplit(remote)
        port = f":{parts.port}" if parts.port and parts.scheme.startswith("http") else ""
    except ValueError:
        return ""
    if parts.scheme not in {"https", "http", "ssh", "git"} or not parts.hostname:
        return ""
    return f"https://{parts.hostname}{port}{parts.path.removesuffix('/').removesuffix('.git')}"
