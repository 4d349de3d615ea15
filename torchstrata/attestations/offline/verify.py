"""Check a directory with images: every blob, and that everything beside them is what they say. Standard library only; asks no network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFESTS = {"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"}
MANIFESTS |= {"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"}

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
TITLE = "org.opencontainers.image.title"
NAME = "org.opencontainers.image.ref.name"
SIGNATURE = "dev.cosignproject.cosign/signature"

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
OWNED = re.compile(r"sha256-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~:%-]*")
"""As they are written: names of files, cosign's tags, and names and versions of packages."""

MADE = {"blobs", "documents", "signatures", "locks", "index.json", "oci-layout", "cosign.pub", "verify", "verify.py"}
"""What a directory has; anything else somebody has put there."""

LARGEST = 64_000_000
"""Bytes of a document."""

LINE = 300
"""Characters of what is said of a directory; its own words are cut there."""


class Damaged(Exception):
    """Something is not what it must be."""


def sha256(content: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pieces(path: Path, limit: int) -> Iterator[bytes]:
    """Yield the content of a file, which ends where its size says.

    :raises Damaged: it is no file, or has more bytes than ``limit``, or than its size says.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123  # what a link leads to, or a pipe, may never end
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise Damaged(f"{path.name} is no file, or has more than {limit} bytes")
        left = status.st_size + 1
        while data := file.read(min(left, 1 << 20)):
            left -= len(data)
            if not left:
                raise Damaged(f"{path.name} has more bytes than its size says")
            yield data


def digest_of(path: Path, size: int) -> str:
    """Return the digest of a file.

    :raises Damaged: it is none, or has more bytes than ``size``.
    """
    seen = hashlib.sha256()
    for data in pieces(path, size):
        seen.update(data)
    return f"sha256:{seen.hexdigest()}"


def load(path: Path) -> bytes:
    """Return the content of a document.

    :raises Damaged: it is no file, or too large to be one.
    """
    return b"".join(pieces(path, LARGEST))


def walk(root: Path) -> dict[str, int]:
    """Return bytes by path of all files below ``root``.

    :raises Damaged: there is a link, a pipe, a device, or what does not belong there.
    """
    found = {}
    for place, directories, files in os.walk(root):
        for path in (Path(place) / name for name in directories + files):
            status, name = path.lstat(), path.relative_to(root)
            if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                raise Damaged(f"{name} is no file")
            if name.parts[0] not in MADE:
                raise Damaged(f"{name} does not belong here")
            if stat.S_ISREG(status.st_mode):
                found[name.as_posix()] = status.st_size
    return found


def blob(digest: str) -> str:
    """Return the path of a blob.

    :raises Damaged: it is not named by a digest.
    """
    found = DIGEST.fullmatch(digest)
    if not found:
        raise Damaged(f"{digest!r} is no digest")
    return f"blobs/sha256/{found[1]}"


def read(root: Path, digest: str) -> Any:
    """Return a document, whose digest has been seen to be right."""
    return json.loads(load(root / blob(digest)))


def reach(root: Path, listed: list[Any], present: dict[str, int], seen: dict[str, int]) -> None:
    """Follow descriptors to everything that they need; only what has the size that they say is read.

    :raises Damaged: something is not there, or of another size, or has other bytes.
    """
    for each in listed:
        digest, size = each["digest"], each["size"]
        if present.get(blob(digest)) != size:
            raise Damaged(f"{digest} is not there, or not {size} bytes")
        if digest not in seen:
            if digest_of(root / blob(digest), size) != digest:
                raise Damaged(f"{blob(digest)} has other bytes than its name says")
            seen[digest] = size
            if each["mediaType"] in MANIFESTS:
                document = read(root, digest)
                config = [document["config"]] if "config" in document else []
                reach(root, [*config, *document.get("layers", []), *document.get("manifests", [])], present, seen)


# What lies beside images


def numbered(documents: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield name and digest of the files that are attached to an image; of several with one name each has a number."""
    count: dict[str, int] = {}
    for layer in (layer for document in documents for layer in document.get("layers") or []):
        name = (layer.get("annotations") or {}).get(TITLE, "").rpartition("/")[2]
        if FILE.fullmatch(name):
            count[name] = count.get(name, 0) + 1
            stem, dot, rest = name.partition(".")
            file = name if count[name] == 1 else f"{stem}-{count[name]}{dot}{rest}"
            is_bundle = layer.get("mediaType") == BUNDLE and not file.endswith(".sigstore.json")
            yield f"{file}.sigstore.json" if is_bundle else file, layer["digest"]


def signed(document: Any) -> Iterator[tuple[str, str]]:
    """Yield name and digest of cosign's signatures, each with what is signed."""
    for number, layer in enumerate(document.get("layers") or [], 1):
        signature = (layer.get("annotations") or {}).get(SIGNATURE)
        if signature:
            yield f"image-{number}.payload", layer["digest"]
            yield f"image-{number}.sig", sha256(signature.encode())


def lines(found: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the ending and the lines of each lock of an image, as its record has them.

    :raises Damaged: a name or a version is none, so that pip or apt would read something else.
    """
    inputs, system, wheels, packages = found["inputs"], found["os"], found["wheels"], found["packages"]
    words = [each[key] for each in wheels for key in ("name", "version", "filename", "sha256")]
    words += [each[key] for each in packages for key in ("name", "architecture", "version")]
    if not all(WORD.fullmatch(word) for word in words):
        raise Damaged("a record names a package that is none")
    pins = [f"{each['name']}=={each['version']} --hash=sha256:{each['sha256']}  # {each['filename']} {each['size']}" for each in wheels]
    head = f"# {found['name']} {found['digest']}"
    yield ".lock", [head, f"# lock: {inputs['lock']}", f"# no newer than: {inputs['lock_seen']}", *pins]
    about = f"# {system['distribution']} {system['release']}; lock: {inputs['os_lock']} of {inputs['os_lock_date']}"
    yield ".packages", [head, about, *(f"{each['name']}:{each['architecture']}={each['version']}" for each in packages)]


def locks(root: Path, title: str, digest: str) -> Iterator[tuple[str, str]]:
    """Yield path and digest of the locks that follow from the record of an image.

    :raises Damaged: it is no record, since a line of it would be two.
    """
    for ending, each in lines(read(root, digest)):
        if not all(line.isprintable() for line in each):
            raise Damaged(f"the record of {title} has lines in its words")
        yield f"locks/{title}{ending}", sha256("".join(f"{line}\n" for line in each).encode())


def beside(root: Path, title: str, digest: str, documents: list[Any], signature: Any) -> dict[str, str]:
    """Return digest by path of all files of an image, as they are written."""
    files, signatures = dict(numbered(documents)), dict(signed(signature))
    found = {f"documents/{title}/{name}": each for name, each in files.items() if not name.endswith(".sigstore.json")}
    signatures.update({name: each for name, each in files.items() if name.endswith(".sigstore.json")})
    if signatures:
        found[f"signatures/{title}/manifest.json"] = digest
    found.update({f"signatures/{title}/{name}": each for name, each in signatures.items()})
    found.update(locks(root, title, files["record.json"]) if "record.json" in files else ())
    return found


def title_of(path: str) -> str | None:
    """Return the image that a file belongs to, ``None`` if it is beside none."""
    first, _, rest = path.partition("/")
    if first == "locks":
        return re.sub(r"\.(lock|packages)\Z", "", rest)
    return rest.partition("/")[0] if first in {"documents", "signatures"} else None


def tag_of(each: Any) -> str:
    """Return the tag of a descriptor, nothing if it has none."""
    return str((each.get("annotations") or {}).get(NAME, ""))


def images(listed: list[Any], manifests: dict[str, Any]) -> dict[str, set[str]]:
    """Return digest of each manifest and what files of it may be called: by its digest, or by a tag."""
    found = {digest: {digest.replace(":", "-")} for digest in manifests}
    for each in listed:
        if tag_of(each) and not OWNED.fullmatch(tag_of(each)):
            found[each["digest"]].add(tag_of(each))
    return found


def chosen(listed: list[Any], manifests: dict[str, Any]) -> set[str]:
    """Return the images whose files must be there, and the indexes: they refer to nothing, and are no signature of cosign's."""
    owned = {each["digest"] for each in listed if OWNED.fullmatch(tag_of(each))}
    return {digest for digest, document in manifests.items() if not document.get("subject")} - owned


def papers(root: Path, listed: list[Any], present: dict[str, int]) -> int:
    """Check that the files beside images are those that belong to them, all and no others; return how many there are.

    :raises Damaged: one is missing, has other bytes, or is too many; or what refers to an image refers to none that is here.
    """
    manifests = {each["digest"]: read(root, each["digest"]) for each in listed}
    tags, there = {tag_of(each): each["digest"] for each in listed}, {path: title for path in present if (title := title_of(path)) is not None}
    wanted, required = dict[str, str](), chosen(listed, manifests)
    for digest, titles in images(listed, manifests).items():
        documents = [each for each in manifests.values() if (each.get("subject") or {}).get("digest") == digest]
        signature = manifests.get(tags.get(f"{digest.replace(':', '-')}.sig", ""), {})
        used = titles & set(there.values()) or ({digest.replace(":", "-")} if digest in required else set())
        for title in used:
            wanted.update(beside(root, title, digest, documents, signature))
    compare(root, wanted, {path: present[path] for path in there})
    return len(there)


def compare(root: Path, wanted: dict[str, str], there: dict[str, int]) -> None:
    """Compare files with digests.

    :raises Damaged: they differ.
    """
    for path in sorted({*wanted, *there}):
        if path not in there:
            raise Damaged(f"{path} is not there")
        if path not in wanted or digest_of(root / path, there[path]) != wanted[path]:
            raise Damaged(f"{path} is not what is attached to the image, or follows from its record")


def subjects(root: Path, listed: list[Any], seen: dict[str, int]) -> None:
    """Check that what refers to a manifest refers to one that is here."""
    for each in listed:
        subject = read(root, each["digest"]).get("subject")
        if subject and subject["digest"] not in seen:
            raise Damaged(f"{each['digest']} refers to {subject['digest']}, which is not here")


def signatures(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, type, file of the signature and file that is signed, having seen that each is about its image.

    :raises Damaged: one is about another.
    """
    for directory in sorted((root / "signatures").glob("*")):
        digest = sha256(load(directory / "manifest.json"))
        if not all(path.name.isprintable() for path in (directory, *directory.iterdir())):
            raise Damaged(f"{directory.relative_to(root)} has files whose names cannot be shown")
        for payload in sorted(directory.glob("*.payload")):
            if json.loads(load(payload))["critical"]["image"]["docker-manifest-digest"] != digest:
                raise Damaged(f"{payload.relative_to(root)} is about another image")
            yield "image", "-", str(payload.with_suffix(".sig")), str(payload)
        for bundle in sorted(directory.glob("*.sigstore.json")):
            statement = json.loads(base64.b64decode(json.loads(load(bundle))["dsseEnvelope"]["payload"]))
            if [f"sha256:{each['digest']['sha256']}" for each in statement["subject"]] != [digest]:
                raise Damaged(f"{bundle.relative_to(root)} is about another image")
            if not re.fullmatch(r"[\x21-\x7e]+", statement["predicateType"]):  # it becomes a word of a line that `verify` reads
                raise Damaged(f"{bundle.relative_to(root)} has no type")
            yield "statement", statement["predicateType"], str(bundle), str(directory / "manifest.json")


def check(root: Path) -> str:
    """Check everything, and say what there is.

    :raises Damaged: something is not what it must be.
    """
    listed = json.loads(load(root / "index.json"))["manifests"]
    present, seen = walk(root), dict[str, int]()
    reach(root, listed, present, seen)
    subjects(root, listed, seen)
    count = papers(root, listed, present)
    list(signatures(root))
    names = {tag_of(each) for each in listed} - {""}
    others = sum(path.startswith("blobs/") for path in present) - len(seen)
    unread = f"; {others} files among the blobs that nothing names were not read" if others else ""
    return f"{len(seen)} blobs, {sum(seen.values())} bytes, {len(names)} tags, {count} files beside them: all have their digests{unread}"


def main(words: list[str]) -> int:
    """Check the directory, or list what cosign has to check there."""
    root = Path(words[-1])
    try:
        lines = ["\t".join(each) for each in signatures(root)] if words[0] == "--signatures" else [check(root)]
    except Damaged as error:
        return wrong(str(error))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return wrong(f"the directory is not complete: {error!r}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def wrong(what: str) -> int:
    """Say in one line what is wrong, and fail; what a terminal would obey is not shown."""
    sys.stderr.write("WRONG: " + "".join(one if one.isprintable() else "?" for one in what[:LINE]) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
