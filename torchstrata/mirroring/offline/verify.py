"""Check a directory with images: every blob, and that everything beside them is what they say. Standard library only; asks no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFESTS = {"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"}
MANIFESTS |= {"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"}

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
LARGEST = 64_000_000
"""Bytes of a document."""

LINE = 300
"""Characters of what is said of a directory; its own words are cut there."""

HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


class Damaged(Exception):
    """Something is not what it must be."""


def digest_of(path: Path) -> str:
    """Return the digest of a file.

    :raises Damaged: it is none.
    """
    if not path.is_file():  # a pipe or a device may never end
        raise Damaged(f"{path.name} is no file")
    seen = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            seen.update(data)
    return f"sha256:{seen.hexdigest()}"


def load(path: Path) -> bytes:
    """Return the content of a document.

    :raises Damaged: it is no file, or too large to be one.
    """
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise Damaged(f"{path.name} is no file, or has more than {LARGEST} bytes")
    return path.read_bytes()


def blobs(root: Path) -> dict[str, int]:
    """Return bytes by digest, having read every blob.

    :raises Damaged: one has other bytes than its name says.
    """
    found = {}
    for path in sorted((root / "blobs" / "sha256").glob("[0-9a-f]*")):
        if digest_of(path) != f"sha256:{path.name}":
            raise Damaged(f"blobs/sha256/{path.name} has other bytes than its name says")
        found[f"sha256:{path.name}"] = path.stat().st_size
    return found


def read(root: Path, digest: str) -> Any:
    """Return a manifest.

    :raises Damaged: it is not named by a digest.
    """
    found = DIGEST.fullmatch(digest)
    if not found:
        raise Damaged(f"{digest!r} is no digest")
    return json.loads(load(root / "blobs" / "sha256" / found[1]))


def reach(root: Path, listed: list[Any], known: dict[str, int], seen: set[str]) -> None:
    """Follow descriptors to everything that they need.

    :raises Damaged: something is not there, or of another size.
    """
    for each in listed:
        digest, size = each["digest"], each["size"]
        if known.get(digest) != size:
            raise Damaged(f"{digest} is not there, or not {size} bytes")
        if digest not in seen:
            seen.add(digest)
            if each["mediaType"] in MANIFESTS:
                document = read(root, digest)
                config = [document["config"]] if "config" in document else []
                reach(root, [*config, *document.get("layers", []), *document.get("manifests", [])], known, seen)


def subjects(root: Path, listed: list[Any], seen: set[str]) -> None:
    """Check that what refers to a manifest refers to one that is here."""
    for each in listed:
        subject = read(root, each["digest"]).get("subject")
        if subject and subject["digest"] not in seen:
            raise Damaged(f"{each['digest']} refers to {subject['digest']}, which is not here")


def papers(root: Path, seen: set[str]) -> int:
    """Check that every file beside the images is one of their blobs; return how many there are."""
    found = [path for name in ("documents", "signatures") for path in sorted((root / name).rglob("*")) if path.is_file() and path.suffix != ".sig"]
    for path in found:
        if digest_of(path) not in seen:
            raise Damaged(f"{path.relative_to(root)} is not what is attached to the image")
    return len(found)


def locks(root: Path) -> None:
    """Check that locks have the wheels that the records name, and no others."""
    for path in sorted((root / "locks").glob("*.lock")):
        record = json.loads(load(root / "documents" / path.stem / "record.json"))
        if set(HASH.findall(load(path).decode())) != {f"sha256:{each['sha256']}" for each in record["wheels"]}:
            raise Damaged(f"{path.relative_to(root)} has not the wheels that the record names")


def signatures(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, type, file of the signature and file that is signed, having seen that each is about its image.

    :raises Damaged: one is about another.
    """
    for directory in sorted((root / "signatures").glob("*")):
        digest = digest_of(directory / "manifest.json")
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
    known, seen = blobs(root), set[str]()
    reach(root, listed, known, seen)
    subjects(root, listed, seen)
    beside = papers(root, seen)
    locks(root)
    list(signatures(root))
    names = {each["annotations"]["org.opencontainers.image.ref.name"] for each in listed if "org.opencontainers.image.ref.name" in each.get("annotations", {})}
    return f"{len(seen)} blobs, {sum(known[each] for each in seen)} bytes, {len(names)} tags, {beside} files beside them: all have their digests"


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
