"""A registry that answers anything: one behaviour for each attack, on loopback; and what a client does when it meets it.

Run as a program (``python -m tests.hostile``) it makes clients, with as much memory as one may have: see :func:`serve`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.server
import itertools
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import zstandard

from tests import serving
from tests.waiting import PATIENCE
from torchstrata.commands import cli
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.image.oci import INDEX
from torchstrata.registry import replica
from torchstrata.registry.parts import LISTINGS, PART_CONFIG, PartRepository, unchecked
from torchstrata.registry.patience import Patience
from torchstrata.registry.registry import Registry
from torchstrata.registry.upload import Source
from torchstrata.store.store import Store

MEMORY: Final = 1_500_000_000
"""Bytes of address space that the client may have; what it needs for itself is a third of that."""

QUICK: Final = {"tries": 3, "first": 0.01, "longest": 0.02, "connect": 5.0, "answer": 1.0, "read": 1.0, "whole": 5.0, "greeting": 5.0}

IDENTITY: Final = "1" * 64
OTHER: Final = f"sha256:{'0' * 64}"
TEN: Final = b"ten bytes."

Handler = http.server.BaseHTTPRequestHandler
Behaviour = Callable[[Handler], None]


def patience(*, quick: bool = False) -> Patience:
    """Return one that waits as long as a busy machine needs, or gives up within seconds."""
    known = {each.name for each in dataclasses.fields(Patience)}
    asked = {**QUICK, **({} if quick else {"connect": PATIENCE, "answer": PATIENCE, "read": PATIENCE, "whole": PATIENCE, "greeting": PATIENCE})}
    return Patience(**{name: value for name, value in asked.items() if name in known})


@contextlib.contextmanager
def registry(behave: Behaviour) -> Iterator[tuple[str, list[tuple[str, str, dict[str, str]]]]]:
    """Run a server that greets like a registry, and behaves as it is told to; yield its host, and what it is asked."""
    asked: list[tuple[str, str, dict[str, str]]] = []

    class Hostile(Handler):
        def handle_any(self) -> None:
            asked.append((self.command, self.path, dict(self.headers)))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self) if self.path == "/v2/" else behave(self)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    with serving.serving(Hostile) as port:
        yield f"127.0.0.1:{port}", asked


# Behaviours


def answer(handler: Handler, body: object = b"", status: int = 200, **headers: str) -> None:
    """Answer as one does."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    serving.answer(handler, content, status, {name.replace("_", "-"): value for name, value in headers.items()})


def says(body: object = b"", status: int = 200, **headers: str) -> Behaviour:
    """Answer everything alike."""
    return lambda handler: answer(handler, body, status, **headers)


def raw(*pieces: bytes, again: bytes = b"", pause: float = 0.0) -> Behaviour:
    """Write bytes as they are, the last ones for ever."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        for piece in itertools.chain(pieces, itertools.repeat(again) if again else ()):
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause)

    return behave


HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def holding(documents: Mapping[str, bytes], media_types: Mapping[str, str] | None = None, **more: str) -> Behaviour:
    """Have manifests and blobs by name, and nothing else."""

    def behave(handler: Handler) -> None:
        name = handler.path.rpartition("/")[2].partition("?")[0]
        if name not in documents or "/referrers/" in handler.path:
            return answer(handler, {"errors": [{"code": "NOT_FOUND", "message": "there is none"}]}, 404)
        return answer(handler, documents[name], Content_Type=(media_types or {}).get(name, MANIFEST), **more)

    return behave


def described(content: bytes, media_type: str = MANIFEST, **more: Any) -> dict[str, Any]:
    """Return the descriptor of something."""
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content), **more}


def part(listings: bytes, *, size: int = 10, real: int = 10, **changed: Any) -> Mapping[str, bytes]:
    """Return the documents of a part of one layer.

    :param size: what its config says of the layer's size; ``real`` is what its manifest says.
    """
    layer = {"digest": sha256(TEN), "diff_id": sha256(TEN), "size": size, "unpacked": 10, "media_type": "x.tar", "title": "ten", **changed}
    config = json.dumps({"identity": IDENTITY, "part": {"layers": [layer]}}).encode()
    layers = [{**described(TEN, "x.tar"), "size": real}, described(listings, LISTINGS)]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described(config, PART_CONFIG), "layers": layers}
    return {IDENTITY: canonical(document), sha256(config): config, sha256(listings): listings, sha256(TEN): TEN}


@functools.cache
def bomb(size: int) -> bytes:
    """Return zeros, compressed by zstd, in one frame."""
    made, packer = bytearray(), zstandard.ZstdCompressor(level=1).compressobj()
    zeros = bytes(1 << 20)
    for _ in range(size >> 20):
        made += packer.compress(zeros)
    return bytes(made + packer.flush())


@functools.cache
def gzip_bomb(size: int) -> bytes:
    """Return a list of tags that never ends, compressed by gzip."""
    return gzip.compress(b'{"tags": [') + gzip.compress(b" " * (1 << 20)) * (size >> 20)


def inflating(handler: Handler) -> None:
    """Have a part whose listings inflate to 1 GB."""
    holding(part(bomb(1 << 30)))(handler)


def inflated(handler: Handler) -> None:
    """Answer with tags that inflate to 1 GB."""
    answer(handler, gzip_bomb(1 << 30), Content_Encoding="gzip")


def uploading(**headers: str) -> Behaviour:
    """Have nothing, and begin every upload."""

    def behave(handler: Handler) -> None:
        begins = handler.command == "POST"
        answer(handler, b"", 202 if begins else 404, **(headers if begins else {}))

    return behave


def breaking(content: bytes) -> Behaviour:
    """Send one byte of a blob for each connection."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n" % (len(content) - start) + content[start : start + 1])

    return behave


