"""Codecs: the same bytes for the same input, however many threads, and nothing of the moment in them."""

from __future__ import annotations

import hashlib
import io
import random
from itertools import chain

import pytest
import zstandard

from torchstrata.errors import StoreError
from torchstrata.store import codec as codecs
from torchstrata.store.codec import Codec, decompressor

CODECS = [Codec(), Codec(level=9), Codec(name="gzip", level=6)]
PAYLOAD = random.Random(8).randbytes(3_000_000) + b"strata" * 4_000_000


def compressed(codec: Codec, data: bytes = PAYLOAD, step: int = codecs.CHUNK) -> bytes:
    """Return ``data`` compressed in steps."""
    compressor = codec.compressor()
    chunks = chain.from_iterable(compressor.compress(data[start : start + step]) for start in range(0, len(data), step))
    return b"".join([*chunks, *compressor.finish()])


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.identity)
def test_what_is_compressed_comes_back(codec):
    """A reader of the media type gets the input back."""
    assert decompressor(io.BytesIO(compressed(codec)), codec.media_type).read(len(PAYLOAD) + 1) == PAYLOAD


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("step", [codecs.CHUNK, 300_001])
def test_bytes_depend_on_no_count_of_cores(monkeypatch, workers, step):
    """One worker thread gives the bytes that eight give, in whatever portions the input comes."""
    expected = compressed(Codec())
    monkeypatch.setattr(codecs, "_workers", lambda: workers)
    assert compressed(Codec(), step=step) == expected


@pytest.mark.skipif(zstandard.ZSTD_VERSION != (1, 5, 7), reason="the digest is that of the locked libzstd")
def test_bytes_are_the_same_on_every_machine():
    """The locked library gives this digest everywhere; a change of it is a change of every stratum."""
    assert hashlib.sha256(compressed(Codec())).hexdigest() == "2d79c6476a2610eeb1ae3f9988c996b2ee9cca080995567d2092d2bd61b07146"


def test_gzip_names_no_time_and_no_file():
    """The header has no modification time, no name and no operating system."""
    assert compressed(Codec(name="gzip", level=6), b"x")[:10] == bytes.fromhex("1f8b08000000000000ff")


def test_an_empty_stream_is_a_stream():
    """No input at all gives something that readers accept."""
    assert [decompressor(io.BytesIO(compressed(codec, b"")), codec.media_type).read(1) for codec in CODECS] == [b""] * 3


def test_identity_names_everything_that_changes_bytes():
    """Codec, level and library version are in the identity."""
    assert len({codec.identity for codec in CODECS}) == 3
    assert "1.5" in Codec().identity


@pytest.mark.parametrize(("name", "level"), [("zstd", 0), ("zstd", 20), ("gzip", 10), ("xz", 3)])
def test_a_codec_that_does_not_exist_is_refused(name, level):
    """The error says which exist."""
    with pytest.raises(StoreError, match="zstd 1 to 19 or gzip 1 to 9"):
        Codec(name=name, level=level)


def test_a_plain_tar_is_read_as_it_is():
    """Layers without compression are layers too; others are refused by name."""
    assert decompressor(io.BytesIO(b"tar"), "application/vnd.oci.image.layer.v1.tar").read() == b"tar"
    with pytest.raises(StoreError, match="tar\\+br"):
        decompressor(io.BytesIO(), "application/x.tar+br")
