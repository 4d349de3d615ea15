"""What no layer of an image may hold: secrets, leftovers of a build, files that others may write or that lend rights.

Pure functions of one member of a layer's tar, or of one line of an image's config. Everything that breaks a rule is
found; what is allowed all the same stands in :data:`ALLOWED`, each with its reason, and is taken away by
:func:`offences`.
"""

from __future__ import annotations

import fnmatch
import re
import stat
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

SCANNED: Final = 16_000_000
"""Bytes of the largest file whose content is read for secrets; larger ones are libraries and data."""

HEAD: Final = 64
"""Bytes from the beginning of a file that tell what kind of file it is."""

ET_CORE: Final = 4
"""Type of a core file in its ELF header (elf(5))."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Violation:
    """Something that breaks a rule.

    :param rule: name of the rule, such as ``private-key``.
    :param path: of the file, without leading slash; or where it stands in the image's config.
    :param what: what was seen there; never the secret itself.
    """

    rule: str
    path: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """Files that may break a rule.

    :param paths: glob on paths.
    :param reason: why that is right.
    """

    rule: str
    paths: str
    reason: str


ALLOWED: Final = (
    Allowed(rule="writable", paths="run/lock", reason="Debian's base-files: a place for locks of anybody, sticky"),
    Allowed(
        rule="private-key", paths="usr/lib/*/libgnutls.so.*", reason="keys of the library's tests of itself (FIPS 140), the same everywhere and known to all"
    ),
    Allowed(rule="private-key", paths="opt/venv/lib/*/site-packages/av.libs/libgnutls-*.so.*", reason="the same keys, in the copy that PyAV's wheel brings"),
    Allowed(rule="private-key", paths="opt/venv/lib/*/site-packages/tornado/test/test.key", reason="key of tornado's own tests, published with its wheel"),
)
"""What breaks a rule and may: few files, each with its reason."""

_KEY: Final = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n)+(?:[A-Za-z-]+: [^\n]*\s+)*(?:[A-Za-z0-9+/=]|\s|\\n){64}|PuTTY-User-Key-File-\d: "
)

SECRETS: Final[Mapping[str, tuple[bytes, re.Pattern[bytes]]]] = {
    "a private key": (b"PRIVATE KEY", _KEY),
    "a private key of PuTTY": (b"PuTTY-User-Key-File-", re.compile(rb"PuTTY-User-Key-File-\d: ssh")),
    "a token of GitHub": (b"ghp_", re.compile(rb"(?<![A-Za-z0-9])ghp_[A-Za-z0-9]{36}")),
    "a token of a GitHub app": (b"ghs_", re.compile(rb"(?<![A-Za-z0-9])ghs_[A-Za-z0-9]{36}")),
    "a fine-grained token of GitHub": (b"github_pat_", re.compile(rb"(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{60}")),
    "a key of AWS": (b"AKIA", re.compile(rb"(?<![A-Za-z0-9/+])AKIA[A-Z0-9]{16}(?![A-Za-z0-9/+=])(?<!EXAMPLE)")),
    "a token of Hugging Face": (b"hf_", re.compile(rb"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{34}(?![A-Za-z0-9_])")),
    "a token of Slack": (b"xox", re.compile(rb"(?<![A-Za-z0-9])xox[abeoprs]-[0-9]{6,}[0-9A-Za-z-]+")),
    "a token of GitLab": (b"glpat-", re.compile(rb"(?<![A-Za-z0-9])glpat-[0-9A-Za-z_-]{20}")),
    "a token of npm": (b"npm_", re.compile(rb"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_])")),
    "a login to an npm registry": (b"_authToken", re.compile(rb"_authToken\s*=\s*[^\s$\"'{]{8}")),
    "a token of a Python index": (b"pypi-AgE", re.compile(rb"pypi-AgE[A-Za-z0-9_-]{50}")),
}
"""Kinds of secrets: bytes that each contains, which are fast to search for, and its form."""

LOGIN_FILES: Final = (
    ".netrc", ".pypirc", ".git-credentials", ".pgpass", ".docker/config.json", ".dockercfg", ".aws/credentials", ".kube/config", ".config/gh/hosts.yml",
    ".cache/huggingface/token", ".huggingface/token",
)  # fmt: skip
"""Files in which programs keep logins, by the end of their path."""

_SETTING: Final = re.compile(r"(?i)\b([a-z0-9_]*(?:password|passwd|secret|token|api_?key|access_?key|private_?key)[a-z0-9_]*)=[^\s$]{4}")
_HASH: Final = re.compile(rb"(?m)^([^:\n]+):\$[^:\n]+:")

TEMPORARY: Final = ("tmp", "var/tmp")


def offences(findings: Iterable[Violation]) -> Iterator[Violation]:
    """Yield the findings that no entry of :data:`ALLOWED` names."""
    for finding in findings:
        if not any(finding.rule == entry.rule and fnmatch.fnmatchcase(finding.path, entry.paths) for entry in ALLOWED):
            yield finding


def judge(member: tarfile.TarInfo, read: Callable[[], bytes]) -> Iterator[Violation]:
    """Yield everything that breaks a rule in one member of a layer.

    :param read: gives the content of a file, :data:`HEAD` bytes of one that is larger than :data:`SCANNED`.
    """
    path = member.name.removeprefix("./").strip("/")
    if path.rpartition("/")[2].startswith(".wh."):
        return
    for rule, what in (*_names(path, member), *_rights(path, member)):
        yield Violation(rule=rule, path=path, what=what)
    if member.isreg():
        content = read()
        for rule, what in (*_core(content), *secrets(content), *_passwords(path, content)):
            yield Violation(rule=rule, path=path, what=what)


def secrets(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield rule and kind of every kind of secret in ``content``, with the line where the first of it begins."""
    for kind, (part, form) in SECRETS.items():
        if part in content and (match := form.search(content)):
            rule = "private-key" if "private key" in kind else "token"
            line = content.count(b"\n", 0, match.start()) + 1
            yield rule, f"{kind} in line {line}"


