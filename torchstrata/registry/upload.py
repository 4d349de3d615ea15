"""Pushing one blob: not at all if the registry has it, by mount if another repository has it, else in chunks.

OCI distribution specification 1.1, sections "Pushing blobs", "Pushing a blob in chunks" and "Mounting a blob from
another repository". An upload goes on where the registry says that it is. (Debian's docker-registry, like its
successors, can say so only for chunks that arrived whole: an upload whose chunk was cut off starts over there.)
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, Self

import requests

from torchstrata.errors import AbsentError, IntegrityError, RegistryError
from torchstrata.image.compose import sha256
from torchstrata.registry.authorization import Scopes
from torchstrata.registry.http_session import Body, Method
from torchstrata.registry.transport import RefusedError, Transport, Unanswered
from torchstrata.store.codec import CHUNK
from torchstrata.store.digest import digest_of
from torchstrata.text import printable

PIECE: Final = 64 * CHUNK
"""Bytes of a chunk; a smaller blob goes up in one request. A broken connection costs at most so many."""

OnBytes = Callable[[int], object]
"""Told how many more bytes are on their way; a negative number where some have to go again."""

LOST: Final = frozenset({"BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"})
OTHER_BYTES: Final = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})
"""Codes of errors (section "Error Codes")."""

RANGE: Final = re.compile(r"(?:bytes=)?0-([0-9]{1,15})")
LENGTH: Final = re.compile(r"[0-9]{1,15}")
"""A number of bytes in a header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Content to push.

    :param open: opens it from its beginning; called again for each try.
    """

    digest: str
    size: int
    open: Callable[[], IO[bytes]]

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return a source of bytes in memory."""
        return cls(digest=sha256(content), size=len(content), open=lambda: io.BytesIO(content))

    @classmethod
    def file(cls, path: Path, digest: str | None = None) -> Self:
        """Return a source of a file; its digest is computed if not given."""
        return cls(digest=digest or digest_of(path), size=path.stat().st_size, open=lambda: path.open("rb"))

    def is_intact(self) -> bool:
        """Read all of it, and tell whether it has its digest."""
        with self.open() as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == self.digest  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What became of a blob: it was ``present``, ``mounted`` or ``sent``; bytes of it in each case."""

    way: Literal["present", "mounted", "sent"]
    size: int


class _GoneError(Unanswered):
    """The registry has lost an upload, or got other bytes: it starts over."""


class _Window(io.RawIOBase):
    """Some bytes of an open file, as the body of a request."""

    def __init__(self, file: IO[bytes], start: int, size: int, on_bytes: OnBytes, stop: Callable[[], bool]) -> None:
        super().__init__()
        file.seek(start)
        self._file, self._left, self._size, self._on_bytes, self._stop = file, size, size, on_bytes, stop

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        """Return how much of the window was read; ``requests`` asks."""
        return self._size - self._left

    def read(self, size: int = -1, /) -> bytes:
        """Read on, but not beyond the window."""
        if self._stop():
            raise CancelledError
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        self._on_bytes(len(data))
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass
class _UploadSession:
    """An upload that the registry knows: where it goes on, and from which byte."""

    location: str
    offset: int = 0
    piece: int = PIECE


class Upload:
    """Pushes one blob to one repository.

    :param scopes: what to be allowed.
    """

    def __init__(self, transport: Transport, repository: str, source: Source, scopes: Scopes, on_bytes: OnBytes) -> None:
        self._transport, self._repository, self._source, self._scopes, self._on_bytes = transport, repository, source, scopes, on_bytes
        self._told = 0
        self.what = f"push {source.digest[:19]} to {repository}"

    def mount(self, origin: str, scopes: Scopes) -> _UploadSession | None:
        """Ask for the blob of repository ``origin``; return ``None`` if it is mounted, or else an upload to go on with.

        :raises AbsentError: the registry does not know the origin.
        :raises RegistryAuthError: it does not let us.
        """
        parameters = {"mount": self._source.digest, "from": origin}
        answer = self._transport.send("POST", self._uploads, what=self.what, scopes=scopes, params=parameters, expect=(201, 202))
        if answer.status_code == requests.codes.created:
            self._compare(answer)
            return None
        return self._session(answer)

    def run(self, session: _UploadSession | None) -> None:
        """Send the blob, going on with ``session`` if there is one, until it is there; progress is no failure."""
        failures, reached, started = 0, 0, time.monotonic()
        while True:
            try:
                session = session or self._begin()
                self._go_on(session)
            except Unanswered as error:
                failures += 1
                if failures >= self._transport.patience.tries or self._transport.patience.is_over(started, reached):
                    raise
                self._transport.wait(failures, error)
                if self._arrived():
                    self._tell(self._source.size)
                    return
                session = None if session is None or isinstance(error, _GoneError) else self._where(session)
                if session and session.offset > reached:
                    failures, reached = 0, session.offset
            else:
                return

    def cancel(self, session: _UploadSession) -> None:
        """Let the registry forget an upload; if it does not listen it forgets it by itself."""
        with contextlib.suppress(RegistryError):
            self._send("DELETE", session.location, expect=(204, 404), tries=1)

    @property
    def _uploads(self) -> str:
        return f"{self._repository}/blobs/uploads/"

    def _begin(self) -> _UploadSession:
        return self._session(self._send("POST", self._uploads, expect=(202,)))

    def _session(self, answer: requests.Response) -> _UploadSession:
        minimum = answer.headers.get("OCI-Chunk-Min-Length", "")
        return _UploadSession(self._location(answer), piece=max(PIECE, int(minimum) if LENGTH.fullmatch(minimum) else 0))

    def _location(self, answer: requests.Response, before: str | None = None) -> str:
        """Return where to go on; the header may be relative, and some registries leave it out in later answers."""
        place = answer.headers.get("Location") or before
        if not place:
            raise RegistryError(f"{self._transport.host} does not say where to {self.what}", fix="ask its admin: Location is missing")
        return self._transport.resolve(place, answer.url)

    def _go_on(self, session: _UploadSession) -> None:
        """Send what is missing: all but the last piece by PATCH, the rest with the PUT that ends the upload."""
        self._tell(session.offset)
        while self._source.size - session.offset > session.piece:
            self._patch(session)
        body = self._body(session.offset, self._source.size - session.offset)
        headers = {"Content-Type": "application/octet-stream"}
        if session.offset:
            headers["Content-Range"] = f"{session.offset}-{self._source.size - 1}"
        try:
            answer = self._send("PUT", session.location, body, expect=(201,), params={"digest": self._source.digest}, headers=headers)
        except (RefusedError, AbsentError) as error:
            raise self._refused(error) from error
        self._compare(answer)

    def _patch(self, session: _UploadSession) -> None:
        start, end = session.offset, session.offset + session.piece
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{end - 1}"}
        try:
            answer = self._send("PATCH", session.location, self._body(start, end - start), expect=(202,), headers=headers)
        except (RefusedError, AbsentError) as error:
            raise self._refused(error) from error
        session.location = self._location(answer, session.location)
        session.offset = end

    def _refused(self, error: RefusedError | AbsentError) -> RegistryError | IntegrityError:
        """Return what a refusal means: the upload is gone or elsewhere, or bytes changed, on the disk or on the way."""
        if isinstance(error, AbsentError) or error.codes & LOST or error.status == requests.codes.requested_range_not_satisfiable:
            return _GoneError(error.what)
        if not error.codes & OTHER_BYTES:
            return error
        if self._source.is_intact():
            return _GoneError(f"{self._transport.host} got other bytes than were sent: {self.what}")
        return IntegrityError(f"what should be {self._source.digest} has other bytes", fix="remove it from the content store and build again: it is made anew")

    def _arrived(self) -> bool:
        """Return whether the registry has the blob after all: the answer may have been lost, not the request."""
        try:
            self._send("HEAD", f"{self._repository}/blobs/{self._source.digest}")
        except AbsentError:
            return False
        return True

    def _where(self, session: _UploadSession) -> _UploadSession | None:
        """Ask how far an upload is; ``None`` if it has to start over."""
        try:
            answer = self._send("GET", session.location, expect=(204,))
        except (AbsentError, RefusedError):
            return None
        received = RANGE.fullmatch(answer.headers.get("Range", ""))
        arrived = int(received[1]) + 1 if received and received[1] != "0" else 0
        return _UploadSession(self._location(answer, session.location), arrived, session.piece) if arrived < self._source.size else None

    def _compare(self, answer: requests.Response) -> None:
        """Refuse another digest than ours; many registries leave the header out."""
        digest = answer.headers.get("Docker-Content-Digest", self._source.digest)
        if digest != self._source.digest:
            raise IntegrityError(f"{self._transport.host} calls {self._source.digest} {printable(digest)}", fix="push again; if it stays so, ask its admin")

    def _body(self, start: int, size: int) -> Callable[[], IO[bytes]]:
        def opened() -> IO[bytes]:
            self._tell(start)
            return _Window(self._source.open(), start, size, self._count, self._transport.cancelled.is_set)  # type: ignore[return-value]

        return opened

    def _count(self, count: int) -> None:
        self._told += count
        self._on_bytes(count)

    def _tell(self, offset: int) -> None:
        """Correct what was told of the progress."""
        if offset != self._told:
            self._count(offset - self._told)

    def _send(self, method: Method, place: str, body: Body | None = None, **options: object) -> requests.Response:
        """Send a request; one with content only once, since what came of it must be asked before the next try."""
        tries = {"tries": 1} if body else {}
        return self._transport.send(method, place, what=self.what, scopes=self._scopes, body=body, **tries, **options)  # type: ignore[arg-type]
