"""Fail unless this container is what the signed record of an approved image says. Standard library and cosign only.

A container cannot see its own digest. So the digest that the job names is looked up, its record is believed because of who has
signed it, and every package that is installed here is compared with it, and every file with what its package says of it. What there is here,
and how it differs, ``inv drift`` finds by the same modules of the repository that this file lies in, which Actions fetch whole.
"""

from __future__ import annotations

import argparse
import base64
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from torchstrata.drift import comparison, contents  # by the line above

FACTS = Path("/etc/torchstrata/image.json")
RECORD = "urn:torchstrata:record:v1"
INDEX = "urn:torchstrata:index:v1"
PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
"""By what the kernel calls the machine; an index has an image for each."""

NO_ROOT = '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'
"""All that a key pair needs, and no reason for cosign to ask the internet."""

REFERENCE = re.compile(r"(?P<name>[^\s@]+)@(?P<digest>sha256:[0-9a-f]{64})")


class Refused(Exception):
    """Why the job must not go on."""


def digest(image: str) -> str:
    """Return the digest in a reference.

    :raises Refused: it names no digest, and what a tag means today is not what it means tomorrow.
    """
    found = REFERENCE.fullmatch(image)
    if not found:
        raise Refused(f"{image!r} is not a digest: write HOST/REPOSITORY@sha256:... here and in `container:`")
    return found["digest"]


def check_approved(wanted: str, approved: str) -> None:
    """Check that a digest is in a list, or in the file that is named; an empty list approves whatever is signed.

    :raises Refused: it is not.
    """
    if not approved.strip():
        return
    file = Path(approved.split(maxsplit=1)[0])
    lines = file.read_text(encoding="utf-8") if file.is_file() else approved
    if wanted not in re.findall(r"sha256:[0-9a-f]{64}\b", lines):
        raise Refused(f"{wanted} is not among the approved images")


def record(image: str, key: str, identity: str, issuer: str) -> dict[str, Any]:
    """Return the signed record of an image; of an index, that of its image for this machine.

    :raises Refused: there is none by whose signature counts.
    """
    try:
        return signed(image, RECORD, key, identity, issuer)
    except Refused as refused:
        try:
            index = signed(image, INDEX, key, identity, issuer)
        except Refused:
            raise refused from None
    return signed(child(image, index, platform.machine()), RECORD, key, identity, issuer)


def child(image: str, index: Mapping[str, Any], machine: str) -> str:
    """Return the image of an index that nodes of a machine's kind run.

    :raises Refused: it has none.
    """
    name = PLATFORMS.get(machine, machine)
    if name not in index["images"]:
        raise Refused(f"{image} has no image for {name}, but for {', '.join(index['images'])}")
    return f"{image.partition('@')[0]}@{index['images'][name]}"


def signed(image: str, kind: str, key: str, identity: str, issuer: str) -> dict[str, Any]:
    """Return what is signed about an image.

    :param kind: type of the predicate.
    :raises Refused: there is nothing by whose signature counts.
    """
    if not key and not identity:
        raise Refused("nothing says whose signatures count: give `key`, or `identity` for keyless ones")
    with tempfile.TemporaryDirectory() as work:
        root = Path(work, "root.json")
        root.write_text(NO_ROOT, encoding="ascii")
        who = [f"--key={key}", "--insecure-ignore-tlog=true", f"--trusted-root={root}"] if key else []
        who += [] if key else [f"--certificate-identity-regexp={identity}", f"--certificate-oidc-issuer={issuer}"]
        command = ["cosign", "verify-attestation", "--new-bundle-format", f"--type={kind}", *who, image]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{image} has no signed record: {(done.stderr.strip().splitlines() or ['cosign says nothing'])[-1]}")
    return predicate(done.stdout, digest(image), kind)


def predicate(answer: str, wanted: str, kind: str = RECORD) -> dict[str, Any]:
    """Return the record in cosign's answer, one envelope a line.

    :raises Refused: none of them is a record of the image.
    """
    for line in answer.splitlines():
        statement = json.loads(base64.b64decode(json.loads(line)["payload"]))
        about = {f"sha256:{each['digest'].get('sha256')}" for each in statement["subject"]}
        found: dict[str, Any] = statement["predicate"]
        if statement["predicateType"] == kind and about == {wanted} and found["digest"] == wanted:
            return found
    raise Refused(f"no record that is signed is about {wanted}")


def lines_of(kind: str, recorded: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return a line for each name that is not as recorded."""
    found = comparison.versions(kind, recorded, here)
    return [f"{kind} {one.name}: {one.now or 'not installed'}, recorded {one.was or 'as not there'}" for one in found]


def identity_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what an image says that it is."""
    labels = facts["labels"]
    return {name: labels.get(f"torchstrata.{name}", "nothing") for name in ("cell", "flavour", "lock")}


def compare(found: Mapping[str, Any], facts: Mapping[str, Any], here: contents.Contents, edited: Mapping[str, str]) -> list[str]:
    """Return all in which this container is not what a record says.

    :param edited: files that are not what their packages say, with the package.
    """
    recorded = {"cell": found["cell"], "flavour": found["flavour"], "lock": found["inputs"]["lock"]}
    lines = lines_of("image", recorded, identity_of(facts))
    lines += lines_of("wheel", {contents.normal(each["name"]): each["version"] for each in found["wheels"]}, {one.name: one.version for one in here.wheels})
    lines += lines_of("package", {f"{each['name']}:{each['architecture']}": each["version"] for each in found["packages"]}, here.packages)
    return lines + [f"file {path}: not what {name} has brought" for path, name in sorted(edited.items())]


def check(options: argparse.Namespace) -> str:
    """Return what this container is.

    :raises Refused: it is not what it must be; all differences are named.
    """
    check_approved(digest(options.image), options.approved)
    found = record(options.image, options.key, options.identity, options.issuer)
    if not FACTS.is_file():
        raise Refused("this job runs in no image of ours: there is no /etc/torchstrata/image.json; name one in `container:`")
    here = contents.Contents(contents.wheels(), contents.packages())
    lines = compare(found, json.loads(FACTS.read_text(encoding="utf-8")), here, contents.edited(here.wheels))
    if lines:
        raise Refused("\n".join([f"{len(lines)} differences from the record of {options.image}:", *lines]))
    return f"{found['name']}, {len(found['wheels'])} wheels and {len(found['packages'])} packages as recorded"


def main(words: Sequence[str]) -> int:
    """Say what this container is and return 0, or say what is wrong and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    for name in ("approved", "key", "identity", "issuer"):
        parser.add_argument(f"--{name}", default="")
    try:
        sys.stdout.write(f"{check(parser.parse_args(words))}\n")
    except Refused as refusal:
        first, *rest = str(refusal).splitlines()
        sys.stdout.write("\n".join([f"::error title=not the same image::{first}", *rest]) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
