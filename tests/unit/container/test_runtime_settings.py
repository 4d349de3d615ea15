"""The gate for a container's variables: what passes, what is refused, and that a refusal is one printable line."""

from __future__ import annotations

import os

import pytest
from container import declarations, extension, settings, start
from services import jupyter, ssh

from tests.declared import declared

SERVICES = declared("ssh")
OF_SERVICES = declarations.gates(SERVICES)

ARGON = "argon2:$argon2id$v=19$m=10240,t=10,p=8$pW4dsnIzHnLYcOCYWOGhSg$yd2A7sTlJWGjYe4pyfQYZA"

RIGHT = {
    "HOME": ("", "/", "/home/dev", "/home/É b"),
    "SHELL": ("", "/bin/sh"),
    "JUPYTER_PORT": ("", "1", "65535", "tcp://10.0.0.1:8888"),
    "SSH_PORT": ("2222", "tcp://[fd00::1]:22"),
    "JUPYTER_BASE_URL": ("", "/", "lab", "/a/b-c_d~e@f/%20"),
    "NB_PREFIX": ("", "/notebook/team/anna"),
    "JUPYTER_TOKEN": ("", "a b&c=d#é", " padded ", 1024 * "x"),
    "JUPYTER_PASSWORD": ("", "a b&c=d#é", 1024 * "x"),
    "JUPYTER_TOKEN_FILE": ("", "/run/secrets/token"),
    "JUPYTER_PASSWORD_HASH": ("", ARGON, f"sha1:0123456789ab:{40 * 'a'}"),
    "JUPYTER_CERT_FILE": ("/certs/both.pem",),
    "SSH_POST_QUANTUM_ONLY": ("0", "1"),
    "TORCHSTRATA_SERVICES": ("", "jupyter", "ssh,jupyter", "jupyter ssh"),
    "TORCHSTRATA_SECRETS": ("AWS_* WANDB_API_KEY", "A\nB"),
    "TORCHSTRATA_CA_FILE": ("/ca.pem",),
    "TORCHSTRATA_REQUIRE_GPU": ("", "0", "1", "true", "No"),
    "TORCHSTRATA_JUPYTER_OPEN": ("1",),
    "TORCHSTRATA_QUIET": ("on",),
    "TORCHSTRATA_HOOK_TIMEOUT": ("", "0.5", "604800"),
    "TORCHSTRATA_STOP_GRACE": ("0", "30"),
}
WRONG = {
    "HOME": ("relative", "/a:b", "/a\nroot::0:0", f"/{1024 * 'x'}"),
    "SHELL": ("bash", "/missing/shell", "/etc/passwd"),
    "JUPYTER_PORT": ("0", "65536", "x", "²", "-1", "+1", "1e3", " 1", 5000 * "1"),
    "SSH_PORT": ("ssh", "22\n"),
    "JUPYTER_BASE_URL": ("/a b", "http://x/", "/?q", "/a.b", "/a+b", "/(x)*", "/é", "/a\n", 2000 * "a"),
    "NB_PREFIX": ("/a b", "/a.b"),
    "JUPYTER_PASSWORD": ("a\nb", 1025 * "x"),
    "JUPYTER_TOKEN": ("a\nb", "\x1b[2J", "a\u2028b", 1025 * "x", "\udcff"),
    "JUPYTER_TOKEN_FILE": ("token", "/a\x00b", "/a\r"),
    "JUPYTER_PASSWORD_HASH": ("open sesame", "argon2:", "sha1:x:y", f"{ARGON}\n", "md5:ab:cd"),
    "JUPYTER_CERT_FILE": ("cert.pem",),
    "SSH_POST_QUANTUM_ONLY": ("maybe",),
    "TORCHSTRATA_SERVICES": ("shh", "jupyter\x1b[2J"),
    "TORCHSTRATA_SECRETS": ("A\x00",),
    "TORCHSTRATA_CA_FILE": ("../ca.pem",),
    "TORCHSTRATA_REQUIRE_GPU": ("2", "please"),
    "TORCHSTRATA_JUPYTER_OPEN": ("yes!",),
    "TORCHSTRATA_QUIET": ("loud",),
    "TORCHSTRATA_HOOK_TIMEOUT": ("inf", "nan", "-1", "1e9", "a while", "604801"),
    "TORCHSTRATA_STOP_GRACE": ("inf", "-1", "3601"),
}
SECRET = {"JUPYTER_TOKEN", "JUPYTER_PASSWORD", "JUPYTER_PASSWORD_HASH"}


