"""Snapshot archives: where apt says that they are, and what it is told to look into them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from torchstrata.errors import VariableError
from torchstrata.layers import apt_settings, archives, contexts, snapshots
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.layers.archives import Answer
from torchstrata.layers.snapshots import AptSource, Release
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix import matrix

DEBIAN13 = matrix.load().systems["debian13"]
LOCK = OsLock(system="debian13", date="2026-11-24", sections={"os": {"libc6": "1"}})
LIST = "deb http://mirror.example/debian trixie main\ndeb [signed-by=/k.gpg] http://sec.mirror.example/debian-security trixie-security main contrib\n"
DEB822 = """\
# See https://u.example
## Types: deb
Types: deb
URIs: http://u.example/ubuntu/
Suites: noble noble-updates
Components: main universe
Signed-By: /usr/share/keyrings/u.gpg

Types: deb deb-src
URIs: http://s.example/ubuntu/
Suites: noble-security
Components:
 main
 universe
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 =x
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://s.example/ubuntu/
Suites: noble

Enabled: no
Types: deb
URIs: http://s.example/ubuntu/
Suites: noble
"""
MAIN, SECURITY = snapshots.sources(LIST)
DEBIAN = Release(label="Debian", origin="Debian")

ALL = {
    "override::label::debian": "1/@SNAPSHOTID@",
    "override::origin::debian": "2/@SNAPSHOTID@",
    "label::debian": "4/@SNAPSHOTID@",
    "origin::debian": "5/@SNAPSHOTID@",
    "host::mirror.example": "6/@SNAPSHOTID@",
    "host::.example": "7/@SNAPSHOTID@",
}
"""Templates by the place that they have in apt's order; the third is the ``Release`` file's."""

DUMP = """\
APT "";
Acquire::Snapshots "";
Acquire::Snapshots::URI::Host::Mirror.Example "https://archive.example/@PATH@/@SNAPSHOTID@/";
Acquire::Snapshots::URI::Override::Label::Debian-Security "https://archive.example/security/@SNAPSHOTID@/";
Acquire::Changelogs::URI::Origin::Debian "https://other.example";
"""


def test_sources_are_read_and_written() -> None:
    """Options and several components stay; what is no binary source is left out."""
    assert snapshots.sources(f"# note\n\ndeb-src http://x y z\n{LIST}") == (MAIN, SECURITY)
    assert f"{MAIN}\n{SECURITY}\n" == LIST
    assert SECURITY.options == "signed-by=/k.gpg"


def test_settings_are_those_of_snapshots_alone() -> None:
    """Names of apt's options have no case; other options of the same form are none of them."""
    assert snapshots.settings(DUMP) == {
        "host::mirror.example": "https://archive.example/@PATH@/@SNAPSHOTID@/",
        "override::label::debian-security": "https://archive.example/security/@SNAPSHOTID@/",
    }


@pytest.mark.parametrize("first", range(1, 8))
def test_the_order_is_apts(first: int) -> None:
    """Overrides by label and origin, the Release file, label and origin, then the host and its domains."""
    known = {scope: place for scope, place in ALL.items() if int(place[0]) >= first}
    release = dataclasses.replace(DEBIAN, snapshots="3/@SNAPSHOTID@" if first <= 3 else "")
    assert snapshots.template(MAIN, release, known) == f"{first}/@SNAPSHOTID@"


def test_a_source_may_have_none() -> None:
    """Where nothing is known, where apt is told ``no``, and where a Release file says neither label nor origin."""
    assert snapshots.template(MAIN, DEBIAN, {}) is None
    assert snapshots.template(MAIN, DEBIAN, ALL | {"override::label::debian": "no"}) is None
    assert snapshots.template(MAIN, Release(snapshots="3"), {}) is None
    assert snapshots.template(MAIN, Release(), ALL) == "6/@SNAPSHOTID@"


def test_the_head_of_a_release_file_is_read() -> None:
    """Signed or not, whatever else it says."""
    text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nLabel: Debian-Security\nSnapshots: https://a/@SNAPSHOTID@/\nSuite: stable\n"
    assert Release.parse(text) == Release(label="Debian-Security", origin="Debian", snapshots="https://a/@SNAPSHOTID@/")


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [("", ("20261124T000000Z", "20261125T000000Z")), ("2026-11-24T16:12:03+00:00", ("20261124T161203Z", "20261125T041203Z"))],
)
def test_moments_are_around_the_time_of_the_lock(moment: str, wanted: tuple[str, str]) -> None:
    """A day lies between two midnights; a moment between the last snapshot before and the next one after."""
    assert snapshots.moments(dataclasses.replace(LOCK, moment=moment)) == wanted


def test_archived_sources_are_plain_lines() -> None:
    """Path and moment are filled in, options stay, and the date of what was signed then does not count; a mirror without an archive has none."""
    found = snapshots.archive([(MAIN, DEBIAN), (SECURITY, Release())], LOCK, snapshots.settings(DUMP))
    assert list(map(str, found)) == [
        "deb [check-valid-until=no] https://archive.example/debian/20261124T000000Z/ trixie main",
        "deb [check-valid-until=no] https://archive.example/debian/20261125T000000Z/ trixie main",
    ]
    (both, _) = snapshots.archive([(SECURITY, Release(label="Debian-Security"))], LOCK, snapshots.settings(DUMP))
    assert str(both) == "deb [signed-by=/k.gpg check-valid-until=no] https://archive.example/security/20261124T000000Z/ trixie-security main contrib"


