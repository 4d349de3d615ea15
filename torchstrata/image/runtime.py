"""What an image tells its users: environment, labels, ``/etc/torchstrata``. Pure functions of cell, flavour, locks."""

from __future__ import annotations

import fnmatch
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from torchstrata.image.compose import Runtime
from torchstrata.locks import os_locks
from torchstrata.locks.lockfile import Lock
from torchstrata.locks.os_locks import PackageMove
from torchstrata.matrix import compat
from torchstrata.matrix.flavours import Flavour, Service
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.store.layer import PLATFORM

VENV: Final = "/opt/venv"
SHIMS: Final = "/usr/local/lib/torchstrata/bin"
"""Programs that stand before those of :data:`VENV`: uv, which would replace torch without a word."""
PATH: Final = f"{SHIMS}:{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBRARIES: Final = "/opt/cuda/lib"
CUDA_WHEELS_HOME: Final = "/opt/cuda/nvidia/cu{major}"
"""Where the compiler wheels of CUDA 13 and newer lie."""

STUBS: Final = "lib64/stubs"
"""The driver's libraries to link with, below ``CUDA_HOME``."""

ARCHITECTURES: Final = (
    "# torch.utils.cpp_extension builds for the GPUs that it sees; where it sees none, and nobody has said what for, it fails\n"
    'import os; os.environ.get("TORCH_CUDA_ARCH_LIST") or '
    '((os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")) and os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() not in ("", "-1")) or '
    'os.environ.update(TORCH_CUDA_ARCH_LIST="{architectures}")\n'
)
"""A .pth file, which every Python of ``/opt/venv`` reads at its start (the site module of Python's library).

It is that and no variable of the image, which would hold where a GPU is visible, too, and multiply the time of each
build there; and no work of the entrypoint, which does not run in ``docker build``, ``docker exec`` and with
``--entrypoint``.
"""

ETC: Final = "etc/torchstrata"
CONSTRAINTS: Final = f"/{ETC}/constraints.txt"

ENTRYPOINT: Final = ("/usr/local/bin/torchstrata-entrypoint",)
"""PID 1 only until it has given up root, where it had it; then it becomes the init, so that no root process stays."""
SHELL: Final = ("bash",)
"""What a container runs if nobody asks for a command, no service starts, and no flavour of the image has a command."""

PROBE: Final = ("/usr/local/bin/torchstrata-health",)
PERSON: Final[Mapping[str, str]] = {"HOME": "/home/dev", "USER": "dev", "LOGNAME": "dev"}
"""Who the user is, for programs that no entrypoint has told; not where containers start as root."""

