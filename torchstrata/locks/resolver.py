"""The resolver: requirements in, exactly one wheel per package out. It is uv, and looks where pip is told to look."""

from __future__ import annotations

import functools
import http
import json
import os
import re
import sys
import tomllib
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging import tags
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from torchstrata import platforms, process, tls
from torchstrata.errors import LockError
from torchstrata.host import temporary
from torchstrata.locks import pip_config
from torchstrata.locks.lockfile import Pin
from torchstrata.text import printable

GLIBC: Final = 28
"""Minor version of the glibc 2 that wheels may need: the floor of torch 2.7 and newer, below every OS of the matrix."""

UNSOLVABLE: Final = "uv finds no solution"
NONE: Final = "No solution found"
"""How this program and uv say so."""

ONE_LINE: Final = {"COLUMNS": "10000"}
"""A terminal so wide that uv breaks no line: what it says is searched for addresses."""

HOW: Final = re.compile(r"UV_(?:CACHE_DIR|NO_CACHE|OFFLINE|HTTP_.*|CONCURRENT_.*|NATIVE_TLS|SYSTEM_CERTS)")
"""Variables of uv's that say how it asks. What it answers is not theirs to decide: they are set for other work, such as
``UV_DEFAULT_INDEX`` for this program's own packages, and would let a lock depend on who made it."""

ABSENT: Final = re.compile(r"\b(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*) was not found in the package registry")
"""How uv names a package that no index has."""

UNFETCHED: Final = re.compile(r"Failed to fetch: `?(?P<url>[^\s`]+)")
"""How uv names a place that it could not ask."""


def version() -> str:
    """Return the version of the resolver."""
    return metadata.version("uv")


@functools.cache
def program() -> str:
    """Return the path of uv. Call it once before threads do: what it asks of ``sysconfig`` is not safe in threads."""
    import uv  # noqa: PLC0415  # only locking needs it

    return uv.find_uv_bin()


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolverTarget:
    """What to resolve for.

    :param python: minor version, such as ``3.13``.
    :param platform: such as ``linux/amd64``.
    :param exclude_newer: RFC 3339 time; files uploaded later are not seen, nor files whose index does not tell.
    :param undated: packages for which that does not hold: they are pinned, and PyTorch's own index tells no times.
    """

    python: str
    platform: str
    exclude_newer: str
    undated: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedIndex:
    """An index for some packages alone, and for these instead of where pip is configured to look.

    Any other name that it has, whatever the version, is not seen: nobody who can write to it can put a package of
    that name into a lock.

    :param index: address of an index (PEP 503).
    :param packages: normalised names; those among the requirements come from there.
    """

    index: str
    packages: tuple[str, ...]


class UnreachableError(LockError):
    """A place that has wheels cannot be asked."""


def resolve(
    requirements: Sequence[str], constraints: Sequence[Pin], target: ResolverTarget, *, alone: bool = False, upstream: NamedIndex | None = None
) -> tuple[Pin, ...]:
    """Return the newest set of wheels that fulfils ``requirements`` on ``target``, sorted by name.

    :param constraints: pins that must be kept where their package is needed.
    :param alone: leave out what they need themselves.
    :param upstream: an index for some of the packages.
    :raises LockError: there is no such set; quotes the resolver.
    :raises UnreachableError: a place that must be asked does not answer; names it.
    """
    with temporary.directory() as folder:
        constraint, project = Path(folder, "constraints.txt"), Path(folder, "pyproject.toml")
        constraint.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in constraints))
        project.write_text(_project(requirements, target, upstream))
        options = (*_options(target), *(["--no-deps"] if alone else []), *sources(pip_config.read()))
        text = _uv(*options, "--constraints", str(constraint), project.name, folder=Path(folder))
    ranks = {tag: rank for rank, tag in enumerate(supported(target.python, target.platform))}
    return tuple(sorted((_pin(package, ranks) for package in tomllib.loads(text)["packages"]), key=lambda pin: pin.name))


def _project(requirements: Sequence[str], target: ResolverTarget, upstream: NamedIndex | None) -> str:
    """Return a ``pyproject.toml`` that asks for the requirements; only there can uv get an index for some packages."""
    wanted = {canonicalize_name(Requirement(line).name) for line in requirements}
    special = [name for name in upstream.packages if name in wanted] if upstream else []
    lines = [
        "[project]",
        'name = "locked"',
        'version = "0"',
        f'requires-python = "=={target.python}.*"',
        f"dependencies = {json.dumps(list(requirements))}",
        "[tool.uv.sources]",
        *(f'{name} = {{index = "upstream"}}' for name in special),
        *(["[[tool.uv.index]]", 'name = "upstream"', f"url = {json.dumps(upstream.index)}", "explicit = true"] if upstream else []),
    ]
    return "\n".join(lines) + "\n"


