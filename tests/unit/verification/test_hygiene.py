"""What is found in layers and configs, how layers of any compression are read, and how sizes are judged."""

from __future__ import annotations

import fnmatch
import gzip
import io
import json
import shutil
import struct
import tarfile
from itertools import chain

import pytest
import zstandard

from tests.tars import packed
from torchstrata.errors import IntegrityError
from torchstrata.matrix import matrix, plain_yaml
from torchstrata.verification import hygiene, inspection, size_budget

KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + 3 * (64 * b"a" + b"\n") + b"-----END OPENSSH PRIVATE KEY-----\n"
CORE = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<H", 4) + bytes(64)
LIBRARY = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<H", 3) + bytes(64)


def found(path, content=b"", mode=0o644, kind=tarfile.REGTYPE):
    """Return the rules that a member of a layer breaks."""
    member = tarfile.TarInfo(path)
    member.mode, member.type, member.size = mode, kind, len(content)
    return {one.rule for one in hygiene.judge(member, lambda: content)}


@pytest.mark.parametrize(
    ("path", "content", "rule"),
    [
        ("srv/any", KEY, "private-key"),
        ("srv/any.json", b'"key": "-----BEGIN PRIVATE KEY-----\\n' + 70 * b"a" + b'"', "private-key"),
        ("srv/any", b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\n" + 70 * b"a", "private-key"),
        ("srv/key.ppk", b"PuTTY-User-Key-File-3: ssh-ed25519\n", "private-key"),
        ("home/dev/.ssh/authorized_keys", b"ssh-ed25519 x", "authorized-keys"),
        ("etc/ssh/ssh_host_ed25519_key", b"", "host-key"),
        ("srv/log", 1000 * b"nothing\n" + b"ghp_" + 36 * b"a", "token"),
        ("srv/log", b"key AKIAABCDEFGHIJKLMNOP", "token"),
        ("srv/log", b"hf_" + 34 * b"a", "token"),
        ("srv/log", b"xoxb-1234567890-abcdef", "token"),
        ("srv/log", b"glpat-" + 20 * b"a", "token"),
        ("srv/.npmrc", b"//r/:_authToken=abcdefghij", "token"),
        ("srv/.npmrc", b"npm_" + 36 * b"a", "token"),
        ("root/.netrc", b"", "token"),
        ("root/.docker/config.json", b"{}", "token"),
        ("root/.git-credentials", b"", "token"),
        ("etc/shadow", b"root:*:1::\ndev:$y$j9T$abc:1::\n", "password"),
        ("srv/x/.git/HEAD", b"", "git"),
        ("root/.cache/pip/http-v2/a", b"", "cache"),
        ("home/dev/.cache/uv/a", b"", "cache"),
        ("var/lib/apt/lists/some_InRelease", b"", "leftover"),
        ("var/log/dpkg.log", b"", "leftover"),
        ("tmp/x", b"", "leftover"),
        ("srv/core.1", CORE, "core"),
        ("workspace/x", b"", "workspace"),
    ],
)
def test_offence(path, content, rule):
    """A file that breaks a rule is found, by its content or its path."""
    assert rule in found(path, content)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("usr/lib/libcrypto.so", LIBRARY + b"-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----"),
        ("srv/doc", b"AKIAIOSFODNN7EXAMPLE"),
        ("srv/code.py", b"self.hf_config, npm_config_registry, ghp_short"),
        ("srv/.npmrc", b"//r/:_authToken=${NPM_TOKEN}"),
        ("etc/shadow", b"root:*:1::\n"),
        ("usr/share/core/name", b"text"),
        ("srv/.gitignore", b""),
        ("root/.wh..ssh", b""),
        ("var/lib/apt/lists/partial", b""),
    ],
)
def test_no_offence(path, content):
    """What only looks like an offence is none."""
    assert found(path, content) == set()


def test_rights():
    """Lent rights and files that others may write are found; sticky temporary directories and links are not."""
    assert found("usr/bin/x", mode=0o4755) == found("usr/bin/x", mode=0o2755) == {"setuid"}
    assert found("srv/x", mode=0o666) == found("srv/d", mode=0o777, kind=tarfile.DIRTYPE) == found("tmp", mode=0o777, kind=tarfile.DIRTYPE) == {"writable"}
    assert found("tmp", mode=0o1777, kind=tarfile.DIRTYPE) == found("bin", mode=0o777, kind=tarfile.SYMTYPE) == set()
    assert found("workspace", mode=0o2775, kind=tarfile.DIRTYPE) == set()
    assert found("dev/null", mode=0o600, kind=tarfile.CHRTYPE) == {"device"}


def test_exceptions_are_narrow():
    """An exception names a rule and files, with a reason, and none of them covers a directory of any name."""
    assert all(entry.reason and not entry.paths.endswith("/*") for entry in hygiene.ALLOWED)
    assert not any(fnmatch.fnmatchcase("home/dev/key", entry.paths) for entry in hygiene.ALLOWED)


def test_findings_never_carry_the_secret():
    """What is reported is where and what, not the secret."""
    token = b"ghp_" + 36 * b"q"
    (one,) = hygiene.judge(tarfile.TarInfo("srv/log"), lambda: b"\n\n" + token)
    assert (one.rule, one.what) == ("token", "a token of GitHub in line 3")


