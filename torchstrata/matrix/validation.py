"""What makes a matrix impossible: each problem has a line of its own, which names the choices."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from torchstrata.errors import MatrixError, PlatformError
from torchstrata.matrix import compat, schema
from torchstrata.platforms import PLATFORM

DEFAULTS: Final[Mapping[str, str]] = {"os": "cuda", "cuda": "torch"}
"""What a template that names the key must name too: without the torch, nobody knows which CUDA is its default."""


def check(raw: schema.MatrixFile, flavours: Collection[str]) -> None:
    """Refuse what cannot work.

    :param flavours: names of all flavours.
    :raises MatrixError: the first thing that is wrong.
    """
    for name, system in raw.systems.items():
        _check_origin(name, system)
    for row in raw.rows:
        _check_row(row, raw.systems)
    _check_duplicates(raw.rows)
    _check_defaults(raw.rows)
    _check_builds(raw.rows)
    _check_channels(raw.channels)
    if raw.all_in_one not in flavours:
        raise MatrixError(f"all_in_one: unknown flavour {raw.all_in_one}", fix=f"use one of {', '.join(flavours)}")


def companions(row: schema.Row) -> tuple[str, ...]:
    """Return the pins of what the row installs beside torch: what it names, else torchvision and torchaudio.

    :raises MatrixError: it names one that does not exist for that torch.
    """
    known = compat.companions(row.torch, row.cuda)
    if row.companions is None:
        return tuple(f"{name}=={version}" for name, version in known.items() if version)
    return tuple(_companion(row, asked, known) for asked in row.companions)


def _companion(row: schema.Row, asked: str, known: Mapping[str, str | None]) -> str:
    name, _, version = asked.partition("==")
    have = known[name]
    if have is None:
        note = compat.torch(row.torch).torchaudio_note
        raise MatrixError(f"row {row.short}: there is no {name} for torch {row.torch}: {note}", fix=f"leave {name} out of its companions")
    if version not in {"", have}:
        raise MatrixError(f"row {row.short}: there is no {name} {version} for torch {row.torch}", fix=f"write {name}, or {name}=={have}")
    return f"{name}=={have}"


def _check_origin(name: str, system: schema.SystemSettings) -> None:
    if bool(system.bootstrap) == bool(system.image):
        raise MatrixError(
            f"system {name} must have a bootstrap or an image, and not both", fix="write bootstrap: mmdebstrap, or image: and a registry reference"
        )


def _check_row(row: schema.Row, systems: Mapping[str, schema.SystemSettings]) -> None:
    compat.build(row.torch, row.cuda)
    _check_platforms(row)
    _check_serves(row)
    companions(row)
    for name in row.os:
        if name not in systems:
            raise MatrixError(f"row {row.short}: unknown OS {name}", fix=f"use one of {', '.join(systems)}")
        _check_system(row, name, systems[name])


def _check_platforms(row: schema.Row) -> None:
    """Refuse platforms without wheels, and a row without the default one, which every list of cells begins with.

    :raises PlatformError: there are no such wheels.
    """
    if row.platforms[0] != PLATFORM:
        raise MatrixError(f"row {row.short}: platforms {', '.join(row.platforms)} do not begin with {PLATFORM}", fix=f"begin with {PLATFORM}")
    if len(set(row.platforms)) < len(row.platforms):
        raise MatrixError(f"row {row.short}: platforms {', '.join(row.platforms)} name one twice", fix="name each once")
    known = compat.platforms(row.torch, row.cuda)
    for platform in row.platforms:
        if platform not in known:
            what = f"row {row.short}: the facts know no wheels of torch {row.torch} {row.cuda} for {platform}"
            raise PlatformError(what, fix=f"take {platform} out of the row's platforms, or, if upstream has them, add `elsewhere` to {compat.FACTS.name}")


def not_offered(torch: str, wheels: str, short: str, platform: str) -> PlatformError:
    """Return why a row has no images for a platform, and what gives it some."""
    if platform in compat.platforms(torch, wheels):
        return PlatformError(f"{short} is not offered on {platform}", fix=f"add it to the row in matrix.yaml: platforms: [{PLATFORM}, {platform}]")
    return PlatformError(
        f"{short} cannot be offered on {platform}: the facts know no wheels of torch {torch} {wheels} for it",
        fix="choose a row that `platforms` of matrix.yaml offers on it (docs/arm64.md)",
    )


def _check_serves(row: schema.Row) -> None:
    if row.serves is None:
        return
    if row.serves in compat.torch(row.torch).builds:
        raise MatrixError(f"row {row.short}: upstream has a {row.serves} build of torch {row.torch}", fix=f"write cuda: {row.serves}, without serves")
    if not compat.serves(row.cuda, row.serves):
        raise MatrixError(
            f"row {row.short}: {row.cuda} wheels cannot serve {row.serves}: minor-version compatibility ends at the CUDA major",
            fix=f"use one of {', '.join(_same_major(row)) or 'a build that serves it, of another torch'}",
        )


def _same_major(row: schema.Row) -> list[str]:
    return [name for name in compat.torch(row.torch).builds if compat.serves(name, row.serves or row.cuda)]


def _check_system(row: schema.Row, name: str, system: schema.SystemSettings) -> None:
    release = compat.torch(row.torch)
    pythons = compat.build(row.torch, row.cuda).pythons or release.pythons
    if system.python not in pythons:
        raise MatrixError(
            f"row {row.short}: {name} has Python {system.python}, and torch {release.version} has wheels for {', '.join(pythons)}",
            fix=f"take {name} out of the row's os",
        )
    if not compat.at_least(system.glibc, release.glibc):
        raise MatrixError(
            f"row {row.short}: {name} has glibc {system.glibc}, and torch {release.version} needs {release.glibc}", fix=f"take {name} out of the row's os"
        )
    compat.host_compiler(system.compilers, compat.nvcc(row.torch, row.cuda))


def _check_duplicates(rows: Iterable[schema.Row]) -> None:
    counts = Counter(itertools.chain.from_iterable([f"{row.short}-{name}" for name in row.os] for row in rows))
    for cell, count in counts.items():
        if count > 1:
            raise MatrixError(f"cell {cell} is there {count} times", fix="remove all but one")


def _check_defaults(rows: Iterable[schema.Row]) -> None:
    """Refuse a torch that has no row, or more than one, for its ``v<torch>`` to name."""
    defaults: dict[str, list[str]] = {}
    for row in rows:
        defaults.setdefault(row.torch, []).extend([row.short] if row.default else [])
    for torch, shorts in defaults.items():
        if len(shorts) != 1:
            raise MatrixError(f"v{torch} names {' and '.join(shorts) or 'no row'}", fix=f"write default: true in exactly one row of torch {torch}")


def _check_builds(rows: Iterable[schema.Row]) -> None:
    """Refuse rows that share a build, and so its locks, with different companions."""
    firsts: dict[tuple[str, str], schema.Row] = {}
    for row in rows:
        first = firsts.setdefault((row.torch, row.cuda), row)
        if companions(first) != companions(row):
            raise MatrixError(f"rows {first.short} and {row.short} share the locks of one build with different companions", fix="give both the same companions")


def ancestry(name: str, above: Mapping[str, str | None], kind: str, relation: str, key: str) -> tuple[str, ...]:
    """Return ``name``, what is above it, and so on; refuse what is unknown and what goes round.

    :param kind: what the names are.
    :param relation: what the one above is called.
    :param key: what it is called in the file.
    :raises MatrixError: something is unknown, or goes round.
    """
    line = [name]
    while (upper := above[line[-1]]) is not None:
        if upper not in above:
            others = [other for other in above if line[-1] not in _lineage(other, above)]
            raise MatrixError(f"{kind} {line[-1]}: unknown {relation} {upper}", fix=f"use one of {', '.join(others)}")
        if upper in line:
            raise MatrixError(f"{kind}s {' <- '.join([*line, upper])} go round in a circle", fix=f"give one of them another {key}, or none if it is the first")
        line.append(upper)
    return tuple(line)


def _lineage(name: str | None, above: Mapping[str, str | None]) -> set[str]:
    """Return ``name`` and what is above it, as far as that is known and goes round once."""
    line = set[str]()
    while name is not None and name not in line:
        line.add(name)
        name = above.get(name)
    return line


def _check_channels(channels: Mapping[str, schema.ChannelSettings]) -> None:
    """Refuse channels that images cannot reach, and tags that two of them would move."""
    entries = [name for name, channel in channels.items() if channel.source is None]
    if channels and len(entries) != 1:
        raise MatrixError(f"{' and '.join(entries) or 'no channel'} may take new images", fix="leave `from` out of exactly one channel")
    for name, channel in channels.items():
        ancestry(name, {other_name: other.source for other_name, other in channels.items()}, "channel", "channel", "from")
        if (channel.soak is None) != (channel.source is None):
            raise MatrixError(f"channel {name} needs both from and soak, or neither", fix='write from: nightly, soak: "24 h"')
        for template in channel.tags:
            _check_template(name, template)
    for template, count in Counter(itertools.chain.from_iterable(channel.tags for channel in channels.values())).items():
        if count > 1:
            raise MatrixError(f"tag {template} is there {count} times", fix="let one channel move it")


def _check_template(channel: str, template: str) -> None:
    """Refuse a template that gives no valid tag, or does not say which image is meant."""
    named = re.findall(r"{([^}]*)}", template)
    for key in named:
        if key not in {"torch", "cuda", "os", "flavour"}:
            raise MatrixError(f"channel {channel}: {template} has an unknown {{{key}}}", fix="use {torch}, {cuda}, {os} and {flavour}")
        if DEFAULTS.get(key, key) not in named:
            raise MatrixError(f"channel {channel}: {template} has {{{key}}} without {{{DEFAULTS[key]}}}", fix="name both, or neither")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}", re.sub(r"{[^}]*}", "x", template)):
        raise MatrixError(f"channel {channel}: {template} makes no tag", fix="use letters, digits and . _ - beside the names in braces")
    if "flavour" not in named and "cuda" in named:
        raise MatrixError(
            f"channel {channel}: {template} has {{cuda}} without {{flavour}}", fix="only the default row of a torch has an all-in-one image: name the flavour"
        )
