"""Strata: which wheels share a layer, and making that layer.

From the bottom: CUDA in the groups that ``matrix.yaml`` orders, the same for every Python; then, for one Python each,
the empty environment (it changes least), torch, triton, other large wheels by name, and one layer of all the small
ones, which also holds the dist-info of the CUDA wheels.
"""

from __future__ import annotations

import fnmatch
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import installer
import msgspec
from packaging.utils import parse_wheel_filename

from torchstrata import decoding
from torchstrata.errors import IntegrityError, StoreError
from torchstrata.layers import venv, wheel_file
from torchstrata.layers.venv import Aside, Destination
from torchstrata.locks import wheel_locks
from torchstrata.locks.lockfile import Lock, Pin
from torchstrata.matrix.schema import Strata
from torchstrata.store import inventory, store
from torchstrata.store.codec import Codec
from torchstrata.store.inventory import Inventory, PythonPackage
from torchstrata.store.part import Part
from torchstrata.store.store import Store

FORMAT: Final = 1
"""Raise it when the bytes of a stratum change for the same wheels."""

FIRST: Final = ("torch", "triton")
"""Wheels that lie below the other large ones of a Python."""

ASIDE: Final = "aside"
"""Name of the extra blob of a CUDA stratum's part that holds its :class:`Aside`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """One layer of payload that is or could be made.

    :param title: a few words for people.
    :param kind: ``cuda``: a group of CUDA wheels; ``skeleton``: the empty environment; ``wheel``: one large wheel;
        ``group``: the small ones.
    :param pins: the wheels in it, sorted by name.
    :param python: minor version of the Python it is for; ``None`` for ``cuda``.
    :param needs: CUDA strata whose dist-info it holds: their parts must be in the store before it is made.
    """

    title: str
    kind: Literal["cuda", "skeleton", "wheel", "group"]
    pins: tuple[Pin, ...]
    python: str | None
    needs: tuple[Stratum, ...] = ()

    def identity(self, codec: Codec) -> str:
        """Return the identity of its part: everything that the layer's bytes depend on."""
        return store.identity(
            stratum=FORMAT,
            title=self.description,
            kind=self.kind,
            python=self.python,
            pins=[(pin.name, pin.version, pin.sha256) for pin in self.pins],
            needs=[need.identity(codec) for need in self.needs],
            codec=codec.identity,
        )

    @property
    def description(self) -> str:
        """The title with all wheels, for the history of images."""
        names = ", ".join(f"{pin.name} {pin.version}" for pin in self.pins)
        return self.title if not names or names == self.title else f"{self.title}: {names}"


def plan(lock: Lock, parent: Lock | None, rules: Strata, python: str) -> tuple[Stratum, ...]:
    """Return the strata that ``lock`` adds to those of ``parent``, bottom to top.

    :param python: minor version of the Python, such as ``3.13``.
    """
    pins = wheel_locks.own(lock, parent)
    cuda = tuple(_cuda(pins, rules))
    taken = set(itertools.chain.from_iterable(stratum.pins for stratum in cuda))
    others = [pin for pin in pins if pin not in taken]
    large = sorted((pin for pin in others if pin.size > rules.own_layer_over or pin.name in FIRST), key=_rank)
    small = tuple(pin for pin in others if pin not in large)
    skeleton = Stratum(title=f"Python {python} environment", kind="skeleton", pins=(), python=python)
    wheels = [Stratum(title=f"{pin.name} {pin.version}", kind="wheel", pins=(pin,), python=python) for pin in large]
    group = Stratum(title=f"{len(small)} wheels of {lock.flavour}", kind="group", pins=small, python=python, needs=cuda)
    return (*cuda, *(() if parent else (skeleton,)), *wheels, *((group,) if small or cuda else ()))


def _cuda(pins: Sequence[Pin], rules: Strata) -> Iterator[Stratum]:
    """Yield the groups of CUDA wheels; the first group with a fitting glob takes a wheel."""
    left = [pin for pin in pins if _any_python(pin)]
    for group in rules.cuda_groups:
        taken = tuple(pin for pin in left if any(fnmatch.fnmatchcase(pin.name, glob) for glob in group.wheels))
        left = [pin for pin in left if pin not in taken]
        if taken:
            yield Stratum(title=group.title, kind="cuda", pins=taken, python=None)


def _any_python(pin: Pin) -> bool:
    return all(tag.interpreter.startswith("py") for tag in parse_wheel_filename(pin.filename)[3])


def _rank(pin: Pin) -> tuple[int, str]:
    return (FIRST.index(pin.name) if pin.name in FIRST else len(FIRST), pin.name)


def make(stratum: Stratum, wheels: Mapping[str, Path], into: Store, codec: Codec, cancelled: threading.Event) -> Part:
    """Make the layer of ``stratum`` and return its part; the caller has locked the identity and remembers the part.

    :param wheels: file of each pin by its sha256, verified.
    :param cancelled: ends the work soon when set.
    :raises IntegrityError: a wheel is damaged, is not what its lock and the specification say, writes outside of its
        place, or two bring the same file with other content.
    :raises StoreError: a CUDA stratum that it needs is not in the store.
    :raises CancelledError: ``cancelled`` was set.
    """
    with into.layer(stratum.description, codec) as writer:
        writer.cancelled = cancelled
        destination = Destination(writer, stratum.python)
        if stratum.kind == "skeleton":
            venv.write_skeleton(writer, str(stratum.python))
        packages = tuple(_install(pin, wheels[pin.sha256], destination) for pin in stratum.pins)
        for need in stratum.needs:
            destination.wheel = need.title
            destination.write_aside(_aside(need, into, codec))
    aside = {} if stratum.python else {ASIDE: into.add_blob(msgspec.json.encode(destination.aside))}
    return Part(layers=(writer.layer,), extras=inventory.stored(Inventory(python=packages), into) | aside)


def _install(pin: Pin, path: Path, destination: Destination) -> PythonPackage:
    destination.wheel = path.name
    with wheel_file.pinned(pin, path) as wheel:
        destination.dist_info = wheel.dist_info_dir
        installer.install(wheel, destination, venv.METADATA)
        return inventory.python_package(wheel.read_dist_info("METADATA").encode())


def _aside(stratum: Stratum, into: Store, codec: Codec) -> Aside:
    part = into.known(stratum.identity(codec))  # its layer may be in a registry only
    if part is None:
        raise StoreError(f"{stratum.title} must be made before what needs it", fix="report this: the order of the build is wrong")
    blob = into.open_blob(part.extras[ASIDE])
    try:
        if blob.stat().st_size > 2 * venv.ASIDE:  # base64 takes a third more
            raise msgspec.DecodeError("it is too long")
        return decoding.decode(blob.read_bytes(), Aside)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"what {stratum.title} sets aside cannot be read: {error}", fix=f"remove {blob}, and build again") from error
