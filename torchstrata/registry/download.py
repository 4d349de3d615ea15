"""Reading one blob from a registry: verified, within a limit of bytes, and going on where a connection broke.

Distribution specification 1.1, "Pulling blobs". What a server sends beyond the limit is not read; a server that sends
next to nothing at each try is given up.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import requests
import urllib3.exceptions

from torchstrata.errors import IntegrityError, RegistryError
from torchstrata.registry.authorization import Scopes
from torchstrata.registry.transport import Transport, Unanswered
from torchstrata.store.codec import CHUNK, Stream


class Download(Stream):
    """A stream of the blob's bytes; its end is reached only if they have their digest. Close it."""

    def __init__(  # noqa: PLR0913, PLR0917  # a client makes it, from what it knows
        self, transport: Transport, repository: str, digest: str, limit: int, scopes: Scopes, on_bytes: Callable[[int], object]
    ) -> None:
        super().__init__()
        self._transport, self._repository, self._digest, self._scopes, self._on_bytes = transport, repository, digest, scopes, on_bytes
        self._limit, self._started = limit, time.monotonic()
        self._hash, self._offset, self._failures = hashlib.sha256(), 0, 0
        self._answer: requests.Response | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes.

        :raises IntegrityError: at the end, if the bytes have another digest.
        :raises RegistryError: there are more than the limit.
        :raises Unanswered: the connection breaks again and again.
        """
        while not (self._answer is None and self._offset and self._is_whole()):  # it may break after the last byte
            try:
                self._answer = self._answer or self._open()
                # as it comes: what waits in a larger buffer is lost when the connection breaks
                data = self._answer.raw.read1(CHUNK if size < 0 else size, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._broken(error)
                continue
            return self._taken(bytes(data))
        return b""

    def close(self) -> None:
        """Give the connection back."""
        if self._answer is not None:
            self._answer.close()
        super().close()

    def _open(self) -> requests.Response:
        """Ask for what is missing; a registry without ranges sends everything again."""
        headers = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        place, what = f"{self._repository}/blobs/{self._digest}", f"pull {self._digest[:19]} from {self._repository}"
        answer = self._transport.send("GET", place, what=what, scopes=self._scopes, expect=(200, 206), headers=headers, stream=True, limit=self._limit)
        if self._offset and answer.status_code != requests.codes.partial_content:
            left = self._offset
            while left and (data := answer.raw.read(min(left, CHUNK), decode_content=False)):
                left -= len(data)
        return answer

    def _taken(self, data: bytes) -> bytes:
        if self._transport.cancelled.is_set():
            raise CancelledError
        self._hash.update(data)
        self._offset += len(data)
        if self._offset > self._limit:
            raise RegistryError(f"{self._digest} in {self._repository} is larger than the {self._limit} bytes that it may have", fix="check who has pushed it")
        self._on_bytes(len(data))
        if data:
            self._failures = 0
        elif not self._is_whole():
            raise IntegrityError(
                f"{self._transport.host} sent other bytes than {self._digest}", fix="run it again; if it stays so, the registry's storage is damaged"
            )
        return data

    def _is_whole(self) -> bool:
        return f"sha256:{self._hash.hexdigest()}" == self._digest

    def _broken(self, error: Exception) -> None:
        """Wait until the next try; what brought bytes does not count as a failure."""
        self._failures += 1
        problem = Unanswered(f"{self._transport.host} breaks off: pull {self._digest[:19]} from {self._repository} ({error})")
        if self._failures >= self._transport.patience.tries or self._transport.patience.is_over(self._started, self._offset):
            raise problem from error
        if self._answer is not None:
            self._answer.close()
            self._answer = None
        self._transport.wait(self._failures, problem)
