"""A distribution's mirror that has dropped packages, and its snapshot archive, which still has them: a stand-in for both.

apt uses it as its proxy (``apt.conf`` says so, and :attr:`Archive.environment` hands that to builds). What apt asks of a mirror is
answered by the true mirror, but that the packages that are dropped have only a newer version there, made from the true one. The
archive answers with what the true mirror has. By hand: ``python -m tests.archive --address 172.17.0.1 --drop less --drop make``.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import http.client
import lzma
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tests.serving import answer, serving

SUFFIX: Final = "+newer1"
"""What the version of a dropped package has become."""

NEWER: Final = "/torchstrata-newer/"
"""Marks the path of a package that was made here."""

LISTS: Final = re.compile(
    r"(?P<dists>/.*dists/(?P<suite>[^/]+(?:/updates)?))/(?P<file>InRelease|Release(?:\.gpg)?|(?P<list>[^/]+/binary-[^/]+/Packages)(?P<kind>\.gz)?)"
)
SNAPSHOT: Final = re.compile(r"/snapshot/(?P<path>.+?)/(?P<moment>\d{8}T\d{6}Z)/(?P<rest>.+)")

KEPT: Final = ("Origin", "Label", "Suite", "Version", "Codename", "Date", "Architectures", "Components", "Description")
"""Fields of a Release file that stay; without ``Valid-Until``, so that the day does not matter."""

CONFIG: Final = """\
Acquire::http::Proxy "http://{address}";
Acquire::AllowInsecureRepositories "true";
APT::Get::AllowUnauthenticated "true";
"""
"""Nobody can sign for the distribution, so that lists which have been changed are not signed."""

SNAPSHOTS: Final = """\
Acquire::Snapshots::URI::Override::Label::Debian "{place}";
Acquire::Snapshots::URI::Override::Label::Debian-Security "{place}";
"""
"""Before what newer versions of apt have built in."""

HOST: Final = """\
Acquire::Snapshots::URI::Host::{host} "{place}";
"""


@dataclass
class Archive:
    """A mirror and an archive that are served while the context lasts.

    :param folder: of the stand-in's own; downloads stay there.
    :param dropped: names of packages of which the mirror has only newer versions.
    :param address: to listen on; containers must reach it too.
    :param hosts: of the mirrors, by which apt finds the archive where a mirror has gone.
    :param has_archive: apt is told of the archive; else that there is none.
    :param is_gone: the archive answers nothing.
    :param is_closed: the mirror has nothing any more.
    """

    folder: Path
    dropped: Sequence[str]
    address: str = "127.0.0.1"
    port: int = 0
    hosts: Sequence[str] = ()
    has_archive: bool = True
    is_gone: bool = False
    is_closed: bool = False
    asked: list[str] = field(default_factory=list)
    """Paths that were asked of the archive."""

    def __post_init__(self) -> None:
        self._mutex, self._hosts, self._turns = threading.Lock(), dict[str, str](), dict[str, threading.Lock]()
        self._lists: dict[str, bytes | None] = {}

    @contextlib.contextmanager
    def serving(self) -> Iterator[Archive]:
        """Serve until the block ends."""
        owner = self

        class ArchiveHandler(_ArchiveHandler):
            archive = owner

        with serving(ArchiveHandler, address=(self.address, self.port)) as port:
            self.port = port
            yield self

    @property
    def config(self) -> str:
        """What an administrator would tell apt: the proxy, that it is believed, and where the archive is."""
        address = f"{self.address}:{self.port}"
        place = f"http://{address}/snapshot/@PATH@/@SNAPSHOTID@/" if self.has_archive else "no"
        return CONFIG.format(address=address) + SNAPSHOTS.format(place=place) + "".join(HOST.format(host=host, place=place) for host in self.hosts)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variable that makes builds use it; its file is written now."""
        file = self.folder / "apt.conf"
        file.write_text(self.config, encoding="utf-8")
        return {"APT_CONFIG": str(file)}

    # What is asked of it

    def answer(self, target: str) -> bytes | None:
        """Return what is at a URI; ``None`` if there is nothing."""
        place = urlsplit(unquote(target))
        if found := SNAPSHOT.fullmatch(place.path):
            self.asked.append(place.path)
            return None if self.is_gone else self.fetched(self._hosts.get(found["path"], ""), f"/{found['path']}/{found['rest']}")
        assert place.hostname, f"{target} is neither of a mirror nor of the archive"
        if listed := LISTS.fullmatch(place.path):
            self._hosts[listed["dists"].strip("/").removesuffix(f"dists/{listed['suite']}").strip("/")] = place.netloc
            return None if self.is_closed else self._of_lists(place.netloc, listed)
        if NEWER in place.path:
            return self._newer(place.netloc, place.path)
        return None if "/dists/" in place.path else self.fetched(place.netloc, place.path)

    def fetched(self, host: str, path: str) -> bytes | None:
        """Return a file of the true mirror; once it was fetched it stays, but for lists."""
        kept = self.folder / "cache" / host / path.lstrip("/")
        with self._turn(str(kept)):
            if kept.exists():
                return kept.read_bytes()
            content = _get(host, path)
            if content is not None and not path.endswith("Release"):
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(content)
            return content

    def _turn(self, name: str) -> threading.Lock:
        with self._mutex:
            return self._turns.setdefault(name, threading.Lock())

    def _of_lists(self, host: str, listed: re.Match[str]) -> bytes | None:
        """Return a list that names newer versions, or the unsigned head of such lists."""
        if listed["file"] in {"InRelease", "Release.gpg"}:
            return None
        if listed["file"] == "Release":
            return self._head(host, listed["dists"])
        plain = self._packages(host, listed["dists"], listed["list"])
        return gzip.compress(plain, 1, mtime=0) if plain is not None and listed["kind"] else plain

    def _head(self, host: str, dists: str) -> bytes | None:
        true = self.fetched(host, f"{dists}/Release")
        if true is None:
            return None
        fields = dict(line.split(": ", 1) for line in true.decode().splitlines() if ": " in line and not line.startswith(" "))
        lines = [f"{name}: {fields[name]}" for name in KEPT if name in fields] + ["SHA256:"]
        for component in fields["Components"].replace("updates/", "").split():
            name = f"{component}/binary-amd64/Packages"
            plain = self._packages(host, dists, name)
            for suffix, content in (("", plain), (".gz", gzip.compress(plain, 1, mtime=0))) if plain is not None else ():
                lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}{suffix}")
        return "\n".join((*lines, "")).encode()

    def _packages(self, host: str, dists: str, name: str) -> bytes | None:
        """Return a list in which each dropped package has a newer version; it is made once."""
        key = f"{host}{dists}/{name}"
        with self._turn(key):
            if key not in self._lists:
                self._lists[key] = self._made(host, dists, name)
            return self._lists[key]

    def _made(self, host: str, dists: str, name: str) -> bytes | None:
        packed = self.fetched(host, f"{dists}/{name}.xz")
        if packed is None:
            return None
        root = dists.partition("/dists/")[0]
        return "\n".join(self._changed(host, root, each) for each in lzma.decompress(packed).decode().split("\n\n") if each.strip()).encode()

    def _changed(self, host: str, root: str, paragraph: str) -> str:
        """Return a paragraph of a list, of the newer version if its package is dropped."""
        name = paragraph.partition("\n")[0].removeprefix("Package: ")
        if name not in self.dropped:
            return f"{paragraph.strip()}\n"
        path = re.search(r"^Filename: (.+)$", paragraph, re.MULTILINE)
        assert path
        made = f"{NEWER.strip('/')}/{path[1]}"
        content = self._newer(host, f"{root}/{made}")
        paragraph = re.sub(r"^(Version: .+)$", rf"\g<1>{SUFFIX}", paragraph, flags=re.MULTILINE)
        for field_, value in (("Filename", made), ("Size", str(len(content))), ("SHA256", hashlib.sha256(content).hexdigest())):
            paragraph = re.sub(rf"^{field_}: .+$", f"{field_}: {value}", paragraph, flags=re.MULTILINE)
        return f"{re.sub(r'^(MD5sum|SHA1|SHA512): .+$', '', paragraph, flags=re.MULTILINE).strip()}\n".replace("\n\n", "\n")

    def _newer(self, host: str, path: str) -> bytes:
        """Return the newer version of a package: the true one, with another version."""
        made = self.folder / "newer" / host / path.lstrip("/")
        with self._turn(str(made)):
            if not made.exists():
                true = self.fetched(host, path.replace(NEWER, "/", 1))
                assert true is not None, f"the mirror has no {path}"
                made.parent.mkdir(parents=True, exist_ok=True)
                _reversioned(true, made)
            return made.read_bytes()


