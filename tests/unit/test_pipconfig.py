"""Where pip is configured to look: files, variables, and which wins."""

from __future__ import annotations

import os

import pytest

from torchstrata.errors import FetchError
from torchstrata.locking import pipconfig


@pytest.fixture
def config(tmp_path):
    """Return a function that reads the configuration with the given file and variables, and no other file below it."""

    def read(text: str, **variables: str) -> pipconfig.PipConfig:
        path = tmp_path / "pip.conf"
        path.write_text(text)
        return pipconfig.read({"PIP_CONFIG_FILE": str(path), **variables})

    return read


def test_file_is_read(config):
    """Options of the global and install sections count, the latter more."""
    found = config("[global]\nindex-url = https://a.example/simple\ntrusted-host = a b\n[install]\nindex_url = https://b.example/simple\n")
    assert found.index_url == "https://b.example/simple"
    assert found.trusted_hosts == ("a", "b")


def test_variables_win(config):
    """A PIP_ variable outweighs the files."""
    found = config("[global]\nfind-links = /a\ntimeout = 3\n", PIP_FIND_LINKS="/b /c", PIP_DEFAULT_TIMEOUT="9", PIP_RETRIES="2")
    assert (found.find_links, found.retries) == (("/b", "/c"), 2)


def test_lists_may_have_lines(config):
    """Several places stand on one line or on lines of their own."""
    assert config("[global]\nextra-index-url =\n  https://a.example\n  https://b.example\n").extra_index_urls == ("https://a.example", "https://b.example")


def test_null_device_means_no_files():
    """PIP_CONFIG_FILE naming the null device turns files off."""
    found = pipconfig.read({"PIP_CONFIG_FILE": os.devnull})
    assert (found.index_url, found.extra_index_urls, found.find_links, found.timeout, found.retries) == (None, (), (), 15.0, 5)


def test_damaged_file_is_named(config):
    """A file that is no configuration is an error that names it."""
    with pytest.raises(FetchError, match=r"pip\.conf is not a pip configuration file"):
        config("index-url = x\n")