def test_config():
    """Secrets in environment, labels and history are found; settings without a value are not."""
    config = {"Env": ["PATH=/bin", "MY_TOKEN=abcdef"], "Labels": {"a": "glpat-" + 20 * "a"}}
    history = [{"CreatedBy": "RUN curl -H ghp_" + 36 * "a", "Comment": ""}]
    rules = {(one.path, one.rule) for one in inspection.configured(config, history)}
    assert rules == {("Env", "token"), ("Labels", "token"), ("history", "token")}
    assert list(inspection.configured({"Env": ["JUPYTER_TOKEN=", "PASSWORD_FILE=$HOME/x"]}, [])) == []


def test_layers_of_any_compression():
    """The same findings and diff ID come from gzip, zstd and plain tars."""
    tar = packed({"a": b"fine", "b": KEY})
    seen = [inspection.look(io.BufferedReader(io.BytesIO(blob)), None) for blob in (tar, gzip.compress(tar), zstandard.compress(tar))]
    assert {(one.diff_id, next(finding.path for finding in one.findings)) for one in seen} == {(seen[0].diff_id, "b")}
    assert 0 < seen[0].size < len(tar)
    assert seen[1].size == len(gzip.compress(tar))


def test_layer_of_another_digest():
    """A blob that does not have the digest of its name is refused."""
    with pytest.raises(IntegrityError, match="instead of sha256:0"):
        inspection.look(io.BufferedReader(io.BytesIO(packed({"a": b""}))), "sha256:0")


@pytest.fixture
def cell():
    """The named cell of the committed matrix that has budgets."""
    return matrix.select(matrix.load(), "2.8-cu121")[0]


def test_growth_is_named_without_versions(cell):
    """Layers are compared by what they hold: another version of torch is not a new layer, and what grew most comes first."""
    before = size_budget.weigh(cell, [("torch 2.8.0", 100), ("debian13 base: RUN a", 10), ("debian13 base: COPY b", 5)])
    now = size_budget.weigh(cell, [("torch 2.8.1", 90), ("debian13 base: RUN c", 40), ("triton 3.4.0", 7)])
    assert dict(before) == {"torch": 100, "OS base": 15}
    assert size_budget.grown(now, before) == ["OS base: 40 B, was 15 B", "triton: 7 B, new"]


def _weighed(table):
    """Return what has weights of its own, a row on a platform, in the order of the matrix."""
    return {cell.weighed: cell for cell in matrix.everywhere(table.cells) if cell.is_default_os}


def test_budget_tolerates_five_per_cent(cell):
    """An image may be 5 % over its budget."""
    allowed = matrix.load().flavours["base"].budget(cell.short)
    assert not size_budget.is_over(round(allowed * 1.049), allowed)
    assert size_budget.is_over(round(allowed * 1.051), allowed)


def test_measured_sizes_become_the_budgets(tmp_path):
    """The line of each flavour that was measured says so, in the order of the matrix; its other budgets, and all else, stay as they are."""
    shutil.copytree(matrix.ROOT / "images", tmp_path / "images", symlinks=True)
    shutil.copy(matrix.MATRIX, tmp_path)
    before = matrix.load(tmp_path / matrix.MATRIX.name)
    kept = {path: path.read_text() for path in tmp_path.glob("images/*/flavour.yaml")}
    size_budget.write(before, {"base": {"2.8-cu121": 3_541_000_000, "2.15-cu132-arm64": 419_400_000}}, tmp_path)
    after = matrix.load(tmp_path / matrix.MATRIX.name)
    assert after.flavours["base"].sizes == before.flavours["base"].sizes | {"2.8-cu121": "3.54 GB", "2.15-cu132-arm64": "419 MB"}
    assert list(after.flavours["base"].sizes) == [known for known in _weighed(before) if known in after.flavours["base"].sizes]
    now = {path: path.read_text() for path in kept}
    assert [path.parent.name for path in kept if now[path] != kept[path]] == ["base"]
    lines = chain.from_iterable(zip(kept[path].splitlines(), now[path].splitlines(), strict=True) for path in kept)
    assert [new.partition(":")[0] for old, new in lines if old != new] == ["sizes"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n", "a: 1\nsizes: {}\n"),
        ("a: 1", "a: 1\nsizes: {}\n"),
        ("sizes: {x: 1}\na: 1\n", "sizes: {}\na: 1\n"),
        ("sizes:\n  x: 1\n  y: 2\n\n# why\na: 1\n", "sizes: {}\n\n# why\na: 1\n"),
        ("a: 1\nsizes: {x: 1,\n  y: 2}\nb: 2\n", "a: 1\nsizes: {}\nb: 2\n"),
        ("a: 1\nsizes:\n  x: 1\n", "a: 1\nsizes: {}\n"),
    ],
)
def test_a_key_is_replaced_however_it_is_written(text, expected):
    """In braces or in lines, in the middle or at the end; other lines stay."""
    assert plain_yaml.replaced(text, "sizes", "sizes: {}") == expected


def test_every_budget_has_a_record():
    """Budgets are of cells that there are, whose layers of that time are known, and no flavour may weigh less than its parent."""
    table = matrix.load()
    for name, flavour in table.flavours.items():
        for key in flavour.sizes:
            assert size_budget.recorded(_weighed(table)[key])
            above = [table.flavours[link].budget(key) for link in table.with_parents(name) if key in table.flavours[link].sizes]
            assert above == sorted(above)


def test_record_keeps_other_rows(cell, tmp_path):
    """Recording one row leaves the others."""
    path = tmp_path / size_budget.RECORD
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"other": {"torch": 1}}))
    size_budget.record(cell, {"torch": 2}, tmp_path)
    assert json.loads(path.read_text()) == {"other": {"torch": 1}, "2.8-cu121": {"torch": 2}}
