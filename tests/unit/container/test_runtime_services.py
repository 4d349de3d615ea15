"""What the services are told: environment, keys, tokens, URLs, ports."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from container import authorities, declarations, environment, health, planning, services, session, settings, state, supervisor
from services import jupyter, ssh

from tests.declared import declared
from torchstrata.image import runtime

JUPYTER, SSH = declared("ssh")
SECRETS = declarations.secrets((JUPYTER, SSH))

KEY = "ssh-ed25519 " + base64.b64encode(struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32) + bytes(32)).decode()


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    """Let the state directory be a temporary one."""
    monkeypatch.setattr(state, "ROOTS", (tmp_path,))
    assert state.claim() == ""
    return state.directory()


def test_public_environment():
    """Secrets and what a shell says about itself are left out; everything else stays, whatever its name."""
    given = {
        "PATH": "/bin",
        "JUPYTER_TOKEN": "x",
        "JUPYTER_PASSWORD_HASH": "x",
        "AWS_KEY": "x",
        "PWD": "/",
        "my.name": "y",
        "TORCHSTRATA_SECRETS": "AWS_* OTHER",
    }
    assert environment.public(given, SECRETS) == {"PATH": "/bin", "my.name": "y", "TORCHSTRATA_SECRETS": "AWS_* OTHER"}
    assert environment.secret(given, SECRETS) == {"JUPYTER_TOKEN": "x", "JUPYTER_PASSWORD_HASH": "x", "AWS_KEY": "x"}


def test_environment_block():
    """Values may hold everything but NUL."""
    assert environment.parse(b"A=1\0B=x=y\nz\0C=\0junk\0") == {b"A": b"1", b"B": b"x=y\nz", b"C": b""}


def test_environment_of_a_session():
    """The container's variables win, and sshd's own describe the connection."""
    container = {b"PATH": b"/opt", b"TERM": b"dumb", b"SSH_PUBLIC_KEY": b"k", b"HOME": b"/h"}
    session = {b"PATH": b"/usr/bin", b"TERM": b"xterm", b"SSH_TTY": b"/dev/pts/0", b"SHELL": b"wrapper"}
    assert environment.of_session(container, session) == {
        b"PATH": b"/opt",
        b"TERM": b"xterm",
        b"SSH_PUBLIC_KEY": b"k",
        b"HOME": b"/h",
        b"SSH_TTY": b"/dev/pts/0",
    }


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"{KEY} anna@laptop",
        f"  {KEY}  ",
        f"{KEY}\r",
        KEY.replace(" ", "\t"),
        f'from="10.0.0.0/8",no-pty {KEY} x',
        f'command="/bin/echo hello there" {KEY}',
        f'command="ssh-ed25519 is a word, too",restrict {KEY}',
        f'command="echo \\"ssh-rsa AAAA\\"" {KEY}',
    ],
)
def test_valid_keys(line):
    """Keys with comments, options and spaces are accepted as they are, whatever an option quotes."""
    assert ssh.authorized(line) == ([line.strip()], [])


@pytest.mark.parametrize("separator", ["\f", "\v", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r", "\xa0", "\0"])
def test_options_stay_with_their_key(separator):
    """What Python takes for the end of a line, or a blank, and sshd does not, cannot make a key of the options' own: the line is refused."""
    line = f'from="192.0.2.1",command="a{separator}b"{separator}{KEY}'
    assert ssh.authorized(line) == ([], ["line 1 is not plain text and is ignored"])


def test_line_without_end():
    """A line has a bound."""
    assert ssh.authorized(f"{KEY} {ssh.LONGEST_LINE * 'x'}") == ([], ["line 1 is too long and is ignored"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello", "not a public key"),
        ("ssh-ed25519", "not a public key"),
        ("ssh-ed25519 ???", "damaged"),
        ("ssh-ed25519 AAAA", "damaged"),
        (KEY.replace("ssh-ed25519", "ssh-rsa", 1), "damaged"),
        (f'command="never closed {KEY}', "not a public key"),
        (f"restrict {KEY} {KEY}".replace("restrict ssh", "restrict  x ssh"), "not a public key"),
    ],
)
def test_invalid_keys(text, why):
    """An invalid key is named by its line number; the others stay."""
    assert ssh.authorized(f"# me\n{text}\n{KEY}\n") == ([KEY], [f"line 2 is {why} and is ignored"])


