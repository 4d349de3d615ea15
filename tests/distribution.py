"""A registry in memory that does what the OCI distribution specification allows, and Debian's docker-registry does not do."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.serving import answer, serving


def digest_of(data: bytes) -> str:
    """Return the OCI digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Distribution:
    """The registry: what it holds, by repository, and how it behaves.

    :param relative: Locations have no host.
    :param silent: no Docker-Content-Digest.
    :param mounts: whether it mounts; else it answers 202 and begins an upload.
    :param api: whether it has the referrers API.
    :param filters: whether that API filters by type; it need not.
    :param page: tags, and referrers, of one answer.
    :param minimum: of a chunk.
    :param break_after: bytes of an upload's body after which the connection breaks, once for each entry.
    :param refusals: statuses with which the next requests are refused, with headers.
    :param denied: repositories that one may not read.
    :param lies: what it says that a digest is.
    :param unseen: pushes of manifests that are refused because it does not see their blobs yet.
    """

    relative: bool = False
    silent: bool = False
    mounts: bool = True
    api: bool = False
    filters: bool = True
    page: int = 1000
    minimum: int = 0
    break_after: list[int] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    denied: frozenset[str] = frozenset()
    lies: str = ""
    unseen: int = 0
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    host: str = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[Distribution]:
        """Run it with plain HTTP."""

        class DistributionHandler(_DistributionHandler):
            owner = self

        with serving(DistributionHandler) as port:
            self.host = f"127.0.0.1:{port}"
            yield self

    def requests(self, method: str, part: str = "") -> list[dict[str, str]]:
        """Return the headers of requests of a method whose path contains ``part``."""
        return [headers for name, path, headers in self.seen if name == method and part in path]


