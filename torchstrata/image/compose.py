"""Compose images: layers and a cell's facts in, OCI manifest and config out. Pure; nothing here reads or writes.

Follows the OCI image specification 1.1: https://github.com/opencontainers/image-spec (manifest.md, config.md,
layer.md).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torchstrata.errors import ComposeError, IntegrityError
from torchstrata.store.layer import PLATFORM, Entry, Layer, in_payload
from torchstrata.store.paths import WHITEOUT
from torchstrata.text import printable

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"

LAYER_LIMIT: Final = 48
"""moby's classic store stops at 125 layers; images that people derive need room."""

CREATED_BY: Final = "torchstrata "
"""What the history of each layer of ours begins with (OCI image configuration, ``created_by``)."""

SECOND: Final = 1_000_000_000
HEALTH: Final = {"Interval": 30 * SECOND, "Timeout": 5 * SECOND, "StartPeriod": 30 * SECOND, "StartInterval": SECOND, "Retries": 3}
"""When Docker runs the health check, in nanoseconds; an addition of Docker's to the OCI config."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A run of layers of one origin, bottom to top.

    :param origin: ``payload``, ``os`` or ``facts``.
    :param label: one line that says where the layers came from.
    """

    origin: str
    label: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """The part of an image's config that depends on its cell and flavour.

    :param env: environment variables, in the order that the config lists them.
    :param labels: OCI and ``torchstrata.*`` labels.
    :param user: numeric ``uid:gid``.
    :param ports: TCP ports that services of the flavour listen on.
    :param probe: command of the health check.
    :param created: RFC 3339 time; an input, never the clock.
    """

    env: Mapping[str, str]
    labels: Mapping[str, str]
    user: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    workdir: str
    ports: tuple[int, ...]
    created: str
    probe: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A composed image: everything an engine or a registry needs besides the blobs.

    :param name: cell and flavour, such as ``2.8-cu121-debian13-devel``.
    :param layers: bottom to top.
    :param config: canonical JSON bytes.
    :param manifest: canonical JSON bytes.
    """

    name: str
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """The digest of the manifest, by which the image is known."""
        return sha256(self.manifest)

    @property
    def size(self) -> int:
        """Compressed bytes of all layers."""
        return sum(layer.size for layer in self.layers)


def sha256(data: bytes) -> str:
    """Return the OCI digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def canonical(value: Any) -> bytes:
    """Return the one JSON form of ``value``: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def compose(name: str, sections: Sequence[Section], runtime: Runtime, platform: str = PLATFORM) -> Image:
    """Return the image for ``platform`` that stacks ``sections`` bottom to top.

    Check the sections first with :func:`check`; this function only counts layers.

    :raises ComposeError: there are more than :data:`LAYER_LIMIT` layers.
    """
    layers = tuple(itertools.chain.from_iterable(section.layers for section in sections))
    if len(layers) > LAYER_LIMIT:
        raise ComposeError(
            f"{name} would have {len(layers)} layers, more than {LAYER_LIMIT}",
            fix="raise own_layer_over in matrix.yaml, so that fewer wheels get a layer of their own",
        )
    config = canonical(_config(sections, layers, runtime, platform))
    return Image(name=name, layers=layers, config=config, manifest=manifest(layers, config))


def _config(sections: Sequence[Section], layers: Sequence[Layer], runtime: Runtime, platform: str) -> dict[str, Any]:
    return {
        **platform_fields(platform),
        "created": runtime.created,
        "config": {
            "User": runtime.user,
            "Env": [f"{name}={value}" for name, value in runtime.env.items()],
            "Entrypoint": list(runtime.entrypoint),
            "Cmd": list(runtime.command),
            "WorkingDir": runtime.workdir,
            "Labels": dict(runtime.labels),
            "ExposedPorts": {f"{port}/tcp": {} for port in runtime.ports},
            **({"Healthcheck": {"Test": ["CMD", *runtime.probe], **HEALTH}} if runtime.probe else {}),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [*itertools.chain.from_iterable(_history(section, runtime.created) for section in sections)],
    }


def _history(section: Section, created: str) -> Iterator[dict[str, str]]:
    for layer in section.layers:
        yield {"created": created, "created_by": f"{CREATED_BY}{section.label}", "comment": layer.title}


def manifest(layers: Sequence[Layer], config: bytes) -> bytes:
    """Return the manifest of an image, as canonical JSON."""
    described = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers]
    return canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config), "layers": described})


def platform_fields(platform: str) -> dict[str, str]:
    """Return a platform as configs and descriptors have it (config.md, image-index.md)."""
    system, _, architecture = platform.partition("/")
    return {"os": system, "architecture": architecture}


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    """Return what one document says of another (descriptor.md)."""
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


def check(name: str, listed: Iterable[tuple[str, Layer, Sequence[Entry]]]) -> None:
    """Refuse layers that would erase or hide each other's files.

    :param listed: origin, layer and listing of every layer, bottom to top.
    :raises ComposeError: an OS layer touches the payload, or hides a parent of it; a payload layer erases anything,
        or touches what is not payload; or a path is a directory in one layer and something else in another.
    :raises IntegrityError: two payload layers bring the same file, and not with the same content.
    """
    kinds: dict[str, tuple[bool, str]] = {}
    brought: dict[str, tuple[Entry, Layer]] = {}
    for origin, layer, entries in listed:
        for entry in entries:
            if origin == "os":
                _check_os_entry(name, layer, entry)
            if origin == "payload":
                _check_payload_entry(name, layer, entry)
                _check_alone(name, layer, entry, brought)
            if entry.kind in {"whiteout", "opaque"}:
                continue
            is_directory = entry.kind == "dir"
            known, owner = kinds.setdefault(entry.path, (is_directory, layer.title))
            if known != is_directory:
                raise ComposeError(
                    f"{name}: /{entry.path} is {_kind(known)} in layer '{owner}' and {_kind(is_directory)} in layer '{layer.title}'",
                    fix="the upper one would hide the lower one: move one of them, or report which wheels or packages collide",
                )


def check_kept(name: str, layer: Layer, entries: Iterable[Entry], owners: Mapping[str, str]) -> None:
    """Refuse a layer of a flavour that replaces or removes a file of another one.

    :param owners: flavour by path of the files that those below bring.
    :raises ComposeError: it does; directories, and what packages bring, may be another layer's too.
    """
    for entry in entries:
        removes = entry.kind in {"whiteout", "opaque"}
        below = [path for path in owners if path.startswith(f"{entry.path}/")] if removes else []
        for path in ([entry.path] if entry.path in owners and entry.kind != "dir" else below)[:1]:
            raise ComposeError(
                f"{name}: OS layer '{layer.title}' {'removes' if removes else 'replaces'} /{path}, which images/{owners[path]} brings",
                fix=f"leave it as it is, or change it in images/{owners[path]}/rootfs, for all flavours above it",
            )


def _check_os_entry(name: str, layer: Layer, entry: Entry) -> None:
    """Refuse an entry of an OS layer that lies in the payload, or that hides a directory above it."""
    if in_payload(entry.path):
        raise ComposeError(
            f"{name}: OS layer '{layer.title}' has {entry.kind} /{entry.path}, which belongs to the payload",
            fix="take that path out of images/*/Dockerfile: Python packages come from locks, CUDA from strata",
        )
    if entry.kind != "dir" and entry.path in {"", "opt"}:
        raise ComposeError(
            f"{name}: OS layer '{layer.title}' has {entry.kind} /{entry.path}, which would erase the payload below it",
            fix="do not remove or replace /opt in images/*/Dockerfile",
        )


def _check_payload_entry(name: str, layer: Layer, entry: Entry) -> None:
    """Refuse an entry of a payload layer that erases, or that lies where only the operating system writes."""
    if entry.kind in {"whiteout", "opaque"} or posixpath.basename(entry.path).startswith(WHITEOUT):
        raise ComposeError(
            f"{name}: payload layer '{printable(layer.title)}' has a whiteout of /{printable(entry.path)}, which would erase files of the layers below it",
            fix="no layer of wheels has one: remove that part where it came from, and build it again",
        )
    if not in_payload(entry.path) and (entry.kind != "dir" or entry.path != "opt"):
        raise ComposeError(
            f"{name}: payload layer '{printable(layer.title)}' has /{printable(entry.path)}, which belongs to the operating system",
            fix="no layer of wheels has that: remove that part where it came from, and build it again",
        )


def _check_alone(name: str, layer: Layer, entry: Entry, brought: dict[str, tuple[Entry, Layer]]) -> None:
    """Refuse a second file or link of one path in the payload: the upper one would be used, unseen."""
    known, other = brought.setdefault(entry.path, (entry, layer))
    if entry.kind == "dir" or known.kind == "dir" or other is layer or _same(known, entry):
        return
    raise IntegrityError(
        f"{name}: '{printable(other.title)}' and '{printable(layer.title)}' both bring /{printable(entry.path)}, with different contents",
        fix="leave one of the packages out of images/*/requirements.in, then run inv lock",
    )


def _same(one: Entry, other: Entry) -> bool:
    """Return whether two entries of one path may both be there: their content is the same.

    Listings from before contents were noted tell nothing, and bytecode, which is made of the files that are compared,
    never does. There what happens in the locks is allowed: links, packages that several CUDA wheels share, and
    bytecode.
    """
    if one.content and other.content:
        return one.content == other.content
    return one.kind == other.kind and (one.kind == "link" or posixpath.basename(one.path) == "__init__.py" or "/__pycache__/" in one.path)


def _kind(is_directory: bool) -> str:  # noqa: FBT001  # reads as a table of two words
    return "a directory" if is_directory else "not a directory"
