"""Decoding JSON to typed values; no other module gives msgspec a type.

msgspec prepares a class when it is first decoded to, in two steps: it hangs an empty description on the class, then
fills in a type for each field, for which it runs Python. A thread that comes in between takes what hangs there for
complete, and dies of signal 11 at the first field that is still null (msgspec 0.22.0, ``StructInfo_Convert`` and
``DataclassInfo_Convert``; its critical sections mean nothing where Python has its global lock). So one thread at a
time prepares.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Final, TypeVar

import msgspec

from torchstrata.errors import TorchstrataError

T = TypeVar("T")

FIX: Final = "remove it where it comes from: its author is mistaken, or means harm"

_preparing: Final = threading.Lock()


def decode(data: bytes | str, kind: type[T]) -> T:
    """Return the value that a JSON document stands for.

    :raises msgspec.DecodeError: it is no JSON, or no ``kind``; whatever the document, nothing else.
    """
    decoder: msgspec.json.Decoder[T] = _decoder(kind)
    try:
        return decoder.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("JSON is nested too deeply") from error
    except UnicodeError as error:
        raise msgspec.DecodeError("JSON is not UTF-8") from error


def read(data: bytes, kind: type[T], name: str, *, limit: int, error: type[TorchstrataError]) -> T:
    """Return the value that a JSON document from outside stands for.

    :param name: of the document, for the message.
    :param limit: bytes that it may have.
    :param error: what to raise if it has more, is no JSON or no ``kind``.
    """
    if len(data) > limit:
        raise error(f"{name} has {len(data)} bytes, and may have {limit}", fix=FIX)
    try:
        return decode(data, kind)
    except msgspec.DecodeError as wrong:
        raise error(f"{name} is not what it must be: {wrong}", fix=FIX) from wrong


def convert(value: object, kind: type[T]) -> T:
    """Return what decoded JSON stands for.

    :raises msgspec.ValidationError: it is no ``kind``.
    """
    _decoder(kind)  # prepares it
    return msgspec.convert(value, kind)


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return the decoder to a type, complete with all types that it contains."""
    with _preparing:
        return _new_decoder(kind)


@functools.cache
def _new_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