def test_private_key():
    """A private key is not accepted, and its lines are not complained about one by one."""
    accepted, refused = ssh.authorized("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\ndef\n")
    assert (accepted, len(refused)) == ([], 1)


def test_fingerprint():
    """The fingerprint is the one that ``ssh-keygen -l`` of OpenSSH 9.2 prints."""
    assert ssh.fingerprint(f"{KEY} me") == ssh.fingerprint(KEY) == "SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk"


def test_file_of_keys_that_is_none(tmp_path, capsys):
    """A FIFO in the place of authorized_keys is named in one line, and not waited for."""
    os.mkfifo(tmp_path / "keys")
    assert not ssh._has_keys(tmp_path / "keys")
    assert f"{tmp_path}/keys cannot be read: it is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize(("penalties", "root"), [(True, False), (False, True)])
def test_sshd_configuration(penalties, root):
    """Options that an old sshd does not know are left out; root may enter only where it is no root."""
    text = ssh.configuration(2222, (), penalties=penalties, root=root)
    assert ("PerSourcePenalties no" in text) is penalties
    assert f"PermitRootLogin {'prohibit-password' if root else 'no'}\n" in text
    assert "Port 2222\n" in text


@pytest.mark.parametrize("only", [True, False])
def test_post_quantum_only(only):
    """Curve25519 alone is left out where that is asked for, since older clients know nothing better."""
    text = ssh.configuration(22, (), penalties=False, root=False, post_quantum_only=only)
    assert ("curve25519" in text) is only
    assert "KexAlgorithms -ecdh-sha2-*,diffie-hellman-*" in text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", ""),
        (b"Exceeded MaxStartups\r\n", ""),
        (b"Not allowed at this time\r\n", ""),
        (b"220 ftp", "answers b'220 ftp' instead of SSH-2.0-"),
    ],
)
def test_sshd_that_answers_is_up(answer, said):
    """One that turns strangers away lives: they make no container look unhealthy. Another server's banner is not up."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        assert health._banner(ours, services.asked(SSH, {})._replace(banners=(SSH.expected, *ssh.BUSY))) == said


def test_health_while_the_start_runs(places, capsys):
    """Services that will run are not healthy before the start has planned them."""
    assert planning.claim((JUPYTER, SSH)) == ""
    assert health.main([]) == 1
    assert capsys.readouterr().out.splitlines() == ["jupyter: starting", "ssh: starting"]


def test_ports_of_their_own():
    """Two services on one port are refused before either takes it."""
    planned = (services.asked(JUPYTER, {"JUPYTER_PORT": "22"}), services.asked(SSH, {}))
    with pytest.raises(settings.SettingError, match="jupyter and ssh are both to listen on port 22") as refused:
        services.keep_apart(planned)
    assert refused.value.fix == "set JUPYTER_PORT or SSH_PORT to another one"
    services.keep_apart(planned[:1])


@pytest.mark.parametrize(("text", "expected"), [("", "/"), ("/", "/"), ("lab", "/lab/"), ("/a/b", "/a/b/"), ("//x//", "/x/")])
def test_base_url(text, expected):
    """A base URL has a slash at both ends."""
    assert jupyter.url_path("JUPYTER_BASE_URL", text) == expected


def test_token(tmp_path):
    """A given token wins over a file."""
    (tmp_path / "token").write_text("of-file\n")
    both = {"JUPYTER_TOKEN": "given", "JUPYTER_TOKEN_FILE": str(tmp_path / "token")}
    assert jupyter.token(both) == "given"
    assert jupyter.token(both | {"JUPYTER_TOKEN": " "}) == "of-file"
    assert jupyter.token({"JUPYTER_TOKEN": ""}) == ""
    assert jupyter.token(both | {"JUPYTER_PASSWORD": "of RunPod"}) == "given"
    assert jupyter.token({"JUPYTER_PASSWORD": "of RunPod"}) == "of RunPod"
    assert jupyter.token({"JUPYTER_PASSWORD": "of RunPod", "JUPYTER_PASSWORD_HASH": HASH}) == ""


HASH = "argon2:$argon2id$v=19$m=10240,t=10,p=8$pW4dsnIzHnLYcOCYWOGhSg$yd2A7sTlJWGjYe4pyfQYZA"


@pytest.mark.parametrize(
    ("given", "token", "password"),
    [({}, 48, ""), ({"JUPYTER_TOKEN": " "}, 48, ""), ({"JUPYTER_TOKEN": "mine"}, 4, ""), ({"JUPYTER_PASSWORD_HASH": HASH}, 0, HASH)],
)
def test_server_is_never_open(quiet, given, token, password):
    """Our server has the token or password that was given, else a random token of 192 bits."""
    jupyter.remember(given)
    written = state.read(jupyter.PRIVATE, quiet)
    assert (len(written["token"]), written["password"]) == (token, password)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("a\nb\n", "has control characters"),
        (70_000 * "x", "it has more than 64 kB"),
    ],
)
def test_token_file_that_cannot_be_used(quiet, tmp_path, capsys, content, said):
    """The server does not start, in one line: a random token would lock out whoever knows the right one."""
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    assert said in jupyter.plan(JUPYTER, {"JUPYTER_TOKEN_FILE": str(path)}, tmp_path).refused
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line


@pytest.fixture
def places(monkeypatch, tmp_path):
    """Let state lie in two temporary directories, the second being taken where the first cannot."""
    roots = (tmp_path / "first", tmp_path / "second")
    for root in roots:
        root.mkdir()
    monkeypatch.setattr(state, "ROOTS", roots)
    return roots


def left_behind(root, number=1):
    """Make the state that another container of the same user has left, with a secret in it."""
    place = root / f"torchstrata-{number}-{os.geteuid()}"
    place.mkdir()
    (place / "secret").write_text("x")
    return place


def test_state_is_private(places):
    """Files are 0600, the directory can be entered but not listed, and what an earlier start has left goes."""
    place = state.directory()
    place.mkdir()
    (place / "old").write_text("x")
    assert state.claim() == ""
    assert (place.parent, place.stat().st_mode & 0o777, list(place.iterdir())) == (places[0], 0o711, [])
    assert state.write("secret", "x").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("planted", ["link", "file", "another user's directory"])
def test_state_never_takes_what_another_has_put_there(places, planted, tmp_path):
    """A link, a file or another user's directory of that name is left alone, and the next place is taken."""
    name = places[0] / state.directory().name
    if planted == "link":
        name.symlink_to(tmp_path)
    elif planted == "file":
        name.touch()
    elif os.geteuid() == 0:
        name.mkdir(mode=0o777)
        os.chown(name, 4242, 4242)
    else:
        places[0].chmod(0o555)  # only root can make another's directory; a place that cannot be written is passed over alike
    assert state.claim() == ""
    assert state.directory().parent == places[1]
    assert state.write("secret", "x").parent.parent == places[1]


