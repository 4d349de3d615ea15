"""The files that make a container's difference an image: requirements, files, a Dockerfile. Planning them is pure.

Packages of the image's environment are installed again from where they come from. What is on no index or elsewhere,
and files that were edited, are taken out of the container, with owner and rights. The code of an editable
installation and whole environments cannot be had that way, and are named.
"""

from __future__ import annotations

import io
import itertools
import re
import shlex
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torchstrata.drift import contents
from torchstrata.drift.comparison import TORCH, Drift
from torchstrata.drift.contents import VENV, InstalledWheel
from torchstrata.drift.reading import ContainerFiles, Drifted
from torchstrata.errors import FreezeError
from torchstrata.text import printable

WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~:-]*")
"""Names and versions of packages that are one word to pip and apt, and no option."""

SECRET: Final = re.compile(r"/etc/(?:g?shadow|ssh/ssh_host_\w+_key)")
"""Files of passwords and private keys: everybody who has an image can read them."""

STRANGE: Final = "it is called what no line of a Dockerfile may hold; give it another name, or remove it"
"""Why what has such a name or version is not frozen."""

REQUIREMENTS: Final = "requirements.txt"
DOCKERFILE: Final = "Dockerfile"
FILES: Final = "files.tar"
OWNER: Final = "1000:0"
"""Who owns the environment of an image, whoever its containers start as."""

SETTINGS: Final = "RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf,mode=0444 --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt"
"""pip's settings of the machine that builds are a secret: an index with a password is in no layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenPlan:
    """What goes into the files.

    :param base: of the Dockerfile: the image by digest, or by what else names it.
    :param requirements: lines for pip.
    :param uninstalled: Python packages that go.
    :param packages: words for ``apt-get install``; a minus at the end removes.
    :param taken: paths that are copied out of the container.
    :param deleted: paths that go.
    :param open_: what cannot be frozen, in words.
    :param user: of the image.
    """

    base: str
    requirements: tuple[str, ...] = ()
    uninstalled: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    open_: tuple[str, ...] = ()
    user: str = OWNER


def plan(drifted: Drifted) -> FrozenPlan:
    """Return what makes a difference permanent."""
    strange = [drift for drift in drifted.drifts if not _is_writable(drift, drifted.wheels)]
    drifted = replace(drifted, drifts=tuple(drift for drift in drifted.drifts if drift not in strange))
    differing = {(drift.place, drift.name): drift for drift in drifted.drifts if drift.kind in {"wheel", "torch"}}
    fresh = [wheel for wheel in drifted.wheels if (wheel.place, wheel.name) in differing and not wheel.editable]
    copied = [wheel for wheel in fresh if _is_copied(wheel)]
    staying = {(wheel.place, wheel.name) for wheel in drifted.wheels if wheel not in copied}
    files = [drift for drift in drifted.drifts if drift.kind == "file"]
    written = {drift.name for drift in files if drift.change != "removed" and not SECRET.fullmatch(drift.name)}
    directories = drifted.made.intersection(itertools.chain.from_iterable(map(contents.above, written)))
    taken = written.union(directories, *(_files_of(wheel, drifted) for wheel in copied))
    why_not = [*(f"{drift.name}: {STRANGE}" for drift in strange), *(_why_not(drift, drifted.wheels) for drift in drifted.drifts)]
    return FrozenPlan(
        base=base_of(drifted),
        requirements=tuple(sorted(_requirement(wheel) for wheel in fresh if wheel not in copied)),
        uninstalled=tuple(drift.name for key, drift in differing.items() if drift.was and key not in staying and _is_of_venv(drift.place)),
        packages=tuple(f"{drift.name}={drift.now}" if drift.now else f"{drift.name}-" for drift in drifted.drifts if drift.kind == "package"),
        taken=tuple(sorted(taken)),
        deleted=tuple(drift.name for drift in files if drift.change == "removed"),
        open_=tuple(printable(why) for why in why_not if why),
        user=drifted.container.user or "0:0",
    )


def _is_writable(drift: Drift, wheels: Sequence[InstalledWheel]) -> bool:
    """Return whether a difference fits into a line of a Dockerfile or of requirements, without line ends or dashes."""
    sources = [wheel.source for wheel in wheels if (wheel.place, wheel.name) == (drift.place, drift.name)]
    is_plain = all(word.isprintable() for word in (drift.name, drift.now, *sources))
    return is_plain and (drift.kind in {"file", "environment"} or bool(WORD.fullmatch(drift.name) and WORD.fullmatch(drift.now or drift.was)))


def _is_copied(wheel: InstalledWheel) -> bool:
    """Return whether a package's files are taken as they are: it is on no index, or not in the image's environment."""
    return wheel.source.startswith("file:") or not _is_of_venv(wheel.place)


def _is_of_venv(place: str) -> bool:
    return place.startswith(f"{VENV}/")


def base_of(drifted: Drifted) -> str:
    """Return the image by a digest, its own repository's first; else by its name."""
    repository = re.sub(r"(@.*|:[^/:]*)$", "", drifted.container.named)
    digests = sorted(drifted.container.digests, key=lambda digest: (digest.partition("@")[0] != repository, digest))
    return digests[0] if digests else drifted.container.named


