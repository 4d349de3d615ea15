"""What packages parts hold, and what they say of their licences: noted while they are made, or read from their layers."""

from __future__ import annotations

import io

from tests.parts import CODEC
from tests.released import COPYRIGHT, OS_FILES, STATUS, compose
from torchstrata.store import dpkg_status, inventory
from torchstrata.store.dpkg_status import OsPackage
from torchstrata.store.inventory import Inventory
from torchstrata.store.part import Part


def layer(store, files, links=()):
    """Return a part with one layer."""
    with store.layer("x", CODEC) as writer:
        for path, content in files.items():
            writer.file(path, 0o644, len(content), io.BytesIO(content))
        for path, target in links:
            writer.link(path, target)
    return Part(layers=(writer.layer,))


def test_dpkg_tells_installed_packages_with_their_sources():
    """Removed packages do not count; a source without a version has the package's."""
    packages = list(dpkg_status.installed(STATUS))
    assert [package.name for package in packages] == ["example-doc", "libexample1"]
    assert packages[1] == OsPackage(name="libexample1", version="1.0-2+b1", architecture="amd64", source="example", source_version="1.0-2")


def test_machine_readable_copyright_tells_the_licences_of_files():
    """The names of Files paragraphs count; a licence's own paragraph repeats them."""
    assert inventory.copyright_names(COPYRIGHT) == ("GPL-2+ or Artistic", "Expat")


def test_free_form_copyright_tells_what_it_refers_to():
    """A text in free form may refer to the common licences; nothing more is known."""
    assert inventory.copyright_names("On Debian systems see /usr/share/common-licenses/GPL-2, or\n/usr/share/common-licenses/LGPL-2.1.") == (
        "refers to GPL-2",
        "refers to LGPL-2.1",
    )
    assert inventory.copyright_names("Do what you want.") == ()


def test_metadata_tells_name_version_and_licences_of_a_wheel():
    """A text in the field License counts by its first line."""
    raw = b"Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 2\nLicense: BSD 3-Clause License\n        \n        Copyright\nClassifier: License :: OSI Approved :: BSD License\nClassifier: Topic :: X\n\ntext"
    package = inventory.python_package(raw)
    assert (package.name, package.version, package.license) == ("foo-bar", "2", "BSD 3-Clause License")
    assert package.classifiers == ("License :: OSI Approved :: BSD License",)


def test_layers_are_read_where_nothing_was_noted(store):
    """A part from before has the inventory that its layers tell, and keeps it."""
    part = layer(store, OS_FILES, [("usr/share/doc/other", "libexample1")])
    store.remember("old", part)
    complete = inventory.ensure("old", part, store, store.open_blob)
    found = inventory.of(complete, store.open_blob)
    assert found.copyrights["libexample1"] == ("GPL-2+ or Artistic", "Expat")
    assert found.documents == {"other": "libexample1"}
    assert store.find("old") == complete
    assert inventory.ensure("old", complete, store, store.open_blob) == complete


def test_parts_are_noted_while_they_are_made(store, tmp_path):
    """Strata know their wheels without that anybody reads their layers."""
    composed = compose(store, tmp_path / "wheels")
    part = store.find(composed.plan.items[0].identity)
    assert inventory.of(part, store.open_blob) == inventory.look(part.layers, store.open_blob)


def test_copyright_is_found_through_links_and_in_lower_parts():
    """A package's directory may be a link to another's, which a part below holds."""
    below = Inventory(copyrights={"base": ("Expat",)})
    above = Inventory(os=tuple(dpkg_status.installed(STATUS)), documents={"libexample1": "middle", "middle": "base"})
    merged = inventory.merged([below, above])
    package = next(each for each in merged.os if each.name == "libexample1")
    assert inventory.copyright_of(package, merged) == ("Expat",)
    unknown = OsPackage(name="unknown", version="1", architecture="all", source="u", source_version="1")
    assert inventory.copyright_of(unknown, merged) == ()


def test_links_that_lead_in_circles_end():
    """Two directories that are links to each other have no licence."""
    found = Inventory(documents={"a": "b", "b": "a"})
    assert inventory.copyright_of(OsPackage(name="a", version="1", architecture="all", source="a", source_version="1"), found) == ()