def test_state_without_a_place(monkeypatch, tmp_path):
    """Where nothing can be written, the reason names the place and what the system says."""
    monkeypatch.setattr(state, "ROOTS", (tmp_path / "missing",))
    assert "missing" in state.claim()
    assert "No such file or directory" in state.claim()


def test_state_in_use(places):
    """A second start beside running services is told so, and theirs stays; a lock ends with its process."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, *map(str, places)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert state.claim() == "they run in this container already"
        assert (state.directory() / state.SERVICES).read_text() == "[]"
        holder.communicate()
    assert state.claim() == ""
    assert not (state.directory() / state.SERVICES).exists()


HOLD = """
import pathlib, sys
sys.path.insert(0, "images/base/rootfs/usr/local/lib/torchstrata")
from container import state
state.ROOTS = tuple(map(pathlib.Path, sys.argv[1:]))
assert state.claim() == ""
state.write(state.SERVICES, "[]")
print("held", flush=True)
sys.stdin.read()
"""


def test_leftovers_of_other_containers(places):
    """What a killed container of the same user has left in a shared place goes; what is in use, or another user's, stays."""
    dead, alive, foreign = left_behind(places[0], 1), left_behind(places[1], 2), places[0] / "torchstrata-3-4242"
    foreign.mkdir()
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert state.claim() == ""
    os.close(descriptor)
    assert (dead.exists(), alive.exists(), foreign.exists()) == (False, True, True)


