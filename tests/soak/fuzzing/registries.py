"""Readers of what registries and directories hold, for fuzzing."""

from __future__ import annotations

import json

import msgspec
import requests
import zstandard

from tests import hostile
from torchstrata import decoding
from torchstrata.attestations import record, seals, signing
from torchstrata.errors import RegistryError
from torchstrata.image import oci
from torchstrata.image.compose import canonical, sha256
from torchstrata.registry import authorization, parts

BROKEN = (b"", b"null", b"[" * 2000, b'{"a":' * 2000, b'"\xff"')
MANIFESTS = (hostile.IMAGE, hostile.GONE, hostile.BOTH, hostile.FOREIGN, hostile.part(b"")[hostile.IDENTITY], *BROKEN)
LISTS = (b'{"tags": ["v1", "2.8.0-cu121-debian13-devel-20261124.1"]}', b'{"manifests": null}', hostile.GONE, *BROKEN)
CONFIGS = (canonical({"config": {"User": "1000:1000", "Labels": {"torchstrata.cell": "2.8-cu121"}}, "rootfs": {"diff_ids": [sha256(b"x")]}}), *BROKEN)
PARTS = (*(found for found in hostile.part(b"").values() if b'"part"' in found), *BROKEN)
LISTINGS = (zstandard.compress(json.dumps({sha256(b"x"): [{"path": "etc/x", "kind": "file"}]}).encode()), hostile.bomb(1 << 20), b"", b"no zstd")
SEALS = (seals.listed({"1" * 64: sha256(b"x")}), *BROKEN)
BUNDLES = (b'{"dsseEnvelope": {"payload": "eyJwcmVkaWNhdGVUeXBlIjoieCIsInN1YmplY3QiOlt7ImRpZ2VzdCI6e319XSwicHJlZGljYXRlIjp7fX0="}}', *BROKEN)
TOKENS = (b'{"token": "x", "expires_in": 60}', b'{"access_token": "x"}', *BROKEN)
CHALLENGES = (b'Bearer realm="https://auth.example/token",service="x"', b'Basic realm="x"', b"bearer a=" * 100)


def manifest(data: bytes) -> object:
    """Read a manifest or an index."""
    return oci.manifest(data, "it")


def lists(data: bytes) -> object:
    """Read a page of tags, then of referrers."""
    return oci.read(data, oci.TagList, "it"), oci.read(data, oci.Index, "it")


def config(data: bytes) -> object:
    """Read the config of an image."""
    return oci.read(data, oci.ImageConfig, "it")


def part(data: bytes) -> object:
    """Read the config of a part."""
    return decoding.read(data, parts._PartConfig, "it", limit=oci.CONFIG_LIMIT, error=RegistryError)


def listings(data: bytes) -> object:
    """Read the compressed paths of a part."""
    try:
        return parts.read_listings(data)
    except msgspec.DecodeError as error:
        raise RegistryError(str(error), fix="none") from error


def seal(data: bytes) -> object:
    """Read a list of parts."""
    return decoding.read(data, seals._List, "it", limit=oci.CONFIG_LIMIT, error=RegistryError)


def bundle(data: bytes) -> object:
    """Read the statement in a bundle."""
    return signing._statement(data)


def recorded(data: bytes) -> object:
    """Read a record."""
    return record.decode(data)


def token(data: bytes) -> object:
    """Read the answer of a token server."""
    answer = requests.Response()
    answer.status_code, answer._content = 200, data
    return authorization._read("it", answer)


def challenge(data: bytes) -> object:
    """Read what a registry asks for."""
    return authorization.challenge(data.decode("latin-1"))
