"""What a neighbour in the network tries on SSH, and what ssh-audit says of it."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from importlib import resources

import pytest

from tests.images.boxes import READY, SSH_READY, ssh_options

IDLE = """
import socket, sys
held = []
for _ in range(int(sys.argv[2])):
    held.append(socket.create_connection((sys.argv[1], 22)))
print("open", flush=True)
sys.stdin.read()
"""
POST_QUANTUM = "does not provide protection against post-quantum attacks"


@pytest.fixture(scope="module")
def box(start_shared, public_key):
    """A container with both services."""
    box = start_shared(environment={"SSH_PUBLIC_KEY": public_key})
    box.wait_for(READY)
    box.wait_for(SSH_READY)
    return box


@pytest.fixture(scope="module")
def settings(box):
    """What sshd itself says of its configuration: names in small letters."""
    done = box.run("sh", "-c", "/usr/sbin/sshd -T -f /dev/shm/torchstrata-*/ssh/sshd_config -C user=dev,host=h,addr=192.0.2.1")
    assert done.status == 0, done.err
    return dict(line.partition(" ")[::2] for line in done.out.splitlines())


HARDENED = {
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "hostbasedauthentication": "no",
    "permitemptypasswords": "no",
    "permitrootlogin": "no",
    "permituserenvironment": "no",
    "x11forwarding": "no",
    "permittunnel": "no",
    "gatewayports": "no",
    "usepam": "no",
    "ignorerhosts": "yes",
    "loglevel": "INFO",
    "authenticationmethods": "publickey",
    "logingracetime": "60",
    "maxsessions": "100",
    "persourcemaxstartups": "60",
}


@pytest.mark.parametrize("name", HARDENED)
def test_setting(settings, name):
    """What benchmarks of hardening ask for, and limits that editors do not hit."""
    assert settings[name] == HARDENED[name]


def test_only_its_environment(settings):
    """A client sets no variable of the container."""
    assert "acceptenv" not in settings


@pytest.mark.parametrize("method", ["password", "none", "keyboard-interactive", "hostbased", "gssapi-with-mic"])
def test_other_ways_in(client, box, method):
    """Nobody enters by another method than a key, and none is offered."""
    done = client.run("ssh", *ssh_options(), "-o", f"PreferredAuthentications={method}", "-o", "PubkeyAuthentication=no", f"dev@{box.address}", "true")
    assert done.status == 255
    assert "Permission denied (publickey)." in done.err


@pytest.mark.parametrize("name", ["root", "daemon", "nobody", "sshd", "1000", "", "dev root", "-oProxyCommand=id", "dev\r", "../dev", 300 * "a"])
def test_other_names(client, box, name):
    """The good key opens no account but the user's."""
    assert client.run("ssh", *ssh_options(), "-l", name, box.address, "true").status == 255


def test_names_cannot_write_the_log(client, box):
    """What is tried as the name of a user stays as it is in its line of the log; Debian's own client refuses to send what moves a cursor."""
    client.run("ssh", *ssh_options(), "-l", "eve\u202eall is well", box.address, "true")
    box.until(lambda: "eve" in box.log, "the attempt in the log")
    assert not [line for line in box.log.splitlines() if not line.isprintable()]
    assert "Invalid user eve\\342\\200\\256all is well" in box.log


@pytest.mark.parametrize("options", [("-w", "0:0"), ("-X",), ("-Y",)], ids=["tunnel", "x11", "trusted x11"])
def test_no_tunnel_and_no_display(client, box, options):
    """Neither a network device nor a display is forwarded."""
    shown = client.run("timeout", "60", "ssh", *ssh_options(), *options, f"dev@{box.address}", "echo display:$DISPLAY; ls /sys/class/net").out
    assert "display:\n" in shown or shown == ""
    assert "tun" not in shown


def test_forwarded_port_is_for_the_container_alone(client, box):
    """A port that a client forwards to itself is reached from the container, not by its neighbours."""
    client.container.exec_run(["ssh", "-N", "-R", "0.0.0.0:17777:127.0.0.1:1", *ssh_options(), f"dev@{box.address}"], detach=True)
    listening = "/usr/bin/python3 -c \"print([l.split()[1] for l in open('/proc/net/tcp') if ':4571 ' in l.split()[1] + ' '])\""
    box.until(lambda: ":4571" in box.run("sh", "-c", listening).out, "the forwarded port")
    assert "0100007F:4571" in box.run("sh", "-c", listening).out
    assert "00000000:4571" not in box.run("sh", "-c", listening).out