def test_state_is_removed_at_the_end(quiet):
    """Nothing is left where others may look."""
    state.write("secret", "x")
    state.remove()
    assert not quiet.exists()


def test_plan_is_remembered(quiet):
    """What the start has planned is what supervisor and probe read."""
    planned = (services.Service("ssh", 22, "banner", banners=("SSH-2.0-", "Busy")), services.Service("jupyter", 8888, "https", "/a/api", "port 8888 is taken"))
    services.remember(planned)
    assert services.recall() == planned
    assert (quiet / state.SERVICES).stat().st_mode & 0o777 == 0o644


def test_log_blots_out_secrets():
    """A secret is never in the log but where it is announced; one that is too short to be told from words stays."""
    stream = io.StringIO()
    log = supervisor.Log(stream, ["top-secret", "a"])
    log.say("GET /?token=top-secret", "jupyter")
    log.announce("ready: ?token=top-secret")
    assert stream.getvalue() == "jupyter | GET /?token=***\ntorchstrata: ready: ?token=top-secret\n"


def test_log_is_printable():
    """What a stranger sends, such as a name of a user, neither moves the cursor nor begins a line."""
    stream = io.StringIO()
    supervisor.Log(stream).say("Invalid user a\rtorchstrata: fine\x1b[2J\u2028b\tc é", "ssh")
    assert stream.getvalue() == "ssh | Invalid user a\\rtorchstrata: fine\\x1b[2J\\u2028b\tc é\n"


def test_log_has_no_endless_lines():
    """A service that never ends its line does not fill the memory: the line is written in pieces."""
    stream = io.StringIO()
    supervisor._relay(io.BytesIO(40_000 * b"x" + b"\n"), "jupyter", supervisor.Log(stream))
    assert [len(line) - len("jupyter | ") for line in stream.getvalue().splitlines()] == [16_384, 16_384, 7_232]


@pytest.mark.parametrize(
    ("given", "keys"), [({"PUBLIC_KEY": KEY}, [KEY]), ({"PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----"}, []), ({"PUBLIC_KEY": ""}, []), ({}, [])]
)
def test_key_of_another_name(quiet, tmp_path, given, keys):
    """A key that others pass on by a variable of theirs is taken; another kind of key there is left aside, and SSH is off."""
    planned = ssh.plan(SSH, given | {"SSH_PORT": "22222"}, tmp_path)
    assert (quiet / "authorized_keys").read_text().splitlines() == keys
    assert (planned is not None) is bool(keys)


def test_our_own_key_comes_first(quiet, tmp_path):
    """Where ours is given, nobody else's counts, even if ours is wrong."""
    planned = ssh.plan(SSH, {"SSH_PUBLIC_KEY": "nonsense", "PUBLIC_KEY": KEY, "SSH_PORT": "22222"}, tmp_path)
    assert planned.refused == "none of the given keys is valid"


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A directory that this process may not look into, in the one that it works in."""
    (tmp_path / "closed").mkdir(mode=0)
    tmp_path.chmod(0o777)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield tmp_path / "closed"
    os.seteuid(user)
    (tmp_path / "closed").chmod(0o700)


@pytest.mark.usefixtures("closed")
def test_leftover_that_cannot_be_swept(monkeypatch):
    """One that cannot be opened, such as one that another start has just removed, ends no start."""
    monkeypatch.setattr(state, "ROOTS", (Path(),))
    leftover = Path(f"torchstrata-1-{os.geteuid()}")
    leftover.mkdir(mode=0)
    state._sweep()
    assert leftover.exists()


def test_host_keys_of_another_user(closed):
    """Where a volume has another user's private keys, as a shared workspace has, new ones are made: SSH starts all the same."""
    ssh._fetch(closed / "ssh_host_ed25519_key", Path("ssh_host_ed25519_key"))
    assert not Path("ssh_host_ed25519_key").exists()