def configured(where: str, text: str) -> Iterator[Violation]:
    """Yield the secrets in a piece of an image's config.

    :param where: names the piece, such as ``Env``.
    """
    for rule, what in secrets(text.encode()):
        yield Violation(rule=rule, path=where, what=what)
    for match in _SETTING.finditer(text):
        yield Violation(rule="token", path=where, what=f"a value of {match[1]}")


def _names(path: str, member: tarfile.TarInfo) -> Iterator[tuple[str, str]]:
    """Yield rules that the path alone breaks."""
    parts = path.split("/")
    if parts[-1] in {"authorized_keys", "authorized_keys2"}:
        yield "authorized-keys", "lets whoever has the key in"
    if path.startswith("etc/ssh/ssh_host_"):
        yield "host-key", "every container would share it"
    if any(f"/{path}".endswith(f"/{name}") for name in LOGIN_FILES):
        yield "token", "programs keep logins there"
    if ".git" in parts:
        yield "git", "history of sources"
    if path.startswith("workspace/"):
        yield "workspace", "a mount would hide it"
    if not member.isdir() and (what := _leftover(path)):
        yield what


def _leftover(path: str) -> tuple[str, str] | None:
    if re.search(r"(^|/)\.cache/(pip|uv)/|(^|/)(pip|uv)-cache/|^(root|home/[^/]+)/\.cache/", path):
        return "cache", "cache of a build"
    if re.match(r"var/(lib/apt/lists/(?!partial$)|cache/apt/|log/)", path):
        return "leftover", "list, archive or log of a build"
    if re.match(r"(tmp|var/tmp|run)/", path):
        return "leftover", "temporary file of a build"
    return None


def _rights(path: str, member: tarfile.TarInfo) -> Iterator[tuple[str, str]]:
    """Yield rules that owner, group and mode break."""
    if member.isreg() and member.mode & (stat.S_ISUID | stat.S_ISGID):
        yield "setuid", f"mode {member.mode:04o}, owner {member.uid}:{member.gid}"
    sticky = member.isdir() and member.mode & stat.S_ISVTX and path in TEMPORARY
    if member.mode & stat.S_IWOTH and not member.issym() and not sticky:
        yield "writable", f"mode {member.mode:04o}"
    if member.isdev():
        yield "device", "device node"
    if any(name in member.pax_headers for name in ("SCHILY.xattr.security.capability", "LIBARCHIVE.xattr.security.capability")):
        yield "setuid", "capabilities"


def _core(content: bytes) -> Iterator[tuple[str, str]]:
    if content.startswith(b"\x7fELF") and len(content) >= HEAD and struct.unpack_from("<H", content, 16)[0] == ET_CORE:
        yield "core", "core file"


def _passwords(path: str, content: bytes) -> Iterator[tuple[str, str]]:
    if path in {"etc/shadow", "etc/passwd", "etc/shadow-", "etc/passwd-"}:
        for match in _HASH.finditer(content):
            yield "password", f"password of {match[1].decode(errors='replace')}"