def _uv(*options: str, folder: Path) -> str:
    """Return what uv makes of a project's requirements: a ``pylock.toml`` (PEP 751)."""
    config = pip_config.read()
    try:
        return process.run(program(), "pip", "compile", *options, cwd=folder, env=environment(config))
    except process.Failed as error:
        raise _refused(error.tail, config) or failure(error.tail, fix="loosen images/*/requirements.in, or correct the row of matrix.yaml") from error


def _refused(tail: str, config: pip_config.PipConfig) -> UnreachableError | None:
    """Return that an index wants credentials; uv takes such a one for one that has nothing."""
    lacking = ABSENT.search(tail)
    for url in (config.index_url or "", *config.extra_index_urls) if lacking else ():
        place = f"{url.rstrip('/')}/{lacking['name']}/" if lacking else ""
        if urllib.parse.urlsplit(place).scheme in {"http", "https"} and _status(place, config) == http.HTTPStatus.UNAUTHORIZED:
            return UnreachableError(f"{_shown(place)} wants credentials, or other ones", fix="check them, in the index URL or in netrc")
    return None


def _status(url: str, config: pip_config.PipConfig) -> int:
    """Return the status that an index answers with; 0 where it does not answer."""
    import requests  # noqa: PLC0415  # hardly anybody needs it

    try:
        with requests.get(url, stream=True, timeout=config.timeout, verify=config.cert or True, cert=config.client_cert) as answer:
            return answer.status_code
    except OSError:  # as those of requests are
        return 0


def _shown(url: str) -> str:
    """Return an address without credentials."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def environment(config: pip_config.PipConfig) -> dict[str, str | None]:
    """Return the variables of uv: pip's certificates, and nothing that would decide what it answers."""
    others = [name for name in os.environ if name.startswith("UV_") and not HOW.fullmatch(name)]
    bundle = config.cert or tls.bundle() or ""
    trust = {"SSL_CERT_DIR" if Path(bundle).is_dir() else "SSL_CERT_FILE": bundle} if bundle else {}
    own = {"SSL_CLIENT_CERT": config.client_cert} if config.client_cert else {}
    return {**dict.fromkeys(others), **ONE_LINE, **trust, **own}


def failure(tail: str, *, fix: str) -> LockError:
    """Return what uv's last words mean: a place that does not answer, shown without credentials, no solution, or a fault of another kind.

    :param fix: what makes a solution possible.
    """
    place = UNFETCHED.search(tail)
    if place is None and NONE not in tail:
        return LockError(f"uv fails: {reason(tail)}", fix="correct what it names")
    if place is None:
        return LockError(f"{UNSOLVABLE}: {reason(tail)}", fix=fix)
    shown = _shown(place["url"])
    why = tail.strip().rpartition("\n")[2].partition(":")[2].strip()
    return UnreachableError(f"{shown} does not answer: {why}", fix="check network and proxy, or point pip to a mirror of it (extra-index-url)")


def _options(target: ResolverTarget) -> list[str]:
    """Return uv's options for a target; its configuration files are left out: nothing else decides the answer."""
    machine = platforms.MACHINES[target.platform]
    return [
        *("--format", "pylock.toml", "--quiet", "--no-header", "--no-config", "--only-binary", ":all:"),
        *("--python", sys.executable),  # else uv looks for that Python, for seconds, where there are many
        *("--python-version", target.python, "--python-platform", f"{machine}-manylinux_2_{GLIBC}", f"--exclude-newer={target.exclude_newer}"),
        *(f"--exclude-newer-package={name}=false" for name in target.undated),
    ]


def supported(python: str, platform: str) -> Iterator[tags.Tag]:
    """Yield the wheel tags that ``python`` on ``platform`` accepts, best first."""
    major, minor = (int(part) for part in python.split("."))
    interpreter = f"cp{major}{minor}"
    accepted = list(_platforms(platforms.MACHINES[platform]))
    yield from tags.cpython_tags((major, minor), abis=[interpreter], platforms=accepted)
    yield from tags.compatible_tags((major, minor), interpreter, accepted)


