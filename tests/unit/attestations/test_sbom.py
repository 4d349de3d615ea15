"""Bills of materials: valid by independent readers, complete, and the same bytes each time."""

from __future__ import annotations

import json
from itertools import chain

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from tests.released import compose, record_of
from torchstrata.attestations import record, sbom
from torchstrata.attestations.record import Deb, Tools
from torchstrata.store.store import Store


@pytest.fixture(scope="module")
def image_record(tmp_path_factory):
    """Return the record of a small image, which also has a toolchain."""
    path = tmp_path_factory.mktemp("image")
    store = Store(path / "store")
    plain = record_of(compose(store, path / "wheels"), store)
    deb = Deb(name="compiler", version="12.4-2", filename="compiler_12.4-2_amd64.deb", sha256="ab" * 32, licence="LicenseRef-Debian-Own")
    other = Deb(name="libraries", version="12.4-3", filename="libraries_12.4-3_amd64.deb", sha256="cd" * 32, licence="LicenseRef-Debian-Own")
    tools = Tools(name="cuda-12.4", package=deb, libraries=(other,), wheels=())
    inputs = msgspec.structs.replace(plain.inputs, toolchain=tools)
    return msgspec.structs.replace(plain, inputs=inputs, licences={**plain.licences, "LicenseRef-Debian-Own": "Own"})


PURLS = {
    "pkg:deb/debian/compiler@12.4-2?arch=amd64&distro=trixie",
    "pkg:deb/debian/example-doc@1.0-2?arch=all&distro=trixie&upstream=example",
    "pkg:deb/debian/libraries@12.4-3?arch=amd64&distro=trixie",
    "pkg:deb/debian/libexample1@1.0-2%2Bb1?arch=amd64&distro=trixie&upstream=example",
    "pkg:pypi/nvidia-thing@1.0",
    "pkg:pypi/odd@1.0",
    "pkg:pypi/torch@1.0",
}


def test_cyclonedx_is_valid_by_its_schema(image_record):
    """The strict schema of 1.6 knows every field."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom.cyclonedx(image_record).decode()) is None


def test_spdx_is_valid_by_the_reference_tools(image_record):
    """spdx-tools reads it, and checks ids, relationships and licences."""
    document = JsonLikeDictParser().parse(json.loads(sbom.spdx(image_record)))
    assert [package.validation_message for package in validate_full_spdx_document(document)] == []


def test_both_list_every_package_by_its_url(image_record):
    """Wheels, OS packages and what a toolchain was made from."""
    cyclonedx, spdx = json.loads(sbom.cyclonedx(image_record)), json.loads(sbom.spdx(image_record))
    assert {package["purl"] for package in cyclonedx["components"] if "purl" in package} == PURLS
    references = chain.from_iterable(package.get("externalRefs", []) for package in spdx["packages"])
    assert {reference["referenceLocator"] for reference in references} == PURLS
    assert all(PackageURL.from_string(purl) for purl in PURLS)


def test_wheels_have_the_hash_that_is_locked(image_record):
    """A scanner finds the very file."""
    locked = {wheel.name: wheel.sha256 for wheel in image_record.wheels}
    components = {package["name"]: package for package in json.loads(sbom.cyclonedx(image_record))["components"]}
    assert {name: components[name]["hashes"][0]["content"] for name in locked} == locked
    packages = {package["name"]: package for package in json.loads(sbom.spdx(image_record))["packages"]}
    assert {name: packages[name]["checksums"][0]["checksumValue"] for name in locked} == locked


def test_licences_are_expressions_whose_references_are_explained(image_record):
    """Each reference that a package uses is in the document, with the package's own words."""
    spdx = json.loads(sbom.spdx(image_record))
    declared = {package["name"]: package["licenseDeclared"] for package in spdx["packages"]}
    assert declared["torch"] == "BSD-3-Clause"
    assert declared["libexample1"] == "(GPL-2.0-or-later OR LicenseRef-Debian-Artistic) AND MIT"
    explained = {package["licenseId"] for package in spdx["hasExtractedLicensingInfos"]}
    assert {word.strip("()") for word in " ".join(declared.values()).split() if "LicenseRef" in word} <= explained
    components = {package["name"]: package for package in json.loads(sbom.cyclonedx(image_record))["components"]}
    assert components["torch"]["licenses"] == [{"expression": "BSD-3-Clause"}]


def test_a_package_that_says_nothing_has_no_licence(image_record):
    """Nobody guesses."""
    silent = msgspec.structs.replace(image_record, packages=(msgspec.structs.replace(image_record.packages[0], licence=""),))
    packages = {package["name"]: package for package in json.loads(sbom.spdx(silent))["packages"]}
    assert packages[image_record.packages[0].name]["licenseDeclared"] == "NOASSERTION"


@pytest.mark.parametrize("make", [sbom.cyclonedx, sbom.spdx])
def test_the_same_record_gives_the_same_bytes(image_record, make):
    """Serial number and time follow from the image."""
    assert make(image_record) == make(record.decode(image_record.encode()))


@pytest.mark.parametrize("make", [sbom.cyclonedx, sbom.spdx])
def test_a_bill_says_whose_it_is(image_record, make):
    """The image's digest is that of the root component."""
    assert sbom.subject(make(image_record)) == image_record.digest
    other = msgspec.structs.replace(image_record, digest="sha256:" + "0" * 64)
    assert sbom.subject(make(other)) == other.digest
    assert sbom.serial(other) != sbom.serial(image_record)


@pytest.mark.parametrize("content", [b"{}", b'{"bomFormat": "CycloneDX"}', b'{"packages": []}'])
def test_a_bill_without_an_image_is_nobodys(content):
    """It cannot pass for one of an image."""
    assert not sbom.subject(content)
