"""Files that are written whole."""

from __future__ import annotations

from torchstrata.host import filesystem


def test_what_only_its_owner_may_read_is_so_from_the_first_byte(tmp_path):
    """A token that others could read for a moment is theirs."""
    with filesystem.whole(tmp_path / "token", 0o600) as file:
        (partial,) = tmp_path.iterdir()
        assert partial.stat().st_mode & 0o777 == 0o600
        file.write(b"secret")
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]
