"""Compile many small modules as a build does, by the Python of an OS part in the engine: ``compiled.py OS-STORE WHEELS``.

The content store lies where its variable says; the OS part comes from another one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.built import CPU, cell_of
from tests.parts import CODEC, missing, plan, stratum
from tests.wheelhouse import wheel
from torchstrata import process
from torchstrata.building.maker import Maker
from torchstrata.building.plan import Bytecode, Item, OsPart
from torchstrata.commands import cli
from torchstrata.layers import bytecode, os_parts
from torchstrata.locks import wheel_locks
from torchstrata.matrix.matrix import ROOT
from torchstrata.progress import PlainReporter
from torchstrata.store.store import Store

MODULES: Final = 3000


def lend(store: Store, to: Store, identity: str) -> None:
    """Bring a part into another store."""
    part = store.find(identity)
    assert part is not None, "build 2.13-cpu first"
    for layer in part.layers:
        to.keep_listing(layer.diff_id, store.listing(layer.diff_id))
    for digest in part.digests:
        to.add_blob(store.open_blob(digest), digest)
    to.remember(identity, part)


def main(other: str, wheels: str) -> None:
    """Compile, in a build that has nothing else to do."""
    process.end_as_by_ctrl_c()
    with cli.guarded():
        store, system = Store.open(), cell_of(CPU).os
        base = os_parts.identity(system, (wheel_locks.TORCH_FLAVOUR,), CODEC, ROOT)
        if store.find(base) is None:
            lend(Store(Path(other)), store, base)
        files = {f"many/m{number}.py": b"".join(b"def f%d(x):\n    return x * %d\n" % (each, each) for each in range(40)) for number in range(MODULES)}
        pin, _ = wheel(Path(wheels), "many", "1.0", files)
        sources = stratum(pin, python=system.python)
        below = Item(identity=base, title="os", source=OsPart(system=system, lineage=(wheel_locks.TORCH_FLAVOUR,)), part=store.find(base))
        wanted = bytecode.identity([sources.identity(CODEC)], f"{system.python}.0", CODEC)
        compiled = Item(identity=wanted, title="many", source=Bytecode(sources=(sources,), base=base, system=system, interpreter=system.python), part=None)
        with Maker(plan(below, missing(sources), compiled), store, CODEC, PlainReporter(Console()), locked=False) as maker:
            maker.part(wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
