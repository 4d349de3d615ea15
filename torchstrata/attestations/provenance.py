"""Where an image came from: a SLSA provenance (https://slsa.dev/spec/v1.0/provenance) in an in-toto statement.

Every wheel with its SHA-256, every OS package with its version, the OS image, the toolchain and the commit are
dependencies. The build type is described in docs/registry.md, "What is attached, and what it proves".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from torchstrata.attestations import sbom
from torchstrata.attestations.record import Record
from torchstrata.image.compose import canonical

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
MEDIA_TYPE: Final = "application/vnd.in-toto+json"

BUILD_TYPE: Final = "urn:torchstrata:build:compose:v1"
BY_HAND: Final = "urn:torchstrata:builder:unattested"
"""Builder of an image that somebody built on a machine of their own: nobody vouches for that machine."""


def predicate(record: Record, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the predicate.

    :param environment: variables of the process; those of GitHub Actions name the workflow and the run.
    """
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"cell": record.cell, "flavour": record.flavour, "user": record.user},
            "internalParameters": {"codec": record.inputs.codec, "platform": record.platform},
            "resolvedDependencies": list(_dependencies(record)),
        },
        "runDetails": {
            "builder": {"id": builder(environment), "version": {sbom.TOOL: record.tool}},
            "metadata": _metadata(environment),
        },
    }


def statement(record: Record, environment: Mapping[str, str]) -> bytes:
    """Return the predicate as a statement about the image."""
    subject = {"name": record.name, "digest": {"sha256": record.digest.removeprefix("sha256:")}}
    return canonical({"_type": STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": predicate(record, environment)})


def builder(environment: Mapping[str, str]) -> str:
    """Return who built: in GitHub Actions the workflow at its commit's branch or tag, else :data:`BY_HAND`."""
    if environment.get("GITHUB_ACTIONS") == "true" and environment.get("GITHUB_WORKFLOW_REF"):
        return f"{environment.get('GITHUB_SERVER_URL', 'https://github.com')}/{environment['GITHUB_WORKFLOW_REF']}"
    return BY_HAND


def _metadata(environment: Mapping[str, str]) -> dict[str, str]:
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT")
    if environment.get("GITHUB_ACTIONS") != "true" or not all(environment.get(name) for name in names):
        return {}
    server, repository, run, attempt = (environment[name] for name in names)
    return {"invocationId": f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}"}


def _dependencies(record: Record) -> Iterator[dict[str, Any]]:
    yield _source(record)
    yield _os_image(record)
    for piece in sbom.pieces(record):
        yield {"uri": piece.purl.to_string(), "name": piece.file or piece.name, **({"digest": {"sha256": piece.sha256}} if piece.sha256 else {})}


def _source(record: Record) -> dict[str, Any]:
    commit = record.source.revision.removesuffix("-dirty")
    return {
        "name": "source",
        **({"uri": f"git+{record.source.repository}"} if record.source.repository else {}),
        **({"digest": {"gitCommit": commit}} if re.fullmatch("[0-9a-f]{40,64}", commit) else {}),
        **({"annotations": {"changed": "files differed from the commit"}} if commit != record.source.revision else {}),
    }


def _os_image(record: Record) -> dict[str, Any]:
    reference, at, digest = record.inputs.os_image.partition("@sha256:")
    if at:
        return {"name": "OS image", "uri": f"docker://{reference}", "digest": {"sha256": digest}}
    return {"name": "OS image", "uri": f"urn:torchstrata:os:{record.os.id}", "annotations": {"made": record.inputs.os_image}}
