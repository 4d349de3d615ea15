"""Documents of registries and directories: any bytes are a value or an error of ours."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
import requests
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import hostile
from torchstrata import decoding
from torchstrata.attestations import record, seals, signing
from torchstrata.errors import IntegrityError, RegistryError, TorchstrataError
from torchstrata.image import oci
from torchstrata.image.compose import canonical, sha256
from torchstrata.image.oci import INDEX
from torchstrata.registry import answers, authorization, parts
from torchstrata.registry.client import MANIFESTS

DIGEST = sha256(b"x")
NAMES = ("digest", "size", "mediaType", "artifactType", "annotations", "config", "layers", "manifests", "subject", "tags", "errors", "code", "message")
NAMES += ("token", "access_token", "expires_in", "Labels", "User", "rootfs", "diff_ids", "platform", "os", "parts", "identity", "part", "path", "kind")
NAMES += ("dsseEnvelope", "payload", "predicateType", "predicate", "title", "extras", "notes", "unpacked", "media_type", "wheels", "packages", "schema")

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20) | st.sampled_from([DIGEST, "", "x/y", *MANIFESTS])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=6), max_leaves=40
)
"""JSON in the words of our documents, with whatever in their places."""

HONEST = [
    hostile.IMAGE,
    hostile.GONE,
    canonical({"tags": ["v1", "2.8.0-cu121-debian13-devel-20261124.1"]}),
    canonical({"config": {"User": "1000:1000", "Labels": {"torchstrata.cell": "2.8-cu121"}}, "rootfs": {"diff_ids": [DIGEST]}}),
    canonical({"errors": [{"code": "DENIED", "message": "no", "detail": {"x": [1]}}]}),
    canonical({"dsseEnvelope": {"payload": base64.b64encode(canonical({"predicateType": "x", "subject": [{"digest": {}}], "predicate": {}})).decode()}}),
    *hostile.part(b"").values(),
]


def _answer(data):
    made = requests.Response()
    made.status_code, made._content, made._content_consumed = 200, data, True
    return made


READERS = {
    "manifest": lambda data: oci.manifest(data, "it", INDEX),
    "manifest of a directory": lambda data: oci.manifest(data, "it", "", IntegrityError),
    "index": lambda data: oci.read(data, oci.Index, "it"),
    "tags": lambda data: oci.read(data, oci.TagList, "it"),
    "config": lambda data: oci.read(data, oci.ImageConfig, "it"),
    "part": lambda data: decoding.read(data, parts._PartConfig, "it", limit=10**6, error=RegistryError),
    "seal": lambda data: decoding.read(data, seals._List, "it", limit=10**6, error=RegistryError),
    "record": record.decode,
    "statement": signing._statement,
    "token": lambda data: authorization._read("host", _answer(data)),
    "errors": lambda data: answers.messages(_answer(data)),
}


@settings(derandomize=True, max_examples=50, deadline=None)
@given(document=VALUES)
def test_any_json_is_a_value_or_an_error(document):
    """To every reader: nothing else is raised, and the error is a line."""
    _check(json.dumps(document).encode("utf-8", "surrogatepass"))


@settings(derandomize=True, max_examples=50, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_value_or_an_error(data):
    """Honest documents, a few of whose bytes are others, or that are cut off."""
    honest = bytearray(data.draw(st.sampled_from(HONEST)))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, max(0, len(honest) - 1)), st.integers(0, 255)), max_size=4)):
        if honest:
            honest[at] = byte
    _check(bytes(honest[: data.draw(st.integers(0, len(honest)))]))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(packed=st.binary(max_size=200) | VALUES.map(lambda value: zstandard.compress(json.dumps(value).encode("utf-8", "surrogatepass"))))
def test_any_listing_is_a_value_or_an_error(packed):
    """Compressed JSON of any shape, and what is no zstd."""
    try:
        parsed = parts.read_listings(packed)
    except msgspec.DecodeError:
        return
    assert isinstance(parsed, dict)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(header=st.text(max_size=300) | st.lists(st.sampled_from(["bearer", "Basic", " ", ",", "=", '"', "realm", "\\", "a"]), max_size=60).map("".join))
def test_any_challenge_is_read(header):
    """It is one that we speak, or none."""
    parsed = authorization.challenge(header)
    assert parsed is None or parsed.scheme in {"basic", "bearer"}


def _check(data):
    """Give a document to every reader: drawing one takes many times as long as reading it."""
    for read in READERS.values():
        try:
            read(data)
        except TorchstrataError as error:
            assert error.what.isprintable()  # noqa: PT017  # most documents of a strategy are none, and some are


@pytest.mark.parametrize("place", ["config", "layers", "manifests", "subject"])
@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha512:" + "a" * 64, DIGEST.upper(), DIGEST + "\n", "", 5, None, [DIGEST]])
def test_a_descriptor_has_a_digest(place, digest):
    """Wherever it stands."""
    listed = {"digest": digest, "size": 1}
    with pytest.raises(RegistryError, match="is not what it must be"):
        oci.manifest(json.dumps({place: [listed] if place in {"layers", "manifests"} else listed}).encode(), "it")


@pytest.mark.parametrize("size", [-1, 1 << 60, 10**30, 0.5, "1", None, True])
def test_a_descriptor_has_a_size(size):
    """A number of bytes that a disk may hold."""
    with pytest.raises(RegistryError, match="is not what it must be"):
        oci.manifest(json.dumps({"layers": [{"digest": DIGEST, "size": size}]}).encode(), "it")


def test_a_manifest_is_no_larger_than_registries_take():
    """4 MiB."""
    with pytest.raises(RegistryError, match="may have 4194304"):
        oci.manifest(b" " * (oci.MANIFEST_LIMIT + 1), "it")


def test_what_registries_leave_empty_is_empty():
    """Some write null where a list has nothing."""
    parsed = oci.manifest(b'{"layers": null, "manifests": null, "config": null, "subject": null, "annotations": null, "artifactType": null}', "it")
    assert (parsed.blobs, parsed.children, parsed.subject) == ((), (), None)
    assert oci.read(b'{"tags": null}', oci.TagList, "it").tags is None