def check(given):
    """Check variables as a start of an image with all services does."""
    settings.check(given, OF_SERVICES)
    extension.check(SERVICES, given)


def cases(table):
    """Yield name and value of each row."""
    for name, values in table.items():
        for value in values:
            yield name, value


def test_every_gate_is_tried():
    """No variable passes untried: each has right values, and values that are refused."""
    names = {gate.name for gate in (*settings.GATES, *OF_SERVICES, *jupyter.GATES, *ssh.GATES)}
    assert names - {"JUPYTER_KEY_FILE"} == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize(("name", "value"), [*cases(RIGHT)])
def test_right(name, value):
    """A value that can be right passes."""
    check({name: value})


@pytest.mark.parametrize(("name", "value"), [*cases(WRONG)])
def test_wrong(name, value):
    """Any other is refused with a line that names the variable, is printable and short, and does not quote a secret."""
    with pytest.raises(settings.SettingError) as refused:
        check({name: value})
    said = f"{refused.value.what} - {refused.value.fix}"
    assert name in said
    assert said.isprintable()
    assert len(said) < 250
    assert name not in SECRET or value not in said


def test_wrong_ends_the_start(monkeypatch, capsys):
    """The start ends with the status of a wrong configuration and one line, before it does anything."""
    monkeypatch.setattr(start.endings, "heed", lambda: None)
    monkeypatch.setattr(start.declarations, "read", lambda: declarations.Catalog(SERVICES))
    monkeypatch.setenv("JUPYTER_PORT", "\x1b[2J")
    assert start.main(["true"]) == start.NOTHING_RUNS
    assert capsys.readouterr().err.splitlines() == ["torchstrata: JUPYTER_PORT=?[2J is not a port - give a number from 1 to 65535"]


def test_key_without_certificate():
    """A key alone would be left aside, and the server would answer in plain text."""
    with pytest.raises(settings.SettingError, match="JUPYTER_KEY_FILE is given without JUPYTER_CERT_FILE"):
        check({"JUPYTER_KEY_FILE": "/key.pem"})
    check({"JUPYTER_KEY_FILE": "/key.pem", "JUPYTER_CERT_FILE": "/cert.pem"})


def test_longest_value():
    """No variable of ours is longer than Linux lets any be."""
    with pytest.raises(settings.SettingError, match="SSH_PUBLIC_KEY has more than 128 kB"):
        check({"SSH_PUBLIC_KEY": (settings.LONGEST_LIST + 1) * "x"})


def test_links_of_kubernetes():
    """What Kubernetes puts beside a service named ``ssh`` is no port, and named."""
    given = {"SSH_PORT": "tcp://10.0.0.1:22", "JUPYTER_PORT": "8888", "HOME": "tcp://10.0.0.1:22"}
    assert settings.links(given, OF_SERVICES) == ("SSH_PORT",)
    assert settings.port("SSH_PORT", given["SSH_PORT"]) == 0


def test_file_is_read_up_to_its_limit(tmp_path):
    """A file of as many bytes as allowed is read, one with more is not."""
    path = tmp_path / "file"
    path.write_text(8 * "x")
    assert settings.read_file(path, 8) == 8 * "x"
    with pytest.raises(OSError, match="it has more than 0 kB"):
        settings.read_file(path, 7)


def test_fifo_is_not_waited_for(tmp_path):
    """A FIFO without a writer is refused at once; so is what never ends."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(OSError, match="it is not a regular file"):
            settings.read_file(path, 8)


@pytest.mark.parametrize("word", ["--gpus=all", "-it", "HF_TOKEN=x", "./a=b"])
def test_no_command(word):
    """What env(1) would take for an option or a variable of its own, and then print all of them, is refused."""
    with pytest.raises(settings.SettingError, match="is no command"):
        settings.check_command([word, "python"])


@pytest.mark.parametrize("words", [[], ["bash"], ["python", "-c", "x=1"], ["sh", "--x=1"]])
def test_commands(words):
    """Only the first word is looked at."""
    settings.check_command(words)
