"""BuildKit through buildx: run a bake definition, tell its steps, and read what it exported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from torchstrata import process
from torchstrata.errors import BuildxError, CommandError, EngineError, OsPartError, RegistryError
from torchstrata.host import temporary
from torchstrata.layers import image_tags
from torchstrata.layers.bakefile import Exporter
from torchstrata.layers.contexts import LABEL
from torchstrata.store import tarball
from torchstrata.store.codec import compression, decompressor

ENVIRONMENT: Final = {
    "BUILDX_NO_DEFAULT_LOAD": "1",  # else targets that only others need are exported as images too
    "BUILDX_BAKE_ENTITLEMENTS_FS": "0",  # buildx 0.19 and newer ask before they read contexts outside the working directory
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
}

BAKE: Final = ("docker", "buildx", "bake", "--file", "-", "--progress", "plain")

STEP: Final = re.compile(r"#(\d+) \[(?P<system>\S+)-[a-z0-9-]+ (\S+ )? *\d+/\d+\] (?P<step>(RUN|ADD|COPY) .+)")
"""A step that several targets share appears under any one of their names; only the OS in it means something."""
UNRESOLVED: Final = re.compile(r"^ERROR: .*failed to resolve source metadata for (?P<image>\S+@sha256:[0-9a-f]{64}): (?P<why>.+)$", re.MULTILINE)
"""An image that a build begins with and cannot have."""
DONE: Final = re.compile(r"#(\d+) DONE ([\d.]+)s")


@dataclass
class Steps:
    """Turns buildx's plain progress into one line per finished step of a Dockerfile."""

    on_line: process.LineSink
    _known: dict[str, str] = field(default_factory=dict)

    def __call__(self, line: str) -> None:
        """Take one line of buildx's output."""
        if step := STEP.match(line):
            self._known[step[1]] = f"{step['system']}: {_short(step['step'])}"
        elif (done := DONE.match(line)) and done[1] in self._known:
            self.on_line(f"{self._known.pop(done[1])} ({done[2]} s)")


def _short(step: str) -> str:
    """Return an instruction without its mounts."""
    return " ".join(word for word in step.split() if not word.startswith("--mount="))[:100]


def exporter() -> Exporter:
    """Return how layers can leave the builder that buildx would use.

    :raises BuildxError: docker has no buildx.
    :raises EngineError: no engine answers.
    """
    try:
        process.run("docker", "buildx", "version")
    except CommandError as error:
        raise BuildxError("docker has no buildx", fix="install docker-buildx (Debian, Ubuntu) or docker-buildx-plugin (Docker's packages)") from error
    try:
        driver = re.search(r"^Driver:\s+(\S+)", process.run("docker", "buildx", "inspect"), re.MULTILINE)
        status = process.run("docker", "info", "--format", "{{json .DriverStatus}}")
    except process.Failed as error:
        raise EngineError(f"the builder does not answer: {error.what}", fix="start Docker, or let `nox -s engine` set one up") from error
    classic = driver is not None and driver[1] == "docker" and "io.containerd.snapshotter" not in status
    return "image" if classic else "layout"


def bake(definition: Mapping[str, Any], on_line: process.LineSink) -> None:
    """Build ``definition``; finished steps go to ``on_line``.

    :raises OsPartError: a step failed; names it and quotes the end of its output.
    :raises RegistryError: an OS image cannot be pulled.
    """
    with temporary.directory() as directory:  # buildx writes Dockerfiles into directories of its own, and leaves them when it is killed
        environment = {**ENVIRONMENT, "TMPDIR": str(directory)}
        try:
            process.run(*BAKE, stdin=json.dumps(definition).encode(), env=environment, on_line=Steps(on_line))
        except process.Failed as error:
            raise refusal(error.tail) from error