class _DistributionHandler(http.server.BaseHTTPRequestHandler):
    owner: Distribution

    def handle_any(self) -> None:
        """Answer a request."""
        place = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(place.query).items()}
        self.owner.seen.append((self.command, self.path, dict(self.headers)))
        if self.owner.refusals and place.path != "/v2/":
            status, headers = self.owner.refusals.pop(0)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return self.answer(status, headers=headers)
        if place.path == "/v2/":
            return self.answer(200)
        words = place.path.removeprefix("/v2/").split("/")
        for kind in ("blobs", "manifests", "tags", "referrers"):
            if kind in words[1:]:
                at = words.index(kind, 1)
                repository, rest = "/".join(words[:at]), words[at + 1 :]
                if repository in self.owner.denied:
                    return self.answer(403, {"errors": [{"code": "DENIED", "message": "access denied"}]})
                return getattr(self, kind)(repository, *rest)
        return self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def blobs(self, repository: str, name: str, upload: str | None = None) -> None:
        if name == "uploads":
            return self.upload(repository, upload)
        content = self.owner.blobs.get((repository, name))
        if content is None:
            return self.unknown("BLOB_UNKNOWN")
        return self.answer(200, content)

    def upload(self, repository: str, name: str | None) -> None:
        if not name:
            return self.begin(repository)
        if name not in self.owner.uploads:
            return self.unknown("BLOB_UPLOAD_UNKNOWN")
        taken = self.owner.uploads[name]
        if self.command == "GET":
            return self.answer(204, headers={**self.location(repository, name), "Range": f"0-{max(0, len(taken) - 1)}"})
        if self.command == "DELETE":
            del self.owner.uploads[name]
            return self.answer(204)
        return self.receive(repository, name, taken)

    def receive(self, repository: str, name: str, taken: bytearray) -> None:
        start = int(self.headers.get("Content-Range", str(len(taken))).partition("-")[0])
        size = int(self.headers.get("Content-Length", 0))
        if start != len(taken):
            self.rfile.read(size)
            return self.answer(416)
        if self.owner.break_after and size > self.owner.break_after[0]:
            taken += self.rfile.read(self.owner.break_after.pop(0))
            self.close_connection = True
            return self.connection.shutdown(2)
        taken += self.rfile.read(size)
        if self.command == "PATCH":
            return self.answer(202, headers={**self.location(repository, name), "Range": f"0-{len(taken) - 1}"})
        return self.end(repository, name, bytes(taken))

    def begin(self, repository: str) -> None:
        wanted, origin = self.query.get("mount", ""), self.query.get("from", "")
        if origin in self.owner.denied:
            return self.answer(403)
        if self.owner.mounts and (origin, wanted) in self.owner.blobs:
            self.owner.blobs[repository, wanted] = self.owner.blobs[origin, wanted]
            return self.answer(201, headers=self.told(wanted))
        name = uuid.uuid4().hex
        self.owner.uploads[name] = bytearray()
        least = {"OCI-Chunk-Min-Length": str(self.owner.minimum)} if self.owner.minimum else {}
        return self.answer(202, headers={**self.location(repository, name), **least})

    def end(self, repository: str, name: str, content: bytes) -> None:
        del self.owner.uploads[name]
        if self.query.get("digest") != digest_of(content):
            return self.answer(400, {"errors": [{"code": "DIGEST_INVALID", "message": "provided digest did not match"}]})
        self.owner.blobs[repository, digest_of(content)] = content
        return self.answer(201, headers=self.told(digest_of(content)))

    def manifests(self, repository: str, name: str) -> None:
        if self.command == "PUT":
            return self.put(repository, name)
        found = self.owner.manifests.get((repository, name))
        if found is None:
            return self.unknown("MANIFEST_UNKNOWN")
        if self.command == "DELETE":
            del self.owner.manifests[repository, name]
            return self.answer(202)
        return self.answer(200, found[0], headers={"Content-Type": found[1], **self.told(digest_of(found[0]))})

    def put(self, repository: str, name: str) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.owner.unseen:
            self.owner.unseen -= 1
            return self.answer(400, {"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"}]})
        for each in {name, digest_of(content)}:
            self.owner.manifests[repository, each] = (content, self.headers["Content-Type"])
        subject = (json.loads(content).get("subject") or {}).get("digest")
        return self.answer(201, headers=self.told(digest_of(content)) | ({"OCI-Subject": subject} if subject and self.owner.api else {}))

    def tags(self, repository: str, _: str) -> None:
        names = sorted(name for place, name in self.owner.manifests if place == repository and not name.startswith("sha256:"))
        return self.paged(f"/v2/{repository}/tags/list", names, lambda page: {"name": repository, "tags": page})

    def referrers(self, repository: str, subject: str) -> None:
        if not self.owner.api:
            return self.answer(404)
        listed = []
        for (place, name), (content, media_type) in self.owner.manifests.items():
            document = json.loads(content)
            wanted = self.query.get("artifactType", document.get("artifactType")) == document.get("artifactType") or not self.owner.filters
            if place == repository and name.startswith("sha256:") and (document.get("subject") or {}).get("digest") == subject and wanted:
                listed.append({"mediaType": media_type, "digest": name, "size": len(content), "artifactType": document["artifactType"]})
        return self.paged(f"/v2/{repository}/referrers/{subject}", listed, lambda page: {"schemaVersion": 2, "manifests": page})

    def paged(self, place: str, everything: list, shape) -> None:
        first = int(self.query.get("at", 0))
        last = first + self.owner.page
        headers = {"Link": f'<{place}?at={last}>; rel="next"'} if last < len(everything) else {}
        return self.answer(200, shape(everything[first:last]), headers=headers)

    def location(self, repository: str, name: str) -> dict[str, str]:
        path = f"/v2/{repository}/blobs/uploads/{name}?state=kept"
        return {"Location": path if self.owner.relative else f"http://{self.owner.host}{path}"}

    def told(self, digest: str) -> dict[str, str]:
        return {} if self.owner.silent else {"Docker-Content-Digest": self.owner.lies or digest}

    def unknown(self, code: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self.answer(404, {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]})

    def answer(self, status: int, content: object = b"", headers: dict[str, str] | None = None) -> None:
        answer(self, content if isinstance(content, bytes) else json.dumps(content).encode(), status, headers or {})
