"""What apt says it would install, and what that means for a lock."""

from __future__ import annotations

import pytest

from torchstrata.layers import archives, image_tags
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OsLock, PackageMove
from torchstrata.matrix import matrix
from torchstrata.nightly import decisions, os_updates
from torchstrata.nightly.os_updates import News, parse

SAID = """\
NOTE: This is only a simulation!
Reading package lists...
Inst libssl3t64 (3.5.1-1+deb13u2 Debian-Security:13/stable-security [amd64])
Inst zlib1g (1:1.3.dfsg+really1.3.1-1+deb13u1 Debian:13.8/stable, Debian-Security:13/stable-security [amd64]) [libssl3t64:amd64 ]
Inst bash [5.2] (5.2.37-2+b10 Debian:13.8/stable [amd64])
Inst python3-minimal:amd64 (3.13.5-1 Debian:13.8/stable [all])
Conf libssl3t64 (3.5.1-1+deb13u2 Debian-Security:13/stable-security [amd64])
"""
SYSTEM, UBUNTU = (matrix.load().systems[name] for name in ("debian13", "ubuntu24.04"))


def move(name):
    """Return the move of a package."""
    return PackageMove(package=name, locked="1", found="2")


def test_versions_are_what_would_be_installed():
    """With epochs, and whatever apt says beside them."""
    assert parse(SAID).packages == {
        "libssl3t64": "3.5.1-1+deb13u2",
        "zlib1g": "1:1.3.dfsg+really1.3.1-1+deb13u1",
        "bash": "5.2.37-2+b10",
        "python3-minimal": "3.13.5-1",
    }


def test_security_is_known_by_the_suite():
    """A version that is in the suite for security counts, be it elsewhere too."""
    assert parse(SAID).security == ("libssl3t64", "zlib1g")


def test_fixes_are_named_first():
    """And only so many packages that a line stays one."""
    news = News(system=SYSTEM, moves=tuple(move(name) for name in "abcdefgh"), security=("c", "h"))
    assert decisions.words(news) == "8 OS packages, 2 of them for security: c 1 -> 2, h 1 -> 2, a 1 -> 2, b 1 -> 2, d 1 -> 2, e 1 -> 2 and 2 more"


@pytest.mark.parametrize("left", [None, b"", b'{"question":"', b"[]"])
def test_mirrors_are_asked_again_where_no_answer_is_left(tmp_path, monkeypatch, left):
    """As after a full disk or a kill; where there is one, apt need not solve it again."""
    solved = []

    def asked(config, *words):
        solved.extend(word for word in words if word == "install")
        return SAID

    monkeypatch.setattr(os_updates.apt, "ask", asked)
    monkeypatch.setattr(os_updates.os_image, "sources", lambda system: "deb http://mirror.example/debian trixie main\n")
    mirrors = os_updates.Mirrors(system=SYSTEM, folder=tmp_path)
    if left is not None:
        (tmp_path / os_updates.ANSWER).write_bytes(left)
    assert mirrors.offer(("bash",)) == mirrors.offer(("bash",)) == parse(SAID)
    assert solved == ["install"]


def test_an_os_image_is_asked_for_what_it_would_get(tmp_path, monkeypatch):
    """What flavours install is solved anew on what its tag names now; what the image itself brings is as it is."""
    old, new = (f"{UBUNTU.image}@sha256:{digit * 64}" for digit in "12")
    sections = {"os": {"bash": "5.1", "tar": "1"}, "base": {"zlib1g": "1", "libssl3t64": "3.5.1-1+deb13u2"}}
    asked = []

    def ask(self, question, work, files):
        asked.append((self.below, files[archives.PACKAGES]))
        (work / archives.OFFER).write_text(SAID)
        (work / archives.STATUS).write_text("Package: tar\nStatus: install ok installed\nVersion: 1\n")
        return work

    monkeypatch.setattr(image_tags, "pinned", lambda _: new)
    monkeypatch.setattr(archives.Asked, "ask", ask)
    news = os_updates.ImageMirrors(system=UBUNTU).news(OsLock(system=UBUNTU.id, date="2026-11-24", sections=sections, image=old))
    assert asked == [(f"docker-image://{new}", "libssl3t64\nzlib1g")]
    assert str(news.base) == f"{UBUNTU.image} sha256:{'1' * 12} -> sha256:{'2' * 12}"
    assert {move.package for move in news.moves} == {"bash", "zlib1g", "python3-minimal"}
    assert [fix.package for fix in news.fixes] == ["zlib1g"]


def test_an_os_of_a_registry_that_nobody_has_locked_is_not_asked(tmp_path):
    """Its cells are left out; nobody waits for it."""
    systems = matrix.load().systems
    assert os_updates.of_images(systems, tmp_path) == ()
    os_locks.write(OsLock(system=UBUNTU.id, date="2026-11-24", sections={"os": {}}), UBUNTU, tmp_path)
    assert [mirrors.system for mirrors in os_updates.of_images(systems, tmp_path)] == [UBUNTU]


def test_only_systems_from_packages_have_mirrors(tmp_path):
    """Those from a registry are looked at by their digest; each has a directory of its own."""
    table = matrix.load()
    all_mirrors = os_updates.folders(tmp_path, table.systems)
    assert {mirrors.system.id for mirrors in all_mirrors} == {name for name, system in table.systems.items() if system.bootstrap}
    assert len({mirrors.folder for mirrors in all_mirrors}) == len(all_mirrors)
