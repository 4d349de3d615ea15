"""Answers of a registry: their bodies, within a limit of bytes, and what they or the lack of one say is wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3.exceptions

from torchstrata import decoding
from torchstrata.errors import RegistryError, TorchstrataError
from torchstrata.store.codec import CHUNK
from torchstrata.text import printable

DOCUMENT: Final = 8 << 20
"""Bytes of an answer that is not a blob, if nothing else is said."""


def take(response: requests.Response, limit: int) -> None:
    """Read the body of an answer, as the bytes that were sent: ``requests`` would inflate them, whatever comes of it.

    :raises RegistryError: it has more bytes than ``limit``.
    """
    taken = bytearray()
    with contextlib.closing(response):
        while data := response.raw.read(min(CHUNK, limit + 1), decode_content=False):
            taken += data
            if len(taken) > limit:
                raise RegistryError(f"{urlsplit(response.url).netloc} sends more than the {limit} bytes that its answer may have", fix="ask its admin")
    response._content = bytes(taken)  # noqa: SLF001  # nothing public sets what was read elsewhere
    response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001


class _Error(msgspec.Struct, frozen=True):
    """What a registry says is wrong (section "Error Codes")."""

    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[_Error, ...] = ()


def _errors(response: requests.Response) -> tuple[_Error, ...]:
    """Return the errors in an answer's body, if it has any."""
    try:
        if not response._content_consumed:  # type: ignore[attr-defined]  # noqa: SLF001  # a blob was to be read from it
            take(response, DOCUMENT)
        return decoding.decode(response.content, _Errors).errors
    except (msgspec.DecodeError, TorchstrataError, urllib3.exceptions.HTTPError, OSError):
        return ()


def codes(response: requests.Response) -> Iterator[str]:
    """Yield the codes of the errors that an answer tells of."""
    yield from (error.code for error in _errors(response) if error.code)


def messages(response: requests.Response) -> list[str]:
    """Return what an answer says is wrong, in the registry's words."""
    return [printable(error.message or error.code or "") for error in _errors(response)]


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that lie behind it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        inner = next((wrapped for wrapped in (*current.args, getattr(current, "reason", None)) if isinstance(wrapped, BaseException)), None)
        current = inner or current.__cause__ or current.__context__


def words(error: BaseException) -> str:
    """Return the innermost reason in a few words."""
    last = list(causes(error))[-1]
    return (last.strerror if isinstance(last, OSError) and last.strerror else str(last) or type(last).__name__).strip(os.linesep)[:200]
