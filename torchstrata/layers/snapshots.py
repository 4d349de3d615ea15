"""The distribution's snapshot archive: its mirrors as they were on any day, for locked versions that they have dropped.

Where it is, apt knows: newer versions have it built in, an administrator can set it, and a ``Release`` file can name
it. The order in which it is looked up is apt's own (``SnapshotServer`` in its ``debmetaindex.cc``). Ordinary lines of
``sources.list`` come out, so that an apt without snapshots can read them.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from torchstrata.locks.os_locks import OsLock

OPTION: Final = "Acquire::Snapshots::URI"
"""apt's option, a scope: ``Host``, ``Label``, ``Origin``, and ``Override::Label``, ``Override::Origin``, which come
before the ``Release`` file."""

NO: Final = "no"
"""What apt's option says where a source has no snapshots."""

FALSE: Final = frozenset({"no", "false", "0", "off", "without", "disable"})
"""What apt takes for no (``StringToBool`` in its ``strutl.cc``)."""

IDENTIFIER: Final = "%Y%m%dT%H%M%SZ"
"""How archives name a moment; what they answer is the last snapshot before it."""

CADENCE: Final = dt.timedelta(hours=12)
"""Archives take more than one snapshot in this time: one of a moment and one this much later miss nothing of then."""

SOURCE: Final = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")
SETTING: Final = re.compile(rf'{OPTION}::(?P<scope>\S.*) "(?P<value>[^"]+)";', re.IGNORECASE)
FIELD: Final = re.compile(r"^(Label|Origin|Snapshots): (.+)$", re.MULTILINE)

Settings = Mapping[str, str]
"""apt's option: template by scope in lower case, such as ``host::mirror.example``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AptSource:
    """A line of ``sources.list``.

    :param options: what stands in brackets.
    """

    uri: str
    suite: str
    components: str
    options: str = ""

    @property
    def place(self) -> SplitResult:
        """The parts of its address; empty ones where that is none: apt finds nothing there either, and says so."""
        try:
            return urlsplit(self.uri)
        except ValueError:
            return urlsplit("")

    def __str__(self) -> str:
        options = f"[{self.options}] " if self.options else ""
        return f"deb {options}{self.uri} {self.suite} {self.components}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """What a mirror's ``Release`` file says of itself; empty where it says nothing."""

    label: str = ""
    origin: str = ""
    snapshots: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what the head of a ``Release`` or ``InRelease`` file says."""
        return cls(**{name.lower(): value.strip() for name, value in FIELD.findall(text)})


def sources(text: str) -> tuple[AptSource, ...]:
    """Return the binary sources of a ``sources.list``."""
    matches = [SOURCE.match(line.strip()) for line in text.splitlines()]
    return tuple(AptSource(**{name: value or "" for name, value in match.groupdict().items()}) for match in matches if match)


def paragraphs(text: str) -> tuple[AptSource, ...]:
    """Return the binary sources of files in deb822 format (sources.list(5)), which Ubuntu has from 24.04 on."""
    fields = [_fields(paragraph) for paragraph in re.split(r"\n\s*\n", text)]
    return tuple(itertools.chain.from_iterable(map(_sources, fields)))


def _fields(paragraph: str) -> Mapping[str, str]:
    lines = "\n".join(line for line in paragraph.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\n[ \t]+", " ", lines)
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in joined.splitlines())}


def _sources(fields: Mapping[str, str]) -> Iterator[AptSource]:
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in FALSE:
        return
    keyring = fields.get("signed-by", "")
    options = f"signed-by={keyring}" if keyring.startswith("/") else ""  # a key itself fits into no line
    for uri, suite in itertools.product(fields.get("uris", "").split(), fields.get("suites", "").split()):
        yield AptSource(uri=uri, suite=suite, components=fields.get("components", ""), options=options)


def settings(dump: str) -> Settings:
    """Return what ``apt-config dump`` says of snapshots; option names have no case."""
    matches = [SETTING.match(line) for line in dump.splitlines()]
    return {match["scope"].lower(): match["value"] for match in matches if match}


def template(source: AptSource, release: Release, templates: Settings) -> str | None:
    """Return the template of the archive of a source, as apt finds it; ``None`` if there is none."""
    for archive_template in (*_of_release(release, templates), *_of_host(source, templates)):
        if archive_template:
            return None if archive_template == NO else archive_template
    return None


def _of_release(release: Release, templates: Settings) -> Iterator[str | None]:
    if not (release.label or release.origin):
        return
    yield templates.get(f"override::label::{release.label}".lower())
    yield templates.get(f"override::origin::{release.origin}".lower())
    yield release.snapshots
    yield templates.get(f"label::{release.label}".lower())
    yield templates.get(f"origin::{release.origin}".lower())


def _of_host(source: AptSource, templates: Settings) -> Iterator[str | None]:
    """Yield what is set for ``a.b.c``, for ``.b.c`` and for ``.c``."""
    host = source.place.hostname or ""
    while host:
        yield templates.get(f"host::{host}")
        dot = host.find(".", 1)
        host = host[dot:] if dot > 0 else ""


def moments(lock: OsLock) -> tuple[str, ...]:
    """Return the identifiers of snapshots that together have all that mirrors had when ``lock`` was solved.

    A lock that tells its day alone was solved between two midnights.
    """
    if lock.moment:
        first = dt.datetime.fromisoformat(lock.moment).astimezone(dt.UTC)
        later = first + CADENCE
    else:
        first = dt.datetime.fromisoformat(f"{lock.date}T00:00:00+00:00")
        later = first + dt.timedelta(days=1)
    return first.strftime(IDENTIFIER), later.strftime(IDENTIFIER)


def archived(source: AptSource, template: str, moment: str) -> AptSource:
    """Return a source as it was at a moment; what was signed then is no longer valid by its date."""
    uri = template.replace("@SNAPSHOTID@", moment).replace("@PATH@", source.place.path.strip("/"))
    options = f"{source.options} check-valid-until=no".strip()
    return AptSource(uri=uri, suite=source.suite, components=source.components, options=options)


def archive(of: Sequence[tuple[AptSource, Release]], lock: OsLock, templates: Settings) -> tuple[AptSource, ...]:
    """Return the sources in the archives of an OS's mirrors at the time of its lock; mirrors without one add none."""
    places = [(source, place) for source, release in of if (place := template(source, release, templates))]
    return tuple(archived(source, place, moment) for moment, (source, place) in itertools.product(moments(lock), places))