def _requirement(wheel: InstalledWheel) -> str:
    return f"{wheel.name} @ {wheel.source}" if wheel.source else f"{wheel.name}=={wheel.version}"


def _files_of(wheel: InstalledWheel, drifted: Drifted) -> Iterable[str]:
    """Return what a package that is on no index consists of, without bytecode."""
    return (path for path, owner in drifted.records.items() if owner == f"wheel {wheel.name}" and not path.endswith(".pyc"))


def _why_not(drift: Drift, wheels: Sequence[InstalledWheel]) -> str:
    """Return why a difference cannot be frozen, empty if it can."""
    wheel = next((wheel for wheel in wheels if (wheel.place, wheel.name) == (drift.place, drift.name)), None)
    if wheel and wheel.editable:
        return f"{drift.name}: its code is at {wheel.source}; install it without --editable, or publish it"
    if drift.kind == "file" and drift.change != "removed" and SECRET.fullmatch(drift.name):
        return f"{drift.name}: it has passwords or a private key, which belong in no image; write it when a container starts"
    if drift.kind == "environment":
        return f"{drift.name}: export it with its own tool (conda env export), and make it in a Dockerfile"
    return ""


def dockerfile(made: FrozenPlan) -> str:
    """Return the Dockerfile."""
    lines = [
        "# What a container differs in from its image, found by `inv drift --freeze`.",
        *(f"# Not here: {why}" for why in made.open_),
        "# docker build --secret id=pip.conf,src=$HOME/.config/pip/pip.conf . (the secret only where pip's index needs settings)",
        "# An image that no registry has: --build-arg BASE=its name here.",
        f"ARG BASE={made.base}",
        "FROM ${BASE}",
        *_apt(made.packages),
        f"USER {OWNER}",
        *([f"RUN pip uninstall -y {shlex.join(made.uninstalled)}"] if made.uninstalled else []),
        *([_install(made.requirements)] if made.requirements else []),
        "USER 0:0",
        *([f"ADD {FILES} /"] if made.taken else []),
        *([f"RUN rm -rf -- {shlex.join(made.deleted)}"] if made.deleted else []),
        f"USER {made.user}",
    ]
    return "\n".join(lines) + "\n"


def _apt(packages: Sequence[str]) -> list[str]:
    if not packages:
        return []
    install = f"apt-get install -y --no-install-recommends --allow-downgrades --allow-remove-essential --purge {shlex.join(packages)}"
    return ["USER 0:0", f"RUN apt-get update && {install} && rm -rf /var/lib/apt/lists/*"]


def _install(requirements: Sequence[str]) -> str:
    """Return the step that installs; it drops the constraint that holds torch where torch itself differs."""
    free = "env -u PIP_CONSTRAINT " if any(TORCH.fullmatch(re.split(r"[ =]", requirement)[0]) for requirement in requirements) else ""
    return f"{SETTINGS} \\\n    {free}pip install --no-cache-dir --no-deps -r /tmp/requirements.txt"


def write(made: FrozenPlan, files: ContainerFiles, directory: Path) -> tuple[Path, ...]:
    """Write the files, all or none, into a directory that has nothing else; return them.

    :raises FreezeError: it cannot be written, or something is there.
    """
    try:
        if directory.exists() and any(directory.iterdir()):
            raise FreezeError(f"{directory} is not empty", fix="name a directory that is new: a build takes all that is in it")
        documents = {DOCKERFILE: dockerfile(made).encode(), REQUIREMENTS: "".join(f"{line}\n" for line in made.requirements).encode()}
        if made.taken:
            documents[FILES] = _packed(made.taken, files)
        _put(directory, documents)
    except OSError as error:
        raise FreezeError(f"{directory} cannot be written: {error.strerror}", fix="name another directory") from error
    return tuple(directory / name for name in documents)


def _put(directory: Path, documents: Mapping[str, bytes]) -> None:
    """Write files into a directory, which goes again if it was not there and they cannot all be written, or after Ctrl-C."""
    was_there = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in documents.items():
            (directory / name).write_bytes(content)
    except BaseException:
        for name in documents:
            (directory / name).unlink(missing_ok=True)
        if not was_there and directory.exists():
            directory.rmdir()
        raise


XATTR: Final = "SCHILY.xattr."
"""What only a header's records say. Names and times there are those of the engine's archive, and would beat the head's own."""


def _packed(paths: Sequence[str], files: ContainerFiles) -> bytes:
    """Return an archive of files and links of a container, with owner and rights, without a time."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, member, content in sorted(files.members(paths), key=lambda item: item[0]):
            member.name, member.mtime = path.lstrip("/"), 0
            member.pax_headers = {name: value for name, value in member.pax_headers.items() if name.startswith(XATTR)}
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return packed.getvalue()
