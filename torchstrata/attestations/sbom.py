"""Bills of materials of an image, from its record: CycloneDX 1.6 and SPDX 2.3, both as JSON.

Both list the wheels of the lock with their hashes, the packages that dpkg has, and what a toolchain was made from,
each with its package URL and its licence. The serial number follows from the image's digest and the time is the
image's, so that the same image has the same bytes.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from torchstrata import decoding
from torchstrata.attestations.record import Record
from torchstrata.image.compose import canonical

CYCLONEDX: Final = "application/vnd.cyclonedx+json"
SPDX: Final = "application/spdx+json"

TOOL: Final = "torchstrata"
NOTHING_SAID: Final = "NOASSERTION"
"""SPDX's word for what nobody has stated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A package, as both formats list it.

    :param key: unique in the document.
    :param sha256: in hex, of the file that it was installed from; empty where that is not known.
    :param file: that file's name.
    """

    key: str
    name: str
    version: str
    purl: PackageURL
    licence: str
    sha256: str = ""
    file: str = ""


def pieces(record: Record) -> Iterator[Piece]:
    """Yield every package of an image, by kind and name."""
    for wheel in record.wheels:
        purl = PackageURL("pypi", None, wheel.name, wheel.version)
        yield Piece(
            key=f"python-{wheel.name}",
            name=wheel.name,
            version=wheel.version,
            purl=purl,
            licence=wheel.licence,
            sha256=wheel.sha256,
            file=wheel.filename,
        )
    for package in record.packages:
        source = {} if package.source == package.name else {"upstream": package.source}
        purl = _deb(record, package.name, package.version, arch=package.architecture, **source)
        yield Piece(key=f"{package.architecture}-{package.name}", name=package.name, version=package.version, purl=purl, licence=package.licence)
    yield from _tools(record)


def _tools(record: Record) -> Iterator[Piece]:
    tools = record.inputs.toolchain
    if tools is None:
        return
    for deb in tools.packages:
        purl = _deb(record, deb.name, deb.version, arch=record.platform.rpartition("/")[2])
        yield Piece(key=f"{tools.name}-{deb.name}", name=deb.name, version=deb.version, purl=purl, licence=deb.licence, sha256=deb.sha256, file=deb.filename)
    for pin in tools.wheels:
        purl = PackageURL("pypi", None, pin.name, pin.version)
        yield Piece(key=f"{tools.name}-{pin.name}", name=pin.name, version=pin.version, purl=purl, licence="", sha256=pin.sha256, file=pin.filename)


def _deb(record: Record, name: str, version: str, **qualifiers: str) -> PackageURL:
    return PackageURL("deb", record.os.distribution, name, version, qualifiers | {"distro": record.os.suite})


def serial(record: Record) -> uuid.UUID:
    """Return the number of an image's bills, which follows from its digest."""
    return uuid.uuid5(uuid.NAMESPACE_OID, record.digest)


# CycloneDX