CA_BUNDLE: Final = "/var/lib/torchstrata/ca-bundle.crt"
"""A link to the OS's certificate authorities; a start with ``TORCHSTRATA_CA_FILE`` puts a file with one more here."""
CA_VARIABLES: Final = ("SSL_CERT_FILE", "PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
"""Variables that name it. A start also sets those of requests and curl (``container/authorities.py``)."""

DEV_CONTAINER: Final[tuple[Mapping[str, object], ...]] = ({"containerUser": "dev", "remoteUser": "dev", "updateRemoteUserUID": True, "init": True},)
"""Label ``devcontainer.metadata`` (Dev Container reference): the user by name, with the host's uid and group 0."""

OF_ROOT: Final = ("opt/cuda", "opt/cuda/lib")
"""Directories of the payload that no user may add to: every program, root's too, searches :data:`LIBRARIES` first."""

WORKSPACE: Final = "/workspace"
DEV: Final = "1000:0"
ROOT: Final = "0:0"
"""User of the named variant (``v2.8``), whose entrypoint adopts the owner of the mounted workspace and drops root."""

PROTECTED: Final = ("torch", "torchvision", "torchaudio", "triton", "nvidia-*", "cuda-*")
"""Distributions that an install in the container must not replace by accident."""


DRIFT: Final = "torchstrata.drift"
"""Label of an image whose OS packages are not all as locked: how they differ (:func:`.os_locks.in_words`)."""

PLATFORM_LABEL: Final = "torchstrata.platform"
"""Label of an image for another platform than the default one; its config says it, too, as OCI wants it."""

REBUILD: Final = "build it with `-- --locked`, after `inv lock --os` if mirrors no longer have what is locked, and push it again"
"""What to do about an image that is not as locked, and must be."""


def describe(  # noqa: PLR0913  # what an image says of itself
    cell: Cell, lineage: Sequence[Flavour], lock: Lock, revision: str, *, user: str = DEV, drift: Sequence[PackageMove] = ()
) -> Runtime:
    """Return the config of the image of ``cell`` whose flavour is the last of ``lineage``.

    :param lineage: the flavour's parents, then itself.
    :param lock: the flavour's lock; its date becomes the image's, so that the clock is no input.
    :param revision: the source revision of the image's inputs.
    :param user: numeric ``uid:gid`` that containers start as.
    :param drift: where its OS packages are not as locked.
    """
    ports = tuple(service.port for service in services(lineage))
    return Runtime(
        env=environment(cell, [flavour.name for flavour in lineage]) | (dict(PERSON) if user == DEV else {}),
        labels=labels(cell, lineage[-1].name, lock, revision, drift),
        user=user,
        entrypoint=ENTRYPOINT,
        command=() if ports else command(lineage),
        workdir=WORKSPACE,
        ports=ports,
        created=lock.exclude_newer,
        probe=PROBE,
    )


def services(lineage: Sequence[Flavour]) -> tuple[Service, ...]:
    """Return what containers of an image run if nothing is asked for, parents' first."""
    return tuple(itertools.chain.from_iterable(flavour.own_services for flavour in lineage))


def command(lineage: Sequence[Flavour]) -> tuple[str, ...]:
    """Return what runs where no service does: the command of the flavour, or of the nearest parent that has one."""
    return next((flavour.command for flavour in reversed(lineage) if flavour.command), SHELL)


def environment(cell: Cell, lineage: Sequence[str]) -> dict[str, str]:
    """Return the environment of an image; ``CUDA_VERSION`` stays unset, since with it alone the NVIDIA runtime would
    demand that very version of the driver (container-toolkit, ``cuda_image.go``).
    """
    env = {"PATH": PATH, "VIRTUAL_ENV": VENV, "LANG": "C.UTF-8", "PIP_CONSTRAINT": CONSTRAINTS, "UV_CONSTRAINT": CONSTRAINTS, "UV_LINK_MODE": "copy"}
    env["PYTHONUNBUFFERED"] = "1"  # else `docker logs` shows nothing until the end, and a stop loses it
    env |= dict.fromkeys(CA_VARIABLES, CA_BUNDLE)
    if cell.facts.cuda_version:
        env |= {"LD_LIBRARY_PATH": LIBRARIES, "NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
        env |= {"NVIDIA_REQUIRE_CUDA": str(cell.facts.require_cuda)}
    if "devel" in lineage:
        env |= compiler_environment(cell)
    return env


def compiler_environment(cell: Cell) -> dict[str, str]:
    """Return what ``nvcc`` and ``torch.utils.cpp_extension`` need: a home, and a host compiler that nvcc accepts."""
    nvcc = cell.facts.nvcc
    if nvcc is None:
        return {}
    home = f"/opt/{nvcc.toolchain}" if nvcc.toolchain else CUDA_WHEELS_HOME.format(major=compat.major(nvcc.cuda))
    host = f"/usr/bin/{cell.host_compiler}"
    path = PATH.replace(f"{VENV}/bin", f"{VENV}/bin:{home}/bin")
    env = {"CUDA_HOME": home, "PATH": path, "NVCC_PREPEND_FLAGS": f"-ccbin {host}", "LIBRARY_PATH": f"{home}/{STUBS}"}
    is_default = cell.host_compiler == cell.os.compilers[0]
    # torch's BuildExtension holds the compiler of C++ sources, by default g++, against nvcc's limit too.
    return env if is_default else env | {"CXX": host, "CC": host.replace("g++", "gcc")}


def python_start(cell: Cell, lineage: Sequence[str]) -> dict[str, str]:
    """Return path and content of what each Python of an image with ``nvcc`` runs at start: :data:`ARCHITECTURES`."""
    if "devel" not in lineage or cell.facts.nvcc is None:
        return {}
    path = f"{VENV[1:]}/lib/python{cell.os.python}/site-packages/torchstrata_architectures.pth"
    return {path: ARCHITECTURES.format(architectures=architectures(cell))}


def architectures(cell: Cell) -> str:
    """Return what extensions are built for where no GPU is visible: ``TORCH_CUDA_ARCH_LIST``.

    It has the architectures of torch that nvcc knows, such as ``8.0;9.0``. Where nvcc is too old for the newest, those
    compile the PTX of the last one (``9.0+PTX``).
    """
    missing = cell.facts.missing_architectures
    return ";".join(name for name in cell.facts.architectures if name not in missing) + ("+PTX" if missing else "")


def labels(cell: Cell, flavour: str, lock: Lock, revision: str, drift: Sequence[PackageMove] = ()) -> dict[str, str]:
    """Return OCI's pre-defined annotation keys, ``torchstrata.*`` and Dev Containers' label; absent facts have none."""
    facts = cell.facts
    values = {
        "org.opencontainers.image.title": f"{cell.id}-{flavour}",
        "org.opencontainers.image.description": f"PyTorch {cell.version} with {_cuda_words(cell)} on {cell.os.id}, flavour {flavour}",
        "org.opencontainers.image.version": f"{cell.version}-{cell.cuda}-{cell.os.id}-{flavour}",
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.created": lock.exclude_newer,
        "torchstrata.cell": cell.id,
        "torchstrata.flavour": flavour,
        "torchstrata.lock": lock.digest,
        "torchstrata.os": cell.os.id,
        PLATFORM_LABEL: None if cell.platform == PLATFORM else cell.platform,
        "torchstrata.python": cell.os.python,
        "torchstrata.torch": cell.version,
        "torchstrata.cuda": facts.cuda_version,
        "torchstrata.cuda.asked": facts.asked_cuda,
        "torchstrata.driver.floor": facts.driver_floor,
        "torchstrata.architectures": " ".join(f"sm_{name.replace('.', '')}" for name in facts.architectures),
        "torchstrata.architectures.nvcc-lacks": " ".join(f"sm_{name.replace('.', '')}" for name in facts.missing_architectures),
        "torchstrata.nvcc": facts.nvcc.cuda if facts.nvcc else None,
        "devcontainer.metadata": json.dumps(DEV_CONTAINER),
        DRIFT: os_locks.in_words(drift),
    }
    return {name: value for name, value in values.items() if value}


def _cuda_words(cell: Cell) -> str:
    facts = cell.facts
    if facts.cuda_version is None:
        return "no CUDA"
    return f"CUDA {facts.cuda_version}" + (f" (for hosts of CUDA {facts.asked_cuda})" if facts.asked_cuda != facts.cuda_version else "")


def directories(cell: Cell) -> tuple[str, ...]:
    """Return the directories that the facts layer gives to root, parents first."""
    return OF_ROOT if cell.facts.cuda_version else ()


def constraints(lock: Lock) -> str:
    """Return pins of torch and everything that its CUDA build consists of, for pip and uv."""
    head = "# torch and its libraries, as this image was tested; see the guide for users to override one on purpose\n"
    return head + "".join(f"{pin.name}=={pin.version}\n" for pin in lock.pins if _protected(pin.name))


def _protected(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in PROTECTED)


def alternatives(matrix: Matrix, cell: Cell) -> list[dict[str, Any]]:
    """Return what other cells of the same and older torches need, for the preflight to name one that fits a host.

    Newer ones are left out: a new row of the matrix would else change every existing image.
    """
    offered = [other.on(cell.platform) for other in matrix.cells if cell.platform in other.platforms]
    rows = {other.short: other for other in offered if other.is_default_os and other.release <= cell.release}
    return [_needs(other) for short, other in sorted(rows.items()) if (other.torch, other.wheels) != (cell.torch, cell.wheels)]


def _needs(cell: Cell) -> dict[str, Any]:
    facts = cell.facts
    needs = {"cuda": facts.cuda_version, "driver_floor": facts.driver_floor, "architectures": list(facts.architectures)}
    return {"cell": cell.short, "torch": cell.version} | {name: value for name, value in needs.items() if value}


def files(runtime: Runtime, lock: Lock, others: list[dict[str, Any]], lineage: Sequence[Flavour], drift: Sequence[PackageMove] = ()) -> dict[str, str]:
    """Return path and content of the files of the facts layer; no drift or services, no word of them.

    :param others: the image's :func:`alternatives`.
    :param lineage: the flavour's parents, then itself.
    :param drift: where its OS packages are not as locked.
    """
    document: dict[str, Any] = {
        "labels": dict(runtime.labels),
        "alternatives": others,
        "packages": {pin.name: pin.version for pin in lock.pins},
    }
    if drift:
        document["drift"] = [{"package": move.package, "locked": move.locked, "found": move.found} for move in drift]
    return {
        f"{ETC}/image.json": json.dumps(document, indent=2, sort_keys=True) + "\n",
        f"{ETC}/constraints.txt": constraints(lock),
        f"{ETC}/environment.sh": exports(runtime),
        **({f"{ETC}/services.json": services_file(lineage)} if services(lineage) else {}),
    }


def services_file(lineage: Sequence[Flavour]) -> str:
    """Return the services of an image for its runtime (``container/declarations.py``): given fields, and whose."""
    rows: dict[str, dict[str, Any]] = {}
    for service in services(lineage):
        row = _given(msgspec.to_builtins(service))
        rows[row.pop("name")] = row
    document = {"command": list(command(lineage)), "services": rows}
    return json.dumps(document, indent=2) + "\n"


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return those fields that say something, also within a field."""
    plain = {name: _given(value) if isinstance(value, dict) else value for name, value in fields.items()}
    return {name: value for name, value in plain.items() if value not in (None, False, [], ())}


def exports(runtime: Runtime) -> str:
    """Return a shell script that gives an environment of an image, for shells that lose the container's (``su -``)."""
    words = (f"export {name}={shlex.quote(value)}\n" for name, value in sorted(runtime.env.items()) if name not in PERSON)
    return "# The environment of this image, for login shells that have none.\n" + "".join(words)