def _reversioned(package: bytes, made: Path) -> None:
    """Write a Debian package with a newer version than ``package`` to ``made``."""
    with tempfile.TemporaryDirectory() as directory:
        old, tree = Path(directory, "old.deb"), Path(directory, "tree")
        old.write_bytes(package)
        subprocess.run(["dpkg-deb", "--raw-extract", old, tree], check=True)
        control = tree / "DEBIAN" / "control"
        control.write_text(re.sub(r"^(Version: .+)$", rf"\g<1>{SUFFIX}", control.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8")
        subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, made], check=True, capture_output=True)


def _get(host: str, path: str) -> bytes | None:
    """Return a file of a mirror, ``None`` if it has none there; redirections are followed."""
    for _ in range(5):
        connection = http.client.HTTPConnection(host, timeout=120)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            content, place = answer.read(), urlsplit(answer.headers.get("Location", ""))
        if answer.status not in {301, 302, 307, 308}:
            return content if answer.status == 200 else None
        host, path = place.netloc, place.path
    return None


class _ArchiveHandler(BaseHTTPRequestHandler):
    archive: Archive

    def do_GET(self) -> None:
        """Answer one question."""
        content = self.archive.answer(self.path)
        with contextlib.suppress(ConnectionError):  # apt ends and leaves answers unread
            answer(self, content or b"", 404 if content is None else 200)


def main() -> None:
    """Serve until Ctrl-C; print the file to name in ``APT_CONFIG``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="its own directory; downloads stay there")
    parser.add_argument("--drop", action="append", default=[], metavar="PACKAGE")
    parser.add_argument("--host", action="append", default=[], help="of a mirror")
    parser.add_argument("--no-archive", action="store_true", help="apt is told that there is no snapshot archive")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    archive = Archive(asked.folder, asked.drop, asked.address, asked.port, asked.host, has_archive=not asked.no_archive)
    with archive.serving(), contextlib.suppress(KeyboardInterrupt):
        print(f"APT_CONFIG={archive.environment['APT_CONFIG']}", flush=True)  # this is what it is started for
        threading.Event().wait()


if __name__ == "__main__":
    main()