def cyclonedx(record: Record) -> bytes:
    """Return the image's bill as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""
    image = Component(
        bom_ref="image",
        type=ComponentType.CONTAINER,
        name=record.name,
        version=record.torch.version,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=record.digest.removeprefix("sha256:"))],
        properties=[Property(name=f"{TOOL}:{name}", value=value) for name, value in _facts(record).items()],
    )
    system = Component(bom_ref="os", type=ComponentType.OPERATING_SYSTEM, name=record.os.distribution, version=record.os.release)
    held = [system, *map(_component, pieces(record))]
    tool = Component(bom_ref=TOOL, type=ComponentType.APPLICATION, name=TOOL, version=record.tool)
    metadata = BomMetaData(timestamp=dt.datetime.fromisoformat(record.created), component=image, tools=ToolRepository(components=[tool]))
    parts = [Dependency(ref=component.bom_ref) for component in held]
    bom = Bom(serial_number=serial(record), metadata=metadata, components=held, dependencies=[Dependency(ref=image.bom_ref, dependencies=parts), *parts])
    return canonical(json.loads(JsonV1Dot6(bom).output_as_string()))


def _component(piece: Piece) -> Component:
    return Component(
        bom_ref=piece.key,
        type=ComponentType.LIBRARY,
        name=piece.name,
        version=piece.version,
        purl=piece.purl,
        licenses=[LicenseExpression(piece.licence)] if piece.licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=piece.sha256)] if piece.sha256 else [],
        properties=[Property(name=f"{TOOL}:file", value=piece.file)] if piece.file else [],
    )


def _facts(record: Record) -> dict[str, str]:
    """Return what a bill says of the whole image."""
    torch = record.torch
    values = {
        "cell": record.cell,
        "flavour": record.flavour,
        "revision": record.source.revision,
        "lock": record.inputs.lock,
        "cuda": torch.cuda,
        "cudnn": torch.cudnn,
        "nccl": torch.nccl,
        "driver.floor": torch.driver_floor,
    }
    return {name: value for name, value in values.items() if value} | {f"licence:{name}": words for name, words in sorted(record.licences.items())}


# SPDX


def spdx(record: Record) -> bytes:
    """Return the image's bill as SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/)."""
    listed = [(_spdx_id(piece.key), piece) for piece in pieces(record)]
    contained = [{"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": name} for name, _ in listed]
    described = {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image"}
    return canonical(
        {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": record.name,
            "documentNamespace": f"urn:uuid:{serial(record)}",
            "creationInfo": {"created": record.created, "creators": [f"Tool: {TOOL}-{record.tool}"]},
            "packages": [_spdx_image(record), *(_spdx_package(name, piece) for name, piece in listed)],
            "relationships": [described, *contained],
            "hasExtractedLicensingInfos": [{"licenseId": name, "extractedText": words, "name": words} for name, words in sorted(record.licences.items())],
        }
    )


def _spdx_id(key: str) -> str:
    return f"SPDXRef-{re.sub('[^A-Za-z0-9.-]', '-', key.replace('+', '-plus'))}"


def _spdx_image(record: Record) -> dict[str, Any]:
    return {
        "SPDXID": "SPDXRef-image",
        "name": record.name,
        "versionInfo": record.torch.version,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": record.digest.removeprefix("sha256:")}],
        "comment": "; ".join(f"{name} {value}" for name, value in _facts(record).items() if not name.startswith("licence:")),
        **_unsaid(""),
    }


def _spdx_package(name: str, piece: Piece) -> dict[str, Any]:
    return {
        "SPDXID": name,
        "name": piece.name,
        "versionInfo": piece.version,
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": piece.purl.to_string()}],
        **({"packageFileName": piece.file} if piece.file else {}),
        **({"checksums": [{"algorithm": "SHA256", "checksumValue": piece.sha256}]} if piece.sha256 else {}),
        **_unsaid(piece.licence),
    }


def _unsaid(licence: str) -> dict[str, Any]:
    """Return the fields that say who has stated what: the package its licence, nobody anything else."""
    return {
        "downloadLocation": NOTHING_SAID,
        "filesAnalyzed": False,
        "licenseConcluded": NOTHING_SAID,
        "licenseDeclared": licence or NOTHING_SAID,
        "copyrightText": NOTHING_SAID,
    }


def subject(document: bytes) -> str:
    """Return the digest of the image that a bill of either format is of; nothing if it does not say."""
    bill = decoding.decode(document, dict[str, Any])
    if bill.get("bomFormat") == "CycloneDX":
        hashes = bill.get("metadata", {}).get("component", {}).get("hashes", [])
        values = [checksum["content"] for checksum in hashes if checksum["alg"] == "SHA-256"]
    else:
        images = [package for package in bill.get("packages", []) if package.get("SPDXID") == "SPDXRef-image"]
        checksums = chain.from_iterable(image.get("checksums", []) for image in images)
        values = [checksum["checksumValue"] for checksum in checksums if checksum["algorithm"] == "SHA256"]
    return f"sha256:{values[0]}" if len(values) == 1 else ""
