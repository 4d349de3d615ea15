"""The verbs about images of this machine: plan, build, push, verify and weigh them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from rich.table import Table

from torchstrata import memory, platforms, progress
from torchstrata.attestations import remote, seals, signing
from torchstrata.attestations.remote import Remote
from torchstrata.attestations.signing import Signer
from torchstrata.building import bootstrap, disk
from torchstrata.building import engine as engines
from torchstrata.building import plan as plans
from torchstrata.building.assembly import Builder, Composed
from torchstrata.building.first_use import FirstUse
from torchstrata.building.plan import ImagePlan, OsPart, Plan, Planner
from torchstrata.commands.options import BuildOptions, ImageOptions, PlanOptions, PushOptions, SizesOptions
from torchstrata.errors import LockError, RegistryAuthError, RegistryError
from torchstrata.image import layout
from torchstrata.layers import os_parts
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import PackageMove
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.progress import Reporter
from torchstrata.store.codec import DEFAULT_LEVELS, Codec, Name
from torchstrata.store.store import Store
from torchstrata.verification import inspection, size_budget
from torchstrata.verification import suite as verification
from torchstrata.verification.request import VerifyOptions

UNTRUSTED: Final = "parts in {where} are not used, but made here: nothing says whose count; set COSIGN_PUBLIC_KEY, or give --trust-unsealed-parts"
UNSEALED: Final = "--trust-unsealed-parts: whoever may push to {where} decides what is in these images, and nothing tells afterwards"

SHOWN: Final = 1
"""Packages that a row of a table names; ``image.json`` has all."""


def push(options: PushOptions) -> None:
    """Push the images of cells, without an engine."""
    shared = {field.name: getattr(options, field.name) for field in dataclasses.fields(ImageOptions)}
    codec: Name = "gzip" if options.gzip else "zstd"
    build(",".join(options.cells), BuildOptions(**shared, codec=codec, push=True, load=False))


def build(cells: str, options: BuildOptions) -> None:
    """Build the images of cells, and load them into the engine, write them to a directory, or push them.

    :param cells: ids or globs, with commas between them.
    """
    memory.bound()
    planner = _planner(Codec(name=options.codec, level=DEFAULT_LEVELS[options.codec]), locked=options.locked)
    chosen = matrix.select_on(planner.matrix, options.platform, *cells.split(","))
    flavours = options.flavour or tuple(planner.matrix.flavours)
    if not options.locked:
        _lock_first(planner, chosen, flavours)
    plan = planner.plan(chosen, flavours)
    engine = engines.connect() if options.load and not options.to else None
    where = (remote.required if options.push else remote.place)(options.registry, planner.matrix.registry)
    started = time.monotonic()
    with progress.reporter() as reporter, Remote.opened(where, planner.matrix.name, planner.store, unsealed=options.trust_unsealed_parts) as shared:
        plan = _filled(plan, shared, planner, reporter, options)
        for line in (*chain.from_iterable(map(notes, chosen)), *drifts(plan), disk.check(plan, planner.store, engine)):
            reporter.say(line)
        opener = shared.open_blob if shared else None
        builder = Builder(
            matrix=planner.matrix, store=planner.store, codec=planner.codec, reporter=reporter, engine=engine, locked=options.locked, open_blob=opener
        )
        composed = builder.build(plan)
        if options.to:
            _write(options.to, composed, planner.store, shared)
        reporter.show(closing(plan, composed))
        reporter.say(f"{len(composed)} images in {time.monotonic() - started:.1f} s")
        if shared and options.push:
            _push(shared, plan, composed, planner, reporter, names=options.names)


def _lock_first(planner: Planner, cells: Sequence[Cell], flavours: Sequence[str]) -> None:
    """Lock what nobody has locked of what the flavours of the cells need."""
    with_parents = tuple(dict.fromkeys(chain.from_iterable(map(planner.matrix.with_parents, flavours))))
    first = FirstUse(matrix=planner.matrix, store=planner.store, codec=planner.codec)
    if first.is_due(cells, with_parents):
        with progress.reporter() as reporter:
            first.lock(cells, with_parents, reporter)


def _filled(plan: Plan, shared: Remote | None, planner: Planner, reporter: Reporter, options: BuildOptions) -> Plan:
    """Return the plan with the parts that the registry has; its silence matters only if images are pushed there.

    :raises RegistryError: it does not answer, and images are to be pushed.
    :raises UntrustedError: a part is not sealed by somebody whom the build trusts.
    """
    if shared is None or not plan.missing():
        return plan
    if not shared.is_trusted:
        if options.push:
            shared.greet()
        reporter.say(UNTRUSTED.format(where=f"{shared.registry.host}/{shared.part_repository.repository}"))
        return plan
    if options.trust_unsealed_parts:
        reporter.say(UNSEALED.format(where=f"{shared.registry.host}/{shared.part_repository.repository}"))
    try:
        with reporter.step("find", f"parts in {shared.registry.host}"):
            filled = shared.fill(plan, planner.codec, locked=planner.locked)
    except RegistryError as error:
        if options.push or isinstance(error, RegistryAuthError):
            raise
        reporter.say(f"without the registry: {error.what}")
        return plan
    wanted = {item.identity for item in plan.missing()} & {item.identity for item in filled.items()}
    found = wanted - {item.identity for item in filled.missing()}
    reporter.say(f"{len(found)} of {len(wanted)} missing parts are in {shared.registry.host}; {progress.size(shared.downloaded)} downloaded")
    return filled


def _write(directory: Path, composed: Sequence[Composed], store: Store, shared: Remote | None) -> None:
    if shared:
        shared.fetch_layers(composed)
    layout.write(directory, [one.loadable for one in composed], store)


def _push(shared: Remote, plan: Plan, composed: Sequence[Composed], planner: Planner, reporter: Reporter, *, names: bool) -> None:  # noqa: PLR0913  # what it takes
    """Push what was composed, signed if there is somebody to sign, and say under which tags, and what it cost."""
    from torchstrata.commands import signatures  # noqa: PLC0415  # its libraries take 0.3 s, which plans need not wait for

    signer = Signer.present()
    maker = signatures.DocumentMaker(store=planner.store, codec=planner.codec, open_blob=shared.open_blob)
    attach = signatures.Attacher.of(composed, maker, signer) if signer else progress.ignore
    with reporter.step("push", f"{len(composed)} images to {shared.name}") as step:
        publications = shared.publications(composed, names=names)
        report = shared.push(plan, publications, attach=attach, on_bytes=step.advance)
    if signer:
        with reporter.step("sign", f"parts in {shared.registry.host}"):
            seals.seal(shared.part_repository, remote.parts_of(plan, planner.store), signer)
    else:
        reporter.say(f"not signed, so that nothing can be promoted: {signing.KEY} names no key, and no job in GitHub Actions may sign")
    if drifted := [one.tags[0] for one in composed if one.drift]:
        reporter.say(f"not as locked, so that they cannot be promoted: {', '.join(drifted)}")
    for publication in publications:
        reporter.say(f"{shared.name}:{' '.join(publication.tags)} {publication.image.digest}")
    _join(shared, composed, reporter, names=names)
    reporter.say(
        f"{progress.size(report.sent)} sent, {progress.size(report.mounted)} mounted, {progress.size(report.present)} were there; {report.parts} new parts"
    )


def _join(shared: Remote, composed: Sequence[Composed], reporter: Reporter, *, names: bool) -> None:
    """Join the images of rows of several platforms, where all of a row were pushed at once; say which wait for others.

    :raises SigningError: the key cannot be used.
    """
    from torchstrata.commands import join  # noqa: PLC0415  # see _push

    joiner, indexes = join.joiner_of(shared.registry, shared.repository), remote.indexes(composed)
    for cell, image, index in indexes:
        join.put(joiner, cell, image, index, names=names, say=reporter.say)
    done = {(cell.id, image) for cell, image, _ in indexes}
    waiting = [one for one in composed if remote.is_joined(one) and (one.plan.cell.id, remote.image_of(one)) not in done]
    for cell_id, ones in itertools.groupby(waiting, key=lambda one: one.plan.cell.id):
        first, *_ = ones
        have, cell = remote.platform_of(first), first.plan.cell
        reporter.say(f"{cell_id} was pushed for {have}; once it is for all of {', '.join(cell.platforms)}: inv join {cell.names[0]}")


def notes(cell: Cell) -> list[str]:
    """Return what a user of the cell should know before it is built, one line each."""
    facts, lines = cell.facts, []
    if facts.asked_cuda != facts.cuda_version:
        lines.append(
            f"{cell.short}: upstream has no torch {cell.torch} for CUDA {facts.asked_cuda}; the {cell.wheels} wheels serve its hosts"
            f" (minor-version compatibility, any driver >= {facts.driver_floor})"
        )
    if facts.nvcc and facts.missing_architectures:
        lacking = ", ".join(facts.missing_architectures)
        lines.append(f"{cell.short}: nvcc {facts.nvcc.cuda} cannot compile for compute capability {lacking}, for which torch has kernels")
    if not cell.os.verified:
        lines.append(f"{cell.id}: unverified: nobody has built and run images on {cell.os.id} yet")
    return lines


def drifts(plan: Plan) -> list[str]:
    """Return a line for each OS whose parts in the store have other versions than its lock."""
    moved = defaultdict[str, dict[PackageMove, None]](dict)
    for item in plan.items():
        if isinstance(item.source, OsPart) and item.part:
            moved[item.source.system.name] |= dict.fromkeys(os_parts.drift(item.part))
    return [f"{system}: not as locked: {os_locks.in_short(tuple(moves))}" for system, moves in moved.items() if moves]


def closing(plan: Plan, composed: Sequence[Composed]) -> Table:
    """Return the closing table: image, layers reused and made, size, digest, and whether OS packages are as locked."""
    made = {item.identity for item in plan.missing()}
    view = progress.table("image", "layers", "reused", "made", "size", "digest", "OS packages")
    for one in composed:
        new = sum(item.identity in made for item in one.plan.items)
        layers = len(one.image.layers)
        size, digest, state = progress.size(one.image.size), one.image.digest[7:19], os_locks.state(one.drift, SHOWN)
        view.add_row(one.tags[0], str(layers), str(len(one.plan.items) - new), str(new), size, digest, state)
    return view


def verify(cell: str, python: Path, options: VerifyOptions) -> None:
    """Verify images of one cell, or a machine that must be like one."""
    for chosen in matrix.select_on(matrix.load(), options.platform, cell):
        verification.run(chosen, python, options)


def plan(options: PlanOptions) -> None:
    """Print the plan for the cells that match, as a table or as JSON; a cell without a lock is named in one line.

    :raises LockError: none of them is locked.
    """
    planner = _planner(Codec())
    images: list[ImagePlan] = []
    unlocked: list[LockError] = []
    for cell in matrix.select_on(planner.matrix, options.platform, *options.cells):
        try:
            images += planner.plan([cell], list(planner.matrix.flavours)).images
        except LockError as error:
            unlocked.append(error)
    if not images:
        raise unlocked[0]
    for line in dict.fromkeys(error.what for error in unlocked):
        progress.plain_console(stderr=True).print(line)
    whole = Plan(images=tuple(images))
    if options.json:
        sys.stdout.write(json.dumps(plans.document(whole), indent=2) + "\n")
        return
    progress.say(plans.table(whole), disk.check(whole, planner.store, None))


def weigh(options: SizesOptions) -> None:
    """Print size and budget of every image of cells whose flavours are in the engine; make them budgets if asked."""
    table, store, client = matrix.load(), Store.open(), engines.connect().client
    view, measured = progress.table("image", "size", "budget"), defaultdict[str, dict[str, int]](dict)
    end = platforms.suffix(options.platform)
    for cell in matrix.select_on(table, options.platform, *options.cells):
        images = {flavour: inspection.inspect(f"{table.name}:{cell.names[0]}-{flavour}{end}", client, store) for flavour in table.flavours}
        for flavour, image in images.items():
            allowed = table.budget(flavour, cell.weighed)
            view.add_row(f"{cell.id}-{flavour}{end}", progress.size(image.size), progress.size(allowed) if allowed else "none")
            measured[flavour][cell.weighed] = image.size
        if options.write:
            weighed = [size_budget.weigh(cell, (layer.weight for layer in image.layers)) for image in images.values()]
            size_budget.record(cell, size_budget.of_all(weighed))
    if options.write:
        size_budget.write(table, measured)
    progress.say(view)


def engine() -> None:
    """Make an engine available."""
    bootstrap.ensure(progress.say)


def _planner(codec: Codec, *, locked: bool = False) -> Planner:
    return Planner(matrix=matrix.load(), store=Store.open(), codec=codec, locked=locked)