def test_agent_stays_at_home(client, box):
    """No agent is forwarded unless the client asks."""
    command = (
        f"eval $(ssh-agent) >/dev/null; ssh-add -q /tmp/good; ssh {' '.join(ssh_options())} dev@{box.address} 'echo agent:$SSH_AUTH_SOCK'; kill $SSH_AGENT_PID"
    )
    assert client.run("sh", "-c", command).out == "agent:\n"


@pytest.mark.costly
def test_connections_of_editors(client, box):
    """Forty connections at once, as some editors and a team behind one address open them, all get in."""
    one = f"ssh {' '.join(ssh_options())} dev@{box.address} echo in"
    shown = client.run("sh", "-c", f"for i in $(seq 40); do {one} & done; wait").out
    assert shown.split() == 40 * ["in"]


def test_sessions_in_one_connection(client, box):
    """Thirty sessions in one connection, as multiplexing clients open them, are all there at once."""
    one = f"ssh -S /tmp/shared {' '.join(ssh_options())} dev@{box.address}"
    together = "echo >>/tmp/here; until [ $(wc -l </tmp/here) -ge 30 ]; do sleep 0.1; done; echo in"
    command = f"{one} -M -N -f && for i in $(seq 30); do {one} '{together}' & done; wait; {one} -O exit"
    shown = client.run("timeout", "120", "sh", "-c", command)
    assert shown.out.split() == 30 * ["in"], shown.err


def test_strangers_who_wait(client, box, start, public_key, ssh):
    """130 connections that never log in: the container stays healthy, and others get in."""
    client.put("/tmp/idle.py", IDLE.encode())
    stranger = start("sleep", "infinity")
    stranger.put("/tmp/idle.py", IDLE.encode())
    stranger.container.exec_run(["sh", "-c", f"tail -f /dev/null | python3 /tmp/idle.py {shlex.quote(box.address)} 130 >/tmp/idle.log"], detach=True)
    stranger.until(lambda: "open" in stranger.run("cat", "/tmp/idle.log").out, "the connections")
    box.until(lambda: "60 of" in box.run("ps", "-eo", "args").out, "as many of a stranger's connections as may wait")
    assert box.run("torchstrata-health").out.splitlines() == ["jupyter: up", "ssh: up"]
    assert ssh(box, "echo", "in").out == "in\n"


@pytest.fixture(scope="module")
def audit(client, start_shared, public_key):
    """Run ssh-audit on a container from the client; return what it says of each algorithm, by kind and name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", "import sys\nfrom ssh_audit.ssh_audit import main\nsys.exit(main())\n")
        for source in resources.files("ssh_audit").iterdir():
            if source.name.endswith(".py"):
                archive.writestr(f"ssh_audit/{source.name}", source.read_text(encoding="utf-8"))
    client.put("/tmp/ssh-audit.zip", buffer.getvalue())

    def run(**given):
        box = start_shared(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"} | given)
        box.wait_for(SSH_READY)
        done = client.run("/usr/bin/python3", "/tmp/ssh-audit.zip", "--json", "--skip-rate-test", box.address)
        found = json.loads(done.out)
        return {(kind, row["algorithm"]): row.get("notes", {}) for kind in ("kex", "key", "enc", "mac") for row in found[kind]}

    return run


def complaints(audited):
    """Return what ssh-audit warns of, without what it merely tells."""
    notes = {name: said.get("fail", []) + said.get("warn", []) for name, said in audited.items()}
    return {name: said for name, said in notes.items() if said}


def test_audit(audit):
    """ssh-audit has nothing against any algorithm but that Curve25519, which clients before OpenSSH 8.9 need, is not post-quantum."""
    audited = audit()
    assert len(audited) > 8
    assert complaints(audited) == {("kex", name): [POST_QUANTUM] for name in ("curve25519-sha256", "curve25519-sha256@libssh.org")}
    first = next(name for kind, name in audited if kind == "kex")
    assert first.startswith(("sntrup761x25519", "mlkem768x25519")), "what new clients agree on is not post-quantum"


def test_audit_of_post_quantum_only(audit):
    """With ``SSH_POST_QUANTUM_ONLY=1`` it has nothing at all."""
    assert complaints(audit(SSH_POST_QUANTUM_ONLY="1")) == {}