def refusal(tail: str) -> OsPartError | RegistryError:
    """Return the error for the end of buildx's output."""
    if unresolved := UNRESOLVED.search(tail):
        return image_tags.refusal(unresolved["image"], unresolved["why"].removeprefix(f"{unresolved['image']}: "))
    number = next(iter(re.findall(r"^#(\d+) ERROR", tail, re.MULTILINE)), "")
    output = list(dict.fromkeys(re.findall(rf"^(?:#{number} )?[\d.]+ (.*)", tail, re.MULTILINE)))  # buildx repeats the last ones at its end
    step = next(iter(re.findall(r"^ > \[.*?\] (.+):$", tail, re.MULTILINE)), "")
    failed = next(iter(re.findall(r"^ERROR: (.+)", tail, re.MULTILINE)), "docker buildx bake failed")
    reason = next((line for line in output if line.startswith("E: ")), output[-1] if output else failed)
    advice = "correct images/*/Dockerfile, or try again if a mirror was at fault"
    last = "".join(f"\n     | {line}" for line in (_short(step), *output[-8:]) if line)
    return OsPartError(f"an OS part cannot be built: {reason}", fix=f"{advice}{last}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """One layer of an image that BuildKit exported.

    :param flavour: whose Dockerfile made it.
    :param step: the instruction that made it.
    """

    path: Path
    flavour: str
    step: str

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the layer's tar, whatever its compression."""
        with self.path.open("rb") as blob:
            head = blob.read(4)
            blob.seek(0)
            yield decompressor(blob, compression(head))  # type: ignore[misc]


def exported(layout: Path, flavours: Sequence[str]) -> tuple[Exported, ...]:
    """Return the layers of the image in ``layout``, bottom to top; those below the first of ``flavours`` count to it.

    :param flavours: those whose labels end their layers, parents first.
    :raises OsPartError: a Dockerfile does not end with its label.
    """
    config, paths = _image(layout)
    steps = [entry.get("created_by", "") for entry in config["history"] if not entry.get("empty_layer")]
    made_by = owners(config["history"], flavours)
    return tuple(Exported(path=path, flavour=flavour, step=instruction(step)) for path, flavour, step in zip(paths, made_by, steps, strict=True))


def owners(history: Sequence[Mapping[str, Any]], flavours: Sequence[str]) -> list[str]:
    """Return the flavour of each layer, in the order of ``history``.

    :raises OsPartError: a Dockerfile does not end with its label.
    """
    owner, flavour_of_layers, count = list(flavours), list[str](), 0
    for entry in history:
        count += not entry.get("empty_layer")
        if owner and entry.get("created_by", "").startswith(f"LABEL {LABEL}={owner[0]}"):
            flavour_of_layers += [owner.pop(0)] * count
            count = 0
    if owner or count:
        name = owner[0] if owner else flavours[-1]
        raise OsPartError(f"layers of {name} cannot be told apart", fix=f"end images/{name}/Dockerfile with: LABEL {LABEL}={name}")
    return flavour_of_layers


def instruction(created_by: str) -> str:
    """Return a history entry as the Dockerfile has it, in one line: without shell, arguments and mounts."""
    text = re.sub(r"^RUN (\|\d+ .*?)?/bin/sh -c ", "RUN ", created_by).removesuffix("# buildkit")
    return " ".join(text.split())


def _image(layout: Path) -> tuple[dict[str, Any], list[Path]]:
    """Return the config and the layer files of the only image in an OCI layout or an unpacked ``docker save``."""
    saved = layout / "manifest.json"
    if saved.exists():
        entry = json.loads(saved.read_bytes())[0]
        return json.loads((layout / entry["Config"]).read_bytes()), [layout / name for name in entry["Layers"]]
    manifest = _path(layout, json.loads((layout / "index.json").read_bytes())["manifests"][0])
    config = json.loads(_path(layout, json.loads(manifest.read_bytes())["config"]).read_bytes())
    return config, [_path(layout, layer) for layer in json.loads(manifest.read_bytes())["layers"]]


def _path(layout: Path, descriptor: Mapping[str, str]) -> Path:
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def save(image: str, into: Path) -> None:
    """Unpack ``docker save`` of ``image`` into a directory, and remove the image's name."""
    with process.piped("docker", "save", "--", image) as stream, tarball.reading(stream) as archive:
        tarball.unpack(archive, into)
        stream.read()
    process.run("docker", "image", "rm", "--", image)