def test_an_address_that_is_none_has_no_archive(tmp_path: Path) -> None:
    """Somebody has mistyped it in the image; apt says so, where packages must come from there."""
    (tmp_path / "sources").write_text(f"deb http://[fd00::1/debian trixie main\n{LIST}")
    (tmp_path / "paragraphs").write_text("")
    (tmp_path / "settings").write_text(DUMP)
    answer = Answer.read(tmp_path)
    assert [release for _, release in answer.mirrors] == [Release()] * 3
    assert snapshots.archive(answer.mirrors[:1], LOCK, ALL) == ()


# What an OS image answers


def test_an_answer_is_read(tmp_path: Path) -> None:
    """Each source with the head of its mirror, which apt has kept by its name; one that has gone has none. Mirrors may write what they like."""
    (tmp_path / "sources").write_text(LIST)
    (tmp_path / "paragraphs").write_text(DEB822)
    (tmp_path / "settings").write_text(DUMP)
    (tmp_path / "mirror.example_debian_dists_trixie_InRelease").write_bytes(b"Description: \xe4\nOrigin: Debian\nLabel: Debian\n")
    others = tuple((source, Release()) for source in snapshots.paragraphs(DEB822))
    assert Answer.read(tmp_path) == Answer(mirrors=((MAIN, DEBIAN), (SECURITY, Release()), *others), settings=snapshots.settings(DUMP))


def test_sources_in_paragraphs_are_read() -> None:
    """As Ubuntu 24.04 has them: each suite of each address is a source; comments, sources of source code and those switched off are none."""
    first, second, last = snapshots.paragraphs(DEB822)
    assert str(first) == "deb [signed-by=/usr/share/keyrings/u.gpg] http://u.example/ubuntu/ noble main universe"
    assert (second.suite, last.uri, last.options) == ("noble-updates", "http://s.example/ubuntu/", "")


def test_names_of_heads_are_quoted_as_apt_does() -> None:
    """Underscores of a URI are told from those that stand for slashes; unsigned heads count too."""
    source = AptSource(uri="http://mirror.example:8080/a_b~c/", suite="trixie/updates", components="main")
    assert archives.release(source, {"mirror.example:8080_a%5fb%7ec_dists_trixie_updates_Release": "Label: x\n"}) == Release(label="x")


# What apt is told


def test_nothing_is_told_where_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an administrator's file there are no settings."""
    monkeypatch.delenv(apt_settings.VARIABLE, raising=False)
    assert not AptSettings.of_host()


def test_the_administrators_file_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under apt's own name for it; one that cannot be read is an error that names it."""
    monkeypatch.setenv(apt_settings.VARIABLE, str(tmp_path / "apt.conf"))
    with pytest.raises(VariableError, match=r"APT_CONFIG: .* cannot be read"):
        AptSettings.of_host()
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://cache.example";\n')
    assert AptSettings.of_host().config == 'Acquire::http::Proxy "http://cache.example";\n'


def test_other_sources_replace_those_of_the_image(tmp_path: Path) -> None:
    """By paths as apt sees them."""
    names = AptSettings(config="X 1;", sources=(MAIN,)).write(tmp_path, "/mnt")
    assert names[0] == "apt.conf"
    assert (tmp_path / "sources.list").read_text() == f"{MAIN}\n"
    assert (tmp_path / "apt.conf").read_text().splitlines()[:4] == [
        "X 1;",
        'Dir::Etc::sourcelist "/mnt/sources.list";',
        'Dir::Etc::sourceparts "-";',
        'APT::Update::Error-Mode "any";',
    ]


def stage(into: Path, *settings: AptSettings) -> Path:
    """Stage the context of apt, with settings or without, and return its directory."""
    into.mkdir()
    contexts.stage(matrix.ROOT, (), {DEBIAN13: (LOCK, ())}, into, dict.fromkeys([DEBIAN13], *settings) if settings else None)
    return into / "apt-debian13"


def test_a_context_without_settings_is_what_is_committed(tmp_path: Path) -> None:
    """No byte differs but the pins."""
    plain = stage(tmp_path / "plain", AptSettings())
    for name in ("Dockerfile", "install"):
        assert (plain / name).read_bytes() == (matrix.ROOT / "images" / "apt" / name).read_bytes()
    assert sorted(path.name for path in plain.iterdir()) == sorted(path.name for path in stage(tmp_path / "none").iterdir())


def test_a_context_with_settings_tells_apt_when_it_updates_and_installs(tmp_path: Path) -> None:
    """Lines are added to what is committed, and nothing is taken away; identities are of what is committed."""
    before = contexts.tree(matrix.ROOT, "apt")
    told = stage(tmp_path / "told", AptSettings(config="X 1;"))
    for name, line in (("Dockerfile", "ENV APT_CONFIG=/mnt/apt.conf"), ("install", "export APT_CONFIG=/mnt/apt.conf")):
        lines = (told / name).read_text().splitlines()
        assert line in lines
        assert set((matrix.ROOT / "images" / "apt" / name).read_text().splitlines()) <= set(lines)
    assert (told / "install").read_text().startswith("#!/bin/sh\nexport ")
    assert contexts.tree(matrix.ROOT, "apt") == before