@pytest.mark.parametrize(
    ("terminal", "becomes"), [("xterm", "xterm"), ("of-tomorrow", "xterm-256color"), ("x" * 300, "xterm-256color"), ("../x", "../x"), ("", "")]
)
def test_terminal_of_a_session(tmp_path, monkeypatch, terminal, becomes):
    """A terminal without a description is taken for one that all understand."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/xterm").touch()
    monkeypatch.setattr(session, "TERMINFO", (tmp_path,))
    assert session._known_terminal({b"TERM": terminal.encode()})[b"TERM"] == becomes.encode()


@pytest.mark.parametrize("left", ["file", "link", "nothing"])
def test_bundle_becomes_the_link_again(tmp_path, monkeypatch, left):
    """A start without the variable trusts the system's authorities, whatever lies in the place of the link to them: a user's own link, too."""
    bundle = tmp_path / "bundle"
    monkeypatch.setattr(authorities, "LASTING", bundle)
    if left == "file":
        bundle.touch()
    elif left == "link":
        bundle.symlink_to(tmp_path / "own")
    assert authorities.environment({}) == {}
    assert bundle.readlink() == authorities.SYSTEM


def test_authorities_are_named_alike():
    """The variables that an image sets are those that a start knows, at the place that it writes."""
    assert set(runtime.CA_VARIABLES) == {*authorities.VARIABLES} - {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    assert str(authorities.LASTING) == runtime.CA_BUNDLE


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "/"),
        ({"NB_PREFIX": "/notebook/team/anna"}, "/notebook/team/anna/"),
        ({"NB_PREFIX": "/notebook/team/anna", "JUPYTER_BASE_URL": "mine"}, "/mine/"),
        ({"NB_PREFIX": "/notebook/team/anna", "JUPYTER_BASE_URL": ""}, "/notebook/team/anna/"),
    ],
)
def test_base_url_of_kubeflow(given, expected):
    """Kubeflow's variable says where Jupyter answers, unless ours does."""
    assert jupyter.base_url(given) == jupyter.asked(given)["base_url"] == expected


@pytest.fixture
def program_of_hub(tmp_path, monkeypatch):
    """Where JupyterHub's package puts its program."""
    program = tmp_path / "jupyterhub-singleuser"
    monkeypatch.setattr(jupyter, "PROGRAM_OF_HUB", program)
    return program


@pytest.mark.parametrize(
    ("url", "port", "probe"),
    [("http://0.0.0.0:8888/user/anna.b/", 8888, "/user/anna.b/api"), ("https://:9999/user/a%40b/lab", 9999, "/user/a%40b/lab/api"), ("http://h", 8888, "/api")],
)
def test_jupyterhub(program_of_hub, monkeypatch, url, port, probe):
    """JupyterHub's own program runs where it has started the container, and is asked where it answers."""
    program_of_hub.touch()
    monkeypatch.setenv(jupyter.OF_HUB, url)
    service = jupyter.plan(JUPYTER, {jupyter.OF_HUB: url}, program_of_hub.parent)
    assert (service.port, service.path, service.refused) == (port, probe, "")
    assert jupyter.command(JUPYTER, service) == (str(program_of_hub),)
    (line,) = jupyter.welcome(JUPYTER, service)
    assert line.endswith("lab (through JupyterHub)")


@pytest.mark.usefixtures("program_of_hub")
def test_jupyterhub_without_its_package(capsys, tmp_path):
    """Without JupyterHub's package nothing runs that its users could not enter, and the line says what to install."""
    assert "jupyterhub is not installed" in jupyter.plan(JUPYTER, {jupyter.OF_HUB: "http://0.0.0.0:8888/user/anna/"}, tmp_path).refused
    assert "RUN pip install jupyterhub==VERSION OF THE HUB" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://h:x/", "http://[h/", "http://h:99999/"])
def test_jupyterhub_with_a_wrong_url(url, tmp_path):
    """What is no URL ends the start with a line that names the variable."""
    with pytest.raises(settings.SettingError, match="JUPYTERHUB_SERVICE_URL"):
        jupyter.plan(JUPYTER, {jupyter.OF_HUB: url}, tmp_path)
