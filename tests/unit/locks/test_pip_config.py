"""Where pip is configured to look: files, variables, and which wins."""

from __future__ import annotations

import os

import pytest

from torchstrata.errors import FetchError
from torchstrata.locks import pip_config


@pytest.fixture
def config(tmp_path):
    """Return a function that reads the configuration with the given file and variables, and no other file below it."""

    def read(text: str, **variables: str) -> pip_config.PipConfig:
        path = tmp_path / "pip.conf"
        path.write_text(text)
        return pip_config.read({"PIP_CONFIG_FILE": str(path), **variables})

    return read


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("[global]\nindex-url = https://a\n[install]\nindex_url = https://b\n", "index_url", "https://b"),
        ("[global]\ntrusted-host = a b\n", "trusted_hosts", ("a", "b")),
        ("[global]\ntrusted-host = [::1]:80 [fe80::1] 1.2.3.4\n", "trusted_hosts", ("[::1]:80", "[fe80::1]", "1.2.3.4")),
        ("[global]\nextra-index-url =\n  https://a\n  https://b\n", "extra_index_urls", ("https://a", "https://b")),
    ],
)
def test_file_is_read(config, text, option, value):
    """Options of the section for installs count more; lists stand on one line or on lines of their own."""
    assert getattr(config(text), option) == value


def test_variables_win(config):
    """A PIP_ variable outweighs the files."""
    found = config("[global]\nfind-links = /a\ntimeout = 3\n", PIP_FIND_LINKS="/b /c", PIP_DEFAULT_TIMEOUT="9", PIP_RETRIES="2")
    assert (found.find_links, found.retries) == (("/b", "/c"), 2)


@pytest.mark.parametrize(("word", "is_set"), [("t", True), ("Y", True), ("on", True), ("1", True), ("f", False), ("No", False), ("0", False), ("", False)])
def test_no_index_is_what_pip_takes_for_it(config, word, is_set):
    """Who forbids to ask indexes must not see one asked."""
    assert config(f"[global]\nno-index = {word}\n").no_index is is_set


def test_a_trusted_host_may_be_an_address(config):
    """Of either kind, with or without a port."""
    assert config("[global]\ntrusted-host = [::1]:8080 [fe80::1] 10.0.0.1:80\n").trusted_hosts == ("[::1]:8080", "[fe80::1]", "10.0.0.1:80")


def test_null_device_means_no_files():
    """PIP_CONFIG_FILE naming the null device turns files off."""
    found = pip_config.read({"PIP_CONFIG_FILE": os.devnull})
    assert (found.index_url, found.extra_index_urls, found.find_links, found.timeout, found.retries) == (None, (), (), 15.0, 5)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[global]\ntimeout = soon\n", "timeout is soon"),
        ("[global]\ntimeout = nan\n", "timeout is nan"),
        ("[global]\ntimeout = inf\n", "timeout is inf"),
        ("[global]\ntimeout = -1\n", "timeout is -1"),
        ("[global]\nretries =\n", "retries is "),
        ("[global]\nretries = 1e9\n", "retries is 1e9"),
        ("[global]\nretries = \x1b[2J\n", r"retries is \?\[2J"),
        ("[global]\nno-index = maybe\n", "no-index is maybe, which is neither yes nor no"),
        ("[global]\ntrusted-host = a/b\n", "trusted-host a/b"),
        ("[global]\ntrusted-host = a:x\n", "trusted-host a:x"),
        ("[global]\ntrusted-host = [:::]:1\n", r"trusted-host \[:::\]:1"),
        ("[global]\ntrusted-host = [1.2.3.4]\n", r"trusted-host \[1\.2\.3\.4\]"),
        ("[global]\ntrusted-host = a:99999\n", "trusted-host a:99999"),
        ("[global]\na = 1\na = 2\n", "not a pip configuration file"),
        ("[\x1b[2J\n", "not a pip configuration file"),
        ("index-url = x\n", r"pip\.conf is not a pip configuration file"),
        ("\x00", "not a pip configuration file"),
        ("[global]\na = " + "x" * (1 << 20), "more than 1048576 bytes"),
    ],
)
def test_values_that_cannot_be_are_named(config, text, match):
    """What is no number, no host or no configuration is an error of one printable line."""
    with pytest.raises(FetchError, match=match) as caught:
        config(text)
    assert caught.value.what.isprintable()


def test_a_pipe_is_no_configuration(tmp_path):
    """A pipe that nobody writes to, or an endless device, is not read."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(FetchError, match=r"is a [a-z ]+, not a file"):
            pip_config.read({"PIP_CONFIG_FILE": str(place)})
