"""Writing a site: whole or not at all, and never over what is something else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from torchstrata.catalogue import publication
from torchstrata.errors import CatalogueError, StoreError

FILES = {"catalogue.json": b"{}", "images/x.html": b"x"}


def everything(directory):
    """Return path and content of all files below a directory."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_site_is_written(tmp_path):
    """Into a directory that need not be there; its bytes are counted."""
    assert publication.write(FILES.items(), tmp_path / "new") == 3
    assert everything(tmp_path) == {f"new/{name}": content for name, content in FILES.items()}


def test_a_catalogue_is_replaced(tmp_path):
    """With all its files: an image that is gone has no page any more."""
    publication.write(FILES.items(), tmp_path / "x")
    publication.write([("catalogue.json", b"[]")], tmp_path / "x")
    assert everything(tmp_path) == {"x/catalogue.json": b"[]"}


def test_what_is_no_catalogue_stays(tmp_path):
    """Somebody's home, say."""
    (tmp_path / "thesis.tex").write_bytes(b"precious")
    with pytest.raises(CatalogueError, match="other files"):
        publication.write(FILES.items(), tmp_path)
    assert everything(tmp_path) == {"thesis.tex": b"precious"}


@pytest.mark.parametrize("look", [publication.check, lambda place: publication.write(FILES.items(), place)])
def test_a_directory_that_this_user_may_not_read_is_told(look):
    """As another user's, of which nobody can say whether it is a catalogue; also by the look before a registry is read."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories let no other user pass
        Path(name).chmod(0o755)
        place = Path(name) / "x"
        place.mkdir(mode=0)
        os.seteuid(user or 65534)
        try:
            with pytest.raises(StoreError, match=f"{place}: Permission denied"):
                look(place)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: path.symlink_to("/")])
def test_a_file_or_a_link_is_refused(tmp_path, make):
    """A site is a directory."""
    make(tmp_path / "x")
    with pytest.raises(CatalogueError, match="no directory"):
        publication.write(FILES.items(), tmp_path / "x")


def test_what_fails_half_way_leaves_the_old_one(tmp_path):
    """And nothing of the new one."""

    def failing():
        yield "catalogue.json", b"new"
        raise CatalogueError("something is wrong", fix="mend it")

    publication.write(FILES.items(), tmp_path / "x")
    with pytest.raises(CatalogueError, match="something is wrong"):
        publication.write(failing(), tmp_path / "x")
    assert everything(tmp_path) == {f"x/{name}": content for name, content in FILES.items()}


@pytest.mark.parametrize("text", ["javascript:alert(1)", "team.example", "https://team.example/<x>", 'https://x"/', "https://x/?a=b"])
def test_what_is_no_address_is_refused(text):
    """It becomes the links of the feed."""
    with pytest.raises(CatalogueError, match="no address"):
        publication.checked_address(text)


@pytest.mark.parametrize(("text", "address"), [("", ""), ("https://team.example", "https://team.example/"), ("http://x:80/a/", "http://x:80/a/")])
def test_an_address_ends_in_a_slash(text, address):
    """So that paths can follow."""
    assert publication.checked_address(text) == address
