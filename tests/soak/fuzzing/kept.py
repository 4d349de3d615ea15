"""Readers of what this project keeps for later: the ledger and its copy, the matrix, locks, evidence."""

from __future__ import annotations

from typing import Final

from tests.hostileledger import ledger as example
from torchstrata.locks import lockfile, os_locks
from torchstrata.matrix import plain_yaml
from torchstrata.matrix.matrix import ROOT
from torchstrata.release import ledger_copy
from torchstrata.release.ledger import Ledger
from torchstrata.verification import evidence

LEDGERS: Final = (example().content, b"", b"\n", b"null\n", b'{"sequence": 1}\n')
COPIES: Final = (ledger_copy.body(example()), b"", b"null", b"[" * 2000)
MATRICES: Final = ((ROOT / "matrix.yaml").read_bytes(), b"", b"a: &x [*x]", b"? ", b"2026-13-40", b"!!python/name:os.system")
LOCKS: Final = ((ROOT / "locks/2.13.0-cpu/cp311/base.lock").read_bytes(), b"", b"\x1b[2J")
OS_LOCKS: Final = ((ROOT / "locks/os/debian12.lock").read_bytes(), b"", b"[base]\n[base]\n")
RECORD: Final = (
    b'{"cell":"2.8-cu121-debian13","config":"DIGEST","created":"2026-11-01T00:00:00Z","digest":"DIGEST","flavour":"base","inputs":{"codec":"x","'
    b'lock":"1","lock_seen":"x","os_image":"x","os_lock":"1","os_lock_date":"2026-11-01"},"layers":[{"diff_id":"DIGEST","digest":"DIGEST","media'
    b'_type":"x","origin":"os","size":2900000000,"title":"1","unpacked":2900000000}],"licences":{},"name":"2.8-cu121-debian13-base","os":{"distr'
    b'ibution":"debian","id":"debian13","python":"3.13","release":"13","suite":"trixie"},"packages":[{"architecture":"amd64","licence":"","name"'
    b':"bash","source":"bash","source_version":"5.2","version":"5.2"}],"platform":"linux/amd64","schema":1,"size":3000000000,"source":{"revision'
    b'":"1111111111111111111111111111111111111111"},"tool":"0","torch":{"cuda":"12.8","git":"x","version":"2.8.0","wheels":"cu128"},"unpacked":6'
    b'000000000,"user":"1000:0","wheels":[{"filename":"x.whl","licence":"","name":"numpy","sha256":"0","size":1,"version":"2.1.0"}]}'
).replace(b"DIGEST", b"sha256:" + b"0" * 64)
RECORDS: Final = (RECORD, b"", b"null", b"[" * 2000)
PASSED: Final = (
    b'{"format":1,"image":{"reference":"pytorch-cuda:2.13-cpu-base","digest":"DIGEST","manifest":"DIGEST","config":"DIGEST"},"cell":"2.13-cpu-debian12",'
    b'"flavour":"base","tiers":["free"],"passed":true,"complete":true,"counts":{"required":1,"passed":1,"failed":0,"missing":0},"required":{"free":"DIGEST"},'
    b'"problems":[],"not_run":[],"revision":"unknown","host":{"kernel":"6.1","engine":"26.1","cpus":2},"gpu":null,"started":"2026-11-24T00:00:00+00:00",'
    b'"finished":"2026-11-24T00:01:00+00:00","tests":[{"id":"tests/x.py::test_x","tier":"free","section":"base","outcome":"passed","seconds":0.5}]}'
).replace(b"DIGEST", b"sha256:" + b"0" * 64)
EVIDENCE: Final = (PASSED, b"", b"null", b"[" * 2000)


def ledger(data: bytes) -> None:
    """Read bytes as a ledger; what is understood is what would be written."""
    found = Ledger.parse(data)
    assert found.content == data, data


def copy(data: bytes) -> None:
    """Read bytes as the manifest of a ledger's copy."""
    ledger_copy.read(data, "copy")


def rows(data: bytes) -> None:
    """Read bytes as the file of the matrix."""
    plain_yaml.parse(data, "matrix.yaml")


def lock(data: bytes) -> None:
    """Read bytes as a lock of wheels."""
    lockfile.parse(data.decode(errors="replace"), "a lock")


def os_lock(data: bytes) -> None:
    """Read bytes as a lock of OS packages."""
    os_locks.parse("debian12", data.decode(errors="replace"))


def verified(data: bytes) -> None:
    """Read bytes as evidence of a verification."""
    evidence.parse(data, "verify.json")
