"""Values of our types from JSON; the one place that gives msgspec a type.

msgspec prepares a class when it is first decoded to, in two steps: it hangs an empty description on the class, then fills in a
type for each field, for which it runs Python. A thread that comes in between takes what hangs there for complete, and dies of
signal 11 at the first field that is still null (msgspec 0.22.0, ``StructInfo_Convert`` and ``DataclassInfo_Convert``; its
critical sections mean nothing where Python has its global lock). So one thread at a time prepares.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

_preparing: Final = threading.Lock()


def decode(data: bytes | str, kind: type[T]) -> T:
    """Return the value that a JSON document stands for.

    :raises msgspec.DecodeError: it is no JSON, or no ``kind``.
    """
    decoder: msgspec.json.Decoder[T] = _decoder(kind)
    return decoder.decode(data)


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
