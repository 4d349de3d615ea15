"""SSH as the container's own user."""

from __future__ import annotations

import pytest

from tests.images.boxes import READY, SSH_READY, mounted, ssh_options


@pytest.fixture(scope="module")
def box(start_shared, public_key):
    """A container with SSH."""
    box = start_shared(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"})
    box.wait_for(SSH_READY)
    return box


def test_command(box, ssh):
    """A command runs as the container's user."""
    assert ssh(box, "id", "-u").out.strip() == "1000"


def test_status_of_command(box, ssh):
    """The exit status of a command comes back."""
    assert ssh(box, "exit", "7").status == 7


def test_interactive_login(box, ssh):
    """An interactive login has a terminal and is a login shell of bash."""
    shown = ssh(box, options=("-tt",), stdin=b"tty; shopt -q login_shell && echo login-$0; echo $SHELL; exit\n").out
    assert "/dev/pts/" in shown
    assert "login--bash" in shown
    assert "/bin/bash" in shown


def test_only_a_modern_host_key(box, client):
    """The server shows an ed25519 host key and no other."""
    kinds = {line.split()[1] for line in client.run("ssh-keyscan", "-p", "22", box.address).out.splitlines() if not line.startswith("#")}
    assert kinds == {"ssh-ed25519"}


def test_fingerprints_are_printed(box, client):
    """The log has the fingerprint of the key that clients see."""
    client.run("sh", "-c", f"ssh-keyscan {box.address} 2>/dev/null >/tmp/scanned")
    prints = {line.split()[1] for line in client.run("ssh-keygen", "-l", "-f", "/tmp/scanned").out.splitlines()}
    assert len(prints) == 1
    assert all(digest in box.log for digest in prints)


@pytest.mark.parametrize("option", ["PreferredAuthentications=password", "PreferredAuthentications=keyboard-interactive"])
def test_no_passwords(box, ssh, option):
    """No password is asked for."""
    refused = ssh(box, "true", options=("-o", option))
    assert refused.status == 255
    assert "Permission denied (publickey)" in refused.err


def test_no_root(box, client):
    """Root cannot log in."""
    assert client.run("ssh", *ssh_options(), f"root@{box.address}", "true").status == 255


@pytest.mark.parametrize("name", ["root", "ubuntu", "anna"])
def test_another_name_is_told_which(box, client, name):
    """Who tries another name than the user's is told before the refusal which one there is; the user is told nothing."""
    refused = client.run("ssh", *_audible(), f"{name}@{box.address}", "true")
    assert (refused.status, "log in as dev (ssh dev@HOST)" in refused.err) == (255, True), refused
    assert "log in as" not in client.run("ssh", *_audible(), f"dev@{box.address}", "true").err


def _audible():
    """Return options of ssh that let it show what the server says before a login."""
    return ("-o", "LogLevel=INFO", *ssh_options())


def test_good_key_after_ten_bad_connections(box, ssh):
    """Ten refused connections from an address do not lock it out."""
    assert {ssh(box, "true", key="bad").status for _ in range(10)} == {255}
    assert ssh(box, "true").status == 0


def test_good_key_after_ten_bad_ones_in_one_connection(box, client):
    """An agent full of other keys does not stop the good one."""
    client.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do test -f /tmp/k$i || ssh-keygen -q -t ed25519 -N '' -f /tmp/k$i; done")
    bad = [word for number in range(1, 11) for word in ("-i", f"/tmp/k{number}")]
    options = [*bad, *ssh_options()]
    assert client.run("ssh", *options, f"dev@{box.address}", "true").status == 0


def test_scp_and_sftp(box, client):
    """Files go both ways with scp, over sftp and the old protocol, and with sftp."""
    client.put("/tmp/file", b"content")
    for options in ((), ("-O",)):
        assert client.run("scp", *options, *ssh_options(), "/tmp/file", f"dev@{box.address}:/tmp/sent").status == 0
        assert client.run("scp", *options, *ssh_options(), f"dev@{box.address}:/tmp/sent", "/tmp/back").status == 0
    assert client.run("sftp", *ssh_options(), f"dev@{box.address}", stdin=b"put /tmp/file /tmp/put\nls /tmp/put\n").status == 0
    assert box.run("cat", "/tmp/put").out == "content"


def test_rsync(box, client):
    """Rsync copies directories."""
    client.run("sh", "-c", "mkdir -p /tmp/tree/a && echo 1 >/tmp/tree/a/b")
    assert client.run("rsync", "-a", "-e", f"ssh {' '.join(ssh_options())}", "/tmp/tree", f"dev@{box.address}:/tmp/").status == 0
    assert box.run("cat", "/tmp/tree/a/b").out == "1\n"


def test_agent_forwarding(box, client):
    """Keys of a forwarded agent can be used in the container."""
    command = f"eval $(ssh-agent) >/dev/null; ssh-add -q /tmp/good; ssh -A {' '.join(ssh_options())} dev@{box.address} ssh-add -l; kill $SSH_AGENT_PID"
    assert "ED25519" in client.run("sh", "-c", command).out


def test_tcp_forwarding(box, client):
    """A port of the container can be forwarded, as for TensorBoard and VS Code."""
    box.container.exec_run(["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/etc/skel", "6006"], detach=True)
    client.container.exec_run(["ssh", "-N", "-L", "16006:127.0.0.1:6006", *ssh_options(), f"dev@{box.address}"], detach=True)
    box.until(lambda: client.run("curl", "-sf", "http://127.0.0.1:16006/").status == 0, "an answer through the tunnel")


def test_no_x11(box, ssh):
    """X11 is not forwarded."""
    assert "DISPLAY" not in ssh(box, "env", options=("-X",)).out


TERMINALS = ("xterm-256color", "xterm-kitty", "xterm-ghostty", "alacritty", "foot", "wezterm", "tmux-256color", "rxvt-unicode-256color", "of-tomorrow")


@pytest.mark.parametrize("terminal", TERMINALS)
def test_terminals(box, client, terminal):
    """Programs that draw work in every terminal, with 256 colours: one that the image does not know is taken for xterm's."""
    shown = client.run(
        "env",
        f"TERM={terminal}",
        "ssh",
        "-tt",
        *ssh_options(),
        f"dev@{box.address}",
        "tput colors; tmux -f /dev/null new-session -d && tmux kill-server && echo tmux",
    )
    lines = shown.out.split()
    assert (int(lines[0]) >= 88, lines[1:]) == (True, ["tmux"]), shown


def test_terminal_that_the_user_has_brought(box, client):
    """A description below home, as kitty's own ssh leaves one there, counts."""
    assert (
        box.run(
            "sh",
            "-c",
            "mkdir -p ~/.terminfo/o && cp /usr/share/terminfo/t/tmux-256color ~/.terminfo/o/of-mine || cp /lib/terminfo/t/tmux-256color ~/.terminfo/o/of-mine",
        ).status
        == 0
    )
    assert client.run("env", "TERM=of-mine", "ssh", "-tt", *ssh_options(), f"dev@{box.address}", "echo $TERM").out.strip() == "of-mine"


@pytest.mark.parametrize("name", ["LANG", "LC_ALL", "LC_CTYPE"])
def test_language_of_the_client(box, client, name):
    """A client that sends its language, which may be one that nobody knows, makes no program complain."""
    command = 'perl -e 1; bash -lc true; python -c "import locale; locale.setlocale(locale.LC_ALL, str()); print(locale.nl_langinfo(locale.CODESET))"'
    shown = client.run("env", f"{name}=xx_YY.UTF-8", "ssh", "-o", f"SendEnv={name}", *ssh_options(), f"dev@{box.address}", command)
    assert (shown.out, [line for line in shown.err.splitlines() if "locale" in line]) == ("UTF-8\n", [])


def test_bootstrap_of_vs_code(box, ssh):
    """What VS Code Remote does first works: a script over standard input of a bare shell, with a dynamic forward."""
    script = b"set -e; mkdir -p ~/.vscode-server/bin; uname -sm; command -v tar curl ps flock gzip sed >/dev/null; echo ready:$$; exit\n"
    assert "ready:" in ssh(box, "bash", options=("-T", "-D", "10800"), stdin=script).out
    assert "ready:" in ssh(box, "sh", options=("-T",), stdin=script).out


def test_off_without_key(start):
    """Without a key there is no sshd, and the log says so."""
    box = start()
    log = box.wait_for(READY)
    assert "SSH is off: no public key" in log
    assert box.run("pgrep", "sshd").status == 1
    assert box.run("torchstrata-health").status == 0


def test_several_keys_and_comments(start, public_key, ssh):
    """Several keys, comments and empty lines may be given."""
    given = f"# team\n\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFU7nOLnXyFs3kBj4qTfJXn3Bdfk5XkP4mRUa8Zg8kQH other\n{public_key}\n"
    box = start(environment={"SSH_PUBLIC_KEY": given, "TORCHSTRATA_SERVICES": "ssh"})
    box.wait_for(SSH_READY)
    assert ssh(box, "true").status == 0


def test_key_of_runpod(start, public_key, ssh):
    """The variable that RunPod sets lets its owner in, and one line says so; ours comes first where both are given."""
    box = start(environment={"PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"})
    assert "SSH takes the keys of PUBLIC_KEY, since SSH_PUBLIC_KEY is not given" in box.wait_for(SSH_READY)
    assert ssh(box, "true").status == 0


def test_public_key_of_another_kind(start):
    """``PUBLIC_KEY`` is a name that others use: what is no key of SSH there is nobody's mistake, and SSH stays off."""
    box = start(environment={"PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----"})
    assert "SSH is off: no public key" in box.wait_for(READY)
    assert box.run("torchstrata-health").status == 0


@pytest.mark.parametrize("target", ["/run/secrets/authorized_keys", "/home/dev/.ssh/authorized_keys"])
def test_key_files(start, public_key, ssh, tmp_path, target):
    """Keys come from a secret or a mounted authorized_keys, too."""
    (tmp_path / "keys").write_text(public_key + "\n")
    box = start(environment={"TORCHSTRATA_SERVICES": "ssh"}, volumes=mounted(tmp_path / "keys", target, "ro"))
    box.wait_for(SSH_READY)
    assert ssh(box, "true").status == 0


def test_invalid_keys(start):
    """Each invalid key is refused in one line that does not quote it; Jupyter works; the probe names SSH as down."""
    given = ("ssh-ed25519 AAAAnonsense me", "hello there", "-----BEGIN OPENSSH PRIVATE KEY-----", "b3BlbnNzaC1rZXk")
    box = start(environment={"SSH_PUBLIC_KEY": "\n".join(given)})
    log = box.wait_for(READY)
    for said in ("line 1 is damaged", "line 2 is not a public key", "it holds a private key"):
        assert log.count(said) == 1, said
    assert not [key for key in given if key in log]
    probe = box.run("torchstrata-health")
    assert (probe.status, "jupyter: up" in probe.out, "ssh: none of the given keys is valid" in probe.out) == (1, True, True)


@pytest.mark.parametrize("user", ["12345:0", "12345:12345", "1000:4321", "root"])
def test_any_user(start, public_key, ssh, user):
    """Whoever the container runs as, with passwd entry or not: ``dev`` logs in as that user, and has a name."""
    box = start(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"}, user=user)
    box.wait_for(SSH_READY)
    expected = "1000" if user == "root" else user.split(":")[0]
    shown = ssh(box, "id -u; whoami; /usr/bin/python3 -c 'import getpass; print(getpass.getuser())'; ssh-keygen -q -t ed25519 -N '' -f /tmp/new && echo made")
    assert shown.out.split() == [expected, "dev", "dev", "made"]


def test_port(start, public_key, ssh):
    """``SSH_PORT`` is obeyed."""
    box = start(environment={"SSH_PUBLIC_KEY": public_key, "SSH_PORT": "2022", "TORCHSTRATA_SERVICES": "ssh"})
    assert "port 2022" in box.wait_for(SSH_READY)
    assert ssh(box, "true", port=2022).status == 0


def test_port_that_may_not_be_bound(start, public_key, ssh):
    """Where 22 may not be bound, SSH listens on 2222 and says so."""
    box = start(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"}, sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"})
    log = box.wait_for(SSH_READY)
    assert "port 22 is not permitted here: SSH listens on 2222" in log
    assert ssh(box, "true", port=2222).status == 0
    assert box.run("torchstrata-health").status == 0


@pytest.mark.parametrize("given", [{"SSH_PORT": "8888"}, {"JUPYTER_PORT": "22"}])
def test_port_of_the_other_service(start, public_key, given):
    """Two services on one port are refused in one line: one of them would start again for ever."""
    box = start(environment={"SSH_PUBLIC_KEY": public_key} | given)
    assert box.ended() == 78
    assert f"jupyter and ssh are both to listen on port {next(iter(given.values()))}" in box.errors


def test_fifo_as_file_of_keys(start):
    """A FIFO in the place of authorized_keys is named, and neither start nor login waits for it."""
    box = start("sleep", "infinity")
    assert box.run("sh", "-c", "mkdir -p ~/.ssh && mkfifo ~/.ssh/authorized_keys").status == 0
    box.container.restart()
    assert box.has_begun()
    done = box.run("torchstrata-entrypoint", env={"TORCHSTRATA_SERVICES": "ssh"})
    assert "authorized_keys cannot be read: it is not a regular file" in done.err


def test_key_with_a_command(start, public_key, ssh):
    """Options of a key hold, also where they quote what looks like a key."""
    box = start(environment={"SSH_PUBLIC_KEY": f'command="echo ssh-ed25519 forced",no-pty {public_key}', "TORCHSTRATA_SERVICES": "ssh"})
    box.wait_for(SSH_READY)
    assert ssh(box, "id").out == "ssh-ed25519 forced\n"


@pytest.mark.parametrize("separator", ["\f", "\u2028", "\x85"])
def test_key_does_not_lose_its_options(start, public_key, ssh, separator):
    """A key for another address lets nobody in from here, whatever stands between it and its options."""
    box = start(environment={"SSH_PUBLIC_KEY": f'from="192.0.2.1"{separator}{public_key}\nrestrict {public_key.replace("AAAA", "AAAB")}'})
    box.wait_for(READY)
    assert "SSH_PUBLIC_KEY: line 1 is not plain text and is ignored" in box.log
    assert ssh(box, "true").status == 255


@pytest.mark.parametrize("target", ["/workspace", "/home/dev"])
def test_host_keys_persist(start, public_key, volume, client, target):
    """Host keys stay on the volume, 0600, so that a new container is known to clients."""
    scans = set()
    for _ in range(2):
        box = start(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"}, volumes={volume: {"bind": target}})
        box.wait_for(SSH_READY)
        scans.add(tuple(sorted(line.split()[2] for line in client.run("ssh-keyscan", box.address).out.splitlines() if line[0] != "#")))
        modes = box.run("sh", "-c", f"stat -c %a {target}/.torchstrata/ssh/*_key {target}/.config/torchstrata/ssh/*_key 2>/dev/null").out.split()
        assert modes == ["600"]
        box.container.remove(force=True)
    assert len(scans) == 1


def test_host_key_of_before(start, public_key, workspace, client):
    """An RSA host key that lies on a volume goes on being shown: clients know it."""
    keys = workspace / ".torchstrata/ssh"
    keys.mkdir(parents=True)
    client.run("sh", "-c", "test -f /tmp/old || ssh-keygen -q -t rsa -b 2048 -N '' -f /tmp/old")
    (keys / "ssh_host_rsa_key").write_text(client.run("cat", "/tmp/old").out)
    box = start(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"}, volumes=mounted(workspace), user="root")
    box.wait_for(SSH_READY)
    shown = client.run("ssh-keyscan", box.address).out
    assert client.run("cat", "/tmp/old.pub").out.split()[1] in shown
    assert "ssh-ed25519" in shown


def test_damaged_host_key(start, public_key, workspace):
    """A damaged host key is made anew, with one line; SSH works."""
    keys = workspace / ".torchstrata/ssh"
    keys.mkdir(parents=True)
    (keys / "ssh_host_ed25519_key").write_text("broken")
    box = start(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"}, volumes=mounted(workspace), user="root")
    assert "cannot be used and is made anew" in box.wait_for(SSH_READY)