def lying_ranges(content: bytes) -> Behaviour:
    """Break off once, then go on elsewhere than one says."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        if "Range" not in handler.headers:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content[:4])
            return
        head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n\r\n"
        handler.wfile.write(head + content[:6])

    return behave


def towers(height: int) -> dict[str, bytes]:
    """Return indexes that each list the next one, over an image; the first is called ``top``."""
    below = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": described(b"{}", "x"), "layers": []})
    made = {sha256(below): below}
    for _ in range(height):
        below = canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described(below, INDEX)]})
        made[sha256(below)] = below
    return {**made, "top": below}


LISTED: Final = zstandard.compress(json.dumps({sha256(TEN): []}).encode())
BROKEN: Final = b'{"mediaType": "a\\r\\nX: y", "layers": []}'
IMAGE: Final = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": described(b"{}", "x"), "layers": []})
BOTH: Final = canonical({"schemaVersion": 2, "config": described(b"{}", "x"), "layers": [], "manifests": []})
GONE: Final = canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**described(IMAGE), "platform": {"os": "linux", "architecture": "amd64"}}]})
FOREIGN: Final = canonical(
    {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [{"digest": OTHER, "size": 10, "urls": ["http://127.0.0.1:1/secret", "file:///etc/passwd"]}]}
)
TOWER: Final = towers(200)


@dataclasses.dataclass(frozen=True)
class Attack:
    """What the registry does when it is asked for something.

    :param does: what the client asks for: a name in :data:`OPERATIONS`.
    :param code: exit code that the client must end with.
    :param heavy: it is about memory, so that the client gets a process of its own.
    :param slow: it is about time, so that the client has little.
    :param prepare: what takes so long to make that a client would give up meanwhile.
    """

    does: str
    behave: Behaviour
    code: int = 30
    heavy: bool = False
    slow: bool = False
    prepare: Callable[[], object] = bytes


ATTACKS: Final[dict[str, Attack]] = {
    "an endless list of tags": Attack("tags", raw(HEAD + b'\r\n{"tags": [', again=b'"v1", ' * 10_000), heavy=True),
    "an endless manifest": Attack("manifest", raw(HEAD + b"\r\n{", again=b" " * 65536), heavy=True),
    "an endless error": Attack("tags", raw(b'HTTP/1.1 400 Bad\r\n\r\n{"errors": [', again=b" " * 65536), heavy=True),
    "an endless error instead of a blob": Attack("blob", raw(b'HTTP/1.1 400 Bad\r\n\r\n{"errors": [', again=b" " * 65536), heavy=True),
    "an endless redirect": Attack("tags", raw(b"HTTP/1.1 307 There\r\nLocation: /v2/\r\n\r\n", again=b" " * 65536), code=30, heavy=True),
    "interim answers without end": Attack("tags", raw(again=b"HTTP/1.1 100 Continue\r\n\r\n" * 100), heavy=True),
    "headers without end": Attack("tags", raw(HEAD, again=b"X-A: b\r\n" * 100)),
    "a header of 100 MB": Attack("tags", raw(HEAD + b"X-A: ", again=b"b" * 65536), heavy=True),
    "a chunk size without end": Attack("tags", raw(CHUNKED, again=b"0" * 65536), heavy=True),
    "a chunk size that is none": Attack("tags", raw(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n")),
    "trailers without end": Attack("tags", raw(CHUNKED + b"0\r\n", again=b"X-A: b\r\n" * 100), heavy=True),
    "two lengths": Attack("tags", raw(HEAD + b'Content-Length: 5\r\nContent-Length: 12\r\n\r\n{"tags": []}')),
    "no HTTP": Attack("tags", raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
    "a byte a while, of the head": Attack("tags", raw(again=b"H", pause=0.3), slow=True),
    "a byte a while, of the body": Attack("tags", raw(HEAD + b"Content-Length: 100000\r\n\r\n", again=b" ", pause=0.3), slow=True),
    "a byte a while, of a blob": Attack("blob", raw(HEAD + b"Content-Length: 10\r\n\r\n", again=b" ", pause=0.6), slow=True),
    "a byte for each connection": Attack("large blob", breaking(bytes(100_000)), slow=True),
    "ten bytes that do not end": Attack("blob", raw(CHUNKED, again=b"100000\r\n" + bytes(1 << 20) + b"\r\n"), heavy=True),
    "a small blob that does not end": Attack("content", raw(CHUNKED, again=b"100000\r\n" + bytes(1 << 20) + b"\r\n"), heavy=True),
    "other bytes": Attack("blob", says(b"TEN BYTES."), 13),
    "fewer bytes": Attack("blob", says(b"ten"), 13),
    "ranges that are others": Attack("blob", lying_ranges(TEN), 13),
    "listings that inflate to 1 GB": Attack("parts", inflating, heavy=True, prepare=lambda: bomb(1 << 30)),
    "listings that are no zstd": Attack("parts", holding(part(b"no zstd"))),
    "listings cut short": Attack("parts", holding(part(zstandard.compress(b"{}" * 1000)[:-4]))),
    "listings nested 100,000 deep": Attack("parts", holding(part(zstandard.compress(b"[" * 100_000)))),
    "a part of another size": Attack("parts", holding(part(LISTED, size=10, real=3_200_000_000))),
    "a part of less than nothing": Attack("parts", holding(part(LISTED, size=-1, real=-1))),
    "a gzip that inflates to 1 GB": Attack("tags", inflated, heavy=True, prepare=lambda: gzip_bomb(1 << 30)),
    "a gzip of a list": Attack("tags", says(gzip.compress(b'{"tags": []}'), Content_Encoding="gzip")),
    "a page that leads to itself": Attack("tags", says({"tags": ["v1"]}, Link='</v2/team/x/tags/list>; rel="next"')),
    "referrers that lead to themselves": Attack("referrers", says({"manifests": []}, Link="<?at=1>; rel=next")),
    "a page on another machine": Attack("tags", says({"tags": ["v1"]}, Link='<http://192.0.2.1/v2/team/x/tags/list>; rel="next"')),
    "a page that is no address": Attack("tags", says({"tags": ["v1"]}, Link='<http://[::1/x>; rel="next"')),
    "a redirect to itself": Attack("tags", says(status=307, Location="/v2/team/x/tags/list")),
    "a redirect to HTTP elsewhere": Attack("blob", says(status=307, Location="http://192.0.2.1/blob")),
    "a redirect to a file": Attack("blob", says(status=302, Location="file:///etc/passwd")),
    "a redirect to no address": Attack("blob", says(status=302, Location="http://[::1/x")),
    "a redirect with a name": Attack("blob", says(status=302, Location="https://registry@192.0.2.1/x")),
    "a redirect to no port": Attack("blob", says(status=302, Location="http://127.0.0.1:99999/x")),
    "a redirect without a place": Attack("blob", says(status=307)),
    "a screen that is cleared": Attack("tags", says({"errors": [{"code": "X", "message": "\x1b[2J\x1b[H5 images in 2.0 s\n\u202edone"}]}, 400)),
    "a digest that is a lie": Attack("manifest", says(IMAGE, Content_Type=MANIFEST, Docker_Content_Digest=OTHER), 13),
    "a digest that clears the screen": Attack("manifest", says(IMAGE, Content_Type=MANIFEST, Docker_Content_Digest="\x1b[2Jdone"), 13),
    "a manifest of another type": Attack("manifest", says(IMAGE, Content_Type=INDEX)),
    "an image and an index at once": Attack("manifest", says(BOTH)),
    "a length that is none": Attack("find", raw(HEAD + b"Docker-Content-Digest: " + OTHER.encode() + b"\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")),
    "a type that breaks lines": Attack("mirror", holding({"top": BROKEN, sha256(BROKEN): BROKEN})),
    "towers of indexes": Attack("mirror", holding(TOWER, dict.fromkeys(TOWER, INDEX)), 43),
    "a platform that is gone": Attack("mirror", holding({"top": GONE, sha256(GONE): GONE}, dict.fromkeys(("top", sha256(GONE)), INDEX)), 33),
    "layers that are elsewhere": Attack("copy", holding({"top": FOREIGN, sha256(FOREIGN): FOREIGN}), 33),
    "a realm without TLS": Attack("tags", says(status=401, WWW_Authenticate='Bearer realm="http://192.0.2.1/token"'), 31),
    "a realm that is none": Attack("tags", says(status=401, WWW_Authenticate='Bearer realm="https://[::1/token"'), 31),
    "a challenge that takes long to read": Attack("tags", says(status=401, WWW_Authenticate="bearer a=" * 7000), 31),
    "a wait of a year": Attack("tags", says(status=503, Retry_After="Wed, 21 Oct 99999 07:28:00 GMT")),
    "an upload to HTTP elsewhere": Attack("push", uploading(Location="http://192.0.2.1/upload")),
    "an upload to no address": Attack("push", uploading(Location="http://[::1/upload")),
    "a length of chunks that is none": Attack("push", uploading(Location="/v2/upload", OCI_Chunk_Min_Length="9" * 5000)),
    "an upload that is nowhere": Attack("push", uploading()),
    "a listing that is a page": Attack("tags", says(b"<html>log in</html>", Content_Type="text/html")),
}


# The client


def _mirror(registry: Registry, _: Store) -> object:
    side = replica.RegistrySide(registry=registry, repository="team/x")
    return replica.gather(side, [side.find("top") or OTHER], {})


def _copy(registry: Registry, store: Store) -> object:
    from torchstrata.registry.directory import Directory  # noqa: PLC0415  # of this operation alone

    side = replica.RegistrySide(registry=registry, repository="team/x")
    found = replica.gather(side, [side.find("top") or OTHER], {})
    return replica.copy(side, Directory(root=store.root.with_name("copy")), found, lambda _: None)


def _large(registry: Registry, store: Store) -> object:
    return _part_repository(registry, store).open_blob(sha256(bytes(100_000)), 100_000)


def _part_repository(registry: Registry, store: Store) -> PartRepository:
    return PartRepository(registry=registry, repository="team/parts", store=store, verify=unchecked)


OPERATIONS: Final[dict[str, Callable[[Registry, Store], object]]] = {
    "tags": lambda registry, _: registry.tags("team/x"),
    "manifest": lambda registry, _: registry.manifest("team/x", "v1"),
    "find": lambda registry, _: registry.find("team/x", "v1"),
    "referrers": lambda registry, _: registry.referrers("team/x", OTHER),
    "content": lambda registry, _: registry.content("team/x", OTHER),
    "parts": lambda registry, store: _part_repository(registry, store).find([IDENTITY]),
    "blob": lambda registry, store: _part_repository(registry, store).open_blob(sha256(TEN), 10),
    "large blob": _large,
    "push": lambda registry, _: registry.push_blob("team/x", Source.of(TEN)),
    "mirror": _mirror,
    "copy": _copy,
}


def ask(host: str, operation: str, directory: Path, *, quick: bool = False) -> object:
    """Do something with a registry."""
    with Registry(host, patience=patience(quick=quick)) as registry:
        return OPERATIONS[operation](registry, Store(directory / "store"))


def kept(directory: Path) -> list[Path]:
    """Return what a client has kept: files that are not locks."""
    return [path for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock"]


def serve(lines: Iterable[str]) -> None:
    """Make a client for each line ``HOST<tab>OPERATION<tab>DIRECTORY``, and print its status; what it says is in the directory.

    Each is a copy of this process, which has imported all that it needs: that takes longer than being attacked.
    """
    for line in lines:
        host, operation, directory = line.rstrip("\n").split("\t")
        if (child := os.fork()) == 0:
            _become_client(host, operation, Path(directory))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _become_client(host: str, operation: str, directory: Path) -> NoReturn:
    """Be a client that logs in nowhere, and end."""
    os.environ["DOCKER_CONFIG"] = str(directory)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(directory / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    status: object = 1
    try:
        main(host, operation, str(directory / "client"))
        status = 0
    except SystemExit as ended:
        status = ended.code
    except BaseException:  # noqa: BLE001  # told as Python would tell it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def main(host: str, operation: str, directory: str) -> None:
    """Be the client, as verbs are; say how much memory it took."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with cli.guarded():
            sys.stdout.write(f"answer {hashlib.sha256(repr(ask(host, operation, Path(directory))).encode()).hexdigest()[:8]}\n")
    finally:
        sys.stdout.write(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000} MB\n")


if __name__ == "__main__":
    serve(sys.stdin)