def fits(filename: str, python: str, platform: str) -> bool:
    """Say whether the wheel can be installed on ``python`` and ``platform``."""
    return not _accepted(python, platform).isdisjoint(parse_wheel_filename(filename)[3])


@functools.cache
def _accepted(python: str, platform: str) -> frozenset[tags.Tag]:
    return frozenset(supported(python, platform))


def _platforms(machine: str) -> Iterator[str]:
    """Yield platform tags, newest glibc first (PEP 600 and the names before it)."""
    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    for minor in range(GLIBC, 4, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in legacy:
            yield f"{legacy[minor]}_{machine}"
    yield f"linux_{machine}"


def sources(config: pip_config.PipConfig) -> list[str]:
    """Return uv's options for the places where pip looks; as with pip, the best version wins wherever it lies.

    A directory of find-links that does not exist has nothing, as with pip, and one is meant from where people are.
    """
    return [
        *("--index-strategy", "unsafe-best-match"),
        *(["--no-index"] if config.no_index else []),
        *([f"--default-index={config.index_url}"] if config.index_url else []),
        *(f"--index={url}" for url in config.extra_index_urls),
        *(f"--find-links={place}" for place in map(_located, config.find_links) if "://" in place or os.path.exists(place)),  # noqa: PTH110  # false for names that cannot be
        *(f"--allow-insecure-host={host}" for host in config.trusted_hosts),
    ]


def _located(place: str) -> str:
    """Return a place of find-links, as uv finds it from its own directory."""
    return place if "://" in place else str(Path(os.path.expanduser(place)).absolute())  # noqa: PTH111  # which fails for users that do not exist


def _pin(package: Mapping[str, Any], ranks: Mapping[tags.Tag, int]) -> Pin:
    rated = [(rank, wheel) for wheel in package.get("wheels", ()) if (rank := _rank(_filename(wheel), ranks)) is not None]
    if not rated:
        raise LockError(f"{package['name']} {package['version']} has no wheel for this Python and platform", fix="constrain it in images/*/requirements.in")
    wheel = min(rated, key=lambda pair: pair[0])[1]
    return Pin(
        name=canonicalize_name(package["name"]),
        version=package["version"],
        filename=_filename(wheel),
        sha256=_sha256(wheel),
        size=wheel.get("size") or _size(wheel["url"]),
    )


def _sha256(wheel: Mapping[str, Any]) -> str:
    sha256: str | None = wheel.get("hashes", {}).get("sha256")
    if sha256 is None:
        raise LockError(f"the index tells no SHA-256 of {_filename(wheel)}", fix="point pip to an index that does (index-url, extra-index-url)")
    return sha256


def _filename(wheel: Mapping[str, Any]) -> str:
    place = wheel.get("name") or urllib.parse.unquote(urllib.parse.urlsplit(wheel["url"]).path)
    return Path(place).name


def _rank(filename: str, ranks: Mapping[tags.Tag, int]) -> int | None:
    """Return the place of the best of the wheel's tags, 0 for the best there is; ``None`` if it does not fit."""
    return min((ranks[tag] for tag in parse_wheel_filename(filename)[3] if tag in ranks), default=None)


def _size(url: str) -> int:
    """Return the size of a file whose index does not tell it: find-links, and PyTorch's own index."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        return Path(urllib.parse.unquote(parts.path)).stat().st_size
    import requests  # noqa: PLC0415  # only that index needs it

    config = pip_config.read()
    try:
        answer = requests.head(url, allow_redirects=True, timeout=config.timeout, verify=config.cert or True, cert=config.client_cert)
        answer.raise_for_status()
        size = answer.headers["Content-Length"]
        if not size.isdecimal() or not size.isascii():
            raise ValueError(f"the index says {size}")
        return int(size)
    except (OSError, KeyError, ValueError) as error:  # those of requests are OSErrors, as is a missing file of certificates
        what = printable(f"the size of {_filename({'url': url})} cannot be found: {error}", 400)
        raise LockError(what, fix="check the network, and pip's cert and proxy, then try again; the index must answer HEAD requests") from error


def reason(tail: str) -> str:
    """Return what uv says, on one line."""
    words = " ".join(re.sub(r"[^\x20-\x7e]+", " ", tail).split())
    return words.partition("resolving dependencies: ")[2] or words
