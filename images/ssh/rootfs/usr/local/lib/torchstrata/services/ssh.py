"""An SSH server for the container's own user: keys only, host keys that stay, no root."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from container import mounts, notices, plain, ports, services, settings, state, users
from container.declarations import Declaration
from container.workspace import WORKSPACE

SESSION_PROGRAM: Final = Path("/usr/lib/openssh/sshd-session")
"""There from OpenSSH 9.8 on, the first version with penalties for addresses."""

SPARE_PORT: Final = 2222
SECRET_KEYS: Final = Path("/run/secrets/authorized_keys")
OF_USER: Final = Path(".ssh/authorized_keys")
GIVEN_KEYS: Final = "authorized_keys"
CONFIG: Final = "ssh/sshd_config"
"""In the private directory of the service, where its command has it."""

BANNER: Final = "banner"

BUSY: Final = ("Exceeded MaxStartups", "Not allowed at this time")
"""What sshd says instead of its banner where too many strangers wait to log in: it lives, which is all that the probe asks."""

FOREIGN_KEYS: Final = ("PUBLIC_KEY",)
"""Variables of other images and of those who rent out machines (RunPod), taken where ``SSH_PUBLIC_KEY`` is not given. Anything may have such a
name, so that a value without a key is no mistake."""

LONGEST_LINE: Final = 16 << 10
"""Characters of a line with a key; one of RSA with 16384 bits has 2,800."""

WEAK_KEX: Final = ("ecdh-sha2-*", "diffie-hellman-*")
CLASSICAL_KEX: Final = ("curve25519-*",)
"""For clients that know no hybrid with a post-quantum part (OpenSSH before 8.9). Without these and :data:`WEAK_KEX` OpenSSH offers hybrids alone."""

WEAK_MACS: Final = ("hmac-sha1*", "umac-64*", "umac-128@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
"""SHA-1, tags of 64 bits, and those that authenticate before they encrypt; the ``-etm`` ones stay."""

PER_SOURCE: Final = 60
"""Connections that one address may have before a login: some editors open 15 at once, and a team may share an address."""

MAX_STARTUPS: Final = "200:30:300"
"""The same of all addresses together: from 200 on sshd drops 30 % of new ones, from 300 on all. One takes 1.4 MB of memory."""

MAX_SESSIONS: Final = 100
"""Sessions in one connection, as multiplexing clients open them."""

KEY_TYPES: Final = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
HOST_KEYS: Final = ("ed25519", "rsa")
"""Kinds of host keys that are used if they are there."""

MADE: Final = "ed25519"
"""The kind that is made. Clients know it since 2014, and making an RSA key as well took up to two seconds of each first start."""


def check(given: Mapping[str, str]) -> None:
    """Refuse a value that one of SSH's variables cannot have. Keys are looked at line by line: one bad key does not lock out the others.

    :raises SettingError: there is one.
    """
    settings.apply(given, GATES)


def plan(declared: Declaration, given: Mapping[str, str], home: Path) -> services.Service | None:
    """Return the service if anybody may enter, and write the keys of the environment; None where no key was given, and SSH is off."""
    accepted, refused = authorized(given["SSH_PUBLIC_KEY"]) if given.get("SSH_PUBLIC_KEY") else (_foreign(given), [])
    for why in refused:
        notices.warn(f"SSH_PUBLIC_KEY: {why}", "give lines such as 'ssh-ed25519 AAAA... name', as in ~/.ssh/id_ed25519.pub")
    state.write(GIVEN_KEYS, "".join(f"{line}\n" for line in accepted))
    files = [path for path in (SECRET_KEYS, home / OF_USER) if _has_keys(path)]
    if not accepted and not files and not refused:
        notices.inform(f"SSH is off: no public key (SSH_PUBLIC_KEY, {SECRET_KEYS} or ~/{OF_USER})")
        return None
    if keeper(home, mounts.read()) is None:
        notices.inform(f"SSH host keys are of this start alone: mount a volume at {home} or {WORKSPACE} to keep them")
    asked = services.asked(declared, given)
    service = choose_port(asked, usual=not settings.port(asked.variable, given.get(asked.variable, "")))
    service = service._replace(banners=(*service.banners, *BUSY))
    if not accepted and not files:
        return services.refuse(service, "none of the given keys is valid", "correct SSH_PUBLIC_KEY")
    return services.unless_taken(service)


def _foreign(given: Mapping[str, str]) -> list[str]:
    """Return the keys of the first variable of :data:`FOREIGN_KEYS` that has any."""
    for name in FOREIGN_KEYS:
        keys, _ = authorized(given.get(name, ""))
        if keys:
            notices.inform(f"SSH takes the keys of {name}, since SSH_PUBLIC_KEY is not given")
            return keys
    return []


def authorized(text: str) -> tuple[list[str], list[str]]:
    """Return the valid lines of ``text``, and for each other one what is wrong with it; neither quotes a key.

    Lines end where sshd sees them end (sshd(8), AUTHORIZED_KEYS FILE FORMAT), so that no key loses the options before it.
    """
    accepted: list[str] = []
    refused: list[str] = []
    for number, line in enumerate(_lines(text), start=1):
        if not line or line.startswith("#"):
            continue
        trouble = _trouble(line)
        if trouble == "a private key":
            return accepted, [*refused, "it holds a private key, which nobody else may have; it is ignored"]
        if trouble:
            refused.append(f"line {number} is {trouble} and is ignored")
        else:
            accepted.append(line)
    return accepted, refused


def choose_port(service: services.Service, *, usual: bool) -> services.Service:
    """Return the service on the port to listen on: the spare one where its own may not be bound.

    :param usual: whether nobody has asked for its port; then the spare one does also where it is taken.
    """
    obstacle = ports.obstacle(service.port)
    if obstacle == "not permitted" or (obstacle and usual):
        notices.warn(f"port {service.port} is {obstacle} here: SSH listens on {SPARE_PORT}", f"publish that one: -p 2222:{SPARE_PORT}")
        return service._replace(port=SPARE_PORT)
    return service


def command(declared: Declaration, service: services.Service) -> Sequence[str]:
    """Make what sshd needs (host keys, configuration) and return how it is started."""
    home = Path(os.environ["HOME"])
    keys = host_keys(keeper(home, mounts.read()), plain.directory(service.name))
    state.write(BANNER, f"There is one user here: log in as {users.NAME} (ssh {users.NAME}@HOST).\n")
    only = settings.flag("SSH_POST_QUANTUM_ONLY", os.environ.get("SSH_POST_QUANTUM_ONLY", ""))
    state.write(CONFIG, configuration(service.port, keys, penalties=SESSION_PROGRAM.exists(), root=os.getuid() == 0, post_quantum_only=only))
    return plain.command(declared, service)


def keeper(home: Path, mounted: tuple[mounts.Mount, ...]) -> Path | None:
    """Return where host keys outlive the container: the home if it is a volume, else the workspace if it is one; else None.

    On the container's own layer ``docker commit`` would give all its copies the same private keys.
    """
    of_home, of_workspace = home / ".config/torchstrata/ssh", WORKSPACE / ".torchstrata/ssh"
    if mounts.is_volume(str(of_home), mounted):
        return of_home
    return of_workspace if mounts.is_volume(str(of_workspace), mounted) and os.access(WORKSPACE, os.W_OK) else None


def host_keys(directory: Path | None, working: Path) -> tuple[Path, ...]:
    """Return the host keys, private copies of those in ``directory``; make one where it has none, and keep it there.

    :param directory: where they outlive the container; None where nothing does.
    :param working: the private directory that sshd reads.
    """
    working.mkdir(mode=0o700, exist_ok=True)
    for name in map(_name, HOST_KEYS):
        if directory:
            _fetch(directory / name, working / name)
    if not (working / _name(MADE)).exists() and _make(working / _name(MADE)) and directory:
        _keep(directory, working)
    return tuple(working / _name(kind) for kind in HOST_KEYS if (working / _name(kind)).exists())


def fingerprint(public_key: str) -> str:
    """Return the fingerprint of a public key line as ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def welcome(declared: Declaration, service: services.Service) -> Sequence[str]:
    """Return the lines for when SSH answers: where, and by which host keys to know it."""
    return [*plain.welcome(declared, service), *findings(service)]


def findings(service: services.Service) -> Sequence[str]:
    """Return the fingerprints of the host keys, to compare with what a client shows."""
    keys = {kind: plain.directory(service.name) / f"{_name(kind)}.pub" for kind in HOST_KEYS}
    return [f"SSH host key {kind}: {fingerprint(path.read_text(encoding='ascii'))}" for kind, path in keys.items() if path.exists()]


def configuration(port: int, keys: tuple[Path, ...], *, penalties: bool, root: bool, post_quantum_only: bool = False) -> str:
    """Return the configuration of sshd (sshd_config(5)).

    :param penalties: whether this sshd knows penalties: they would lock out everybody behind one address.
    :param root: whether the user is root of a user namespace.
    :param post_quantum_only: whether to refuse exchanges of keys that quantum computers could break in a session recorded today.
    """
    lines = [
        f"Port {port}",
        *(f"HostKey {key}" for key in keys),
        f"AuthorizedKeysFile {state.directory() / GIVEN_KEYS} {SECRET_KEYS} %h/{OF_USER}",
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        f"PermitRootLogin {'prohibit-password' if root else 'no'}",
        "HostbasedAuthentication no",
        "PermitEmptyPasswords no",
        f"KexAlgorithms -{','.join(WEAK_KEX + (CLASSICAL_KEX if post_quantum_only else ()))}",
        f"MACs -{','.join(WEAK_MACS)}",
        f"MaxStartups {MAX_STARTUPS}",
        f"PerSourceMaxStartups {PER_SOURCE}",
        "PerSourceNetBlockSize 32:64",
        f"MaxSessions {MAX_SESSIONS}",
        "MaxAuthTries 20",
        "LoginGraceTime 60",
        "UsePAM no",
        "StrictModes no",
        "PermitUserEnvironment no",
        "X11Forwarding no",
        "AllowTcpForwarding yes",
        "AllowAgentForwarding yes",
        "PermitTunnel no",
        "GatewayPorts no",
        "ClientAliveInterval 60",
        "PrintMotd no",
        "PrintLastLog no",
        "UseDNS no",
        "PidFile none",
        "LogLevel INFO",
        "Subsystem sftp /usr/lib/openssh/sftp-server",
    ]
    if penalties:
        lines.append("PerSourcePenalties no")
    if not root:
        lines += [f"Match User !{users.NAME},*", f"Banner {state.directory() / BANNER}"]  # last: a match holds for all lines after it
    return "".join(f"{line}\n" for line in lines)


def _lines(text: str) -> list[str]:
    """Return lines as sshd reads them: ended by a newline alone, without blanks around."""
    return [line.rstrip("\r").strip(" \t") for line in text.split("\n")]


def _trouble(line: str) -> str:
    """Return what is wrong with a line of authorized_keys, options allowed; empty if nothing is."""
    if "PRIVATE KEY" in line:
        return "a private key"
    if len(line) > LONGEST_LINE:
        return "too long"
    if not all(character.isprintable() or character == "\t" for character in line):
        return "not plain text"
    words = re.split("[ \t]+", line if line.startswith(KEY_TYPES) else _after_options(line))
    if not words[0].startswith(KEY_TYPES) or len(words) == 1:
        return "not a public key"
    return "" if _is_blob(words[1], words[0].encode()) else "damaged"


def _after_options(line: str) -> str:
    """Return what follows the options of a line: they end at the first blank outside of quotes (``sshkey_advance_past_options`` of OpenSSH)."""
    end, quoted = 0, False
    while end < len(line) and (quoted or line[end] not in " \t"):
        if line.startswith('\\"', end):
            end += 1
        elif line[end] == '"':
            quoted = not quoted
        end += 1
    return line[end:].strip(" \t")


def _is_blob(text: str, kind: bytes) -> bool:
    """Return whether ``text`` is a key of that kind in base64: its first field is the kind, with its length (RFC 4253, 6.6)."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return blob.startswith(len(kind).to_bytes(4, "big") + kind) and len(blob) > 2 * len(kind)


def _has_keys(path: Path) -> bool:
    """Return whether a file has a line that may be a key; say why where it cannot be read."""
    try:
        lines = _lines(settings.read_file(path, settings.LONGEST_LIST))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        notices.warn(f"{path} cannot be read: {settings.unread(error)}", "give a regular file with keys that the container's user can read")
        return False
    return any(line and not line.startswith("#") for line in lines)


def _name(kind: str) -> str:
    return f"ssh_host_{kind}_key"


def _make(path: Path) -> bool:
    """Make a host key; return whether that went well. ``ssh-keygen`` says what did not."""
    command = ["/usr/bin/ssh-keygen", "-q", "-t", MADE, "-N", "", "-C", "torchstrata", "-f", str(path)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _fetch(stored: Path, working: Path) -> None:
    """Copy a stored host key, with the mode that sshd wants, which volumes cannot always hold."""
    if working.exists() or not os.path.exists(stored):  # noqa: PTH110  # Path's raises where only another user may look
        return
    try:
        state.write(f"ssh/{working.name}", stored.read_text(encoding="ascii"))
        public = subprocess.run(["/usr/bin/ssh-keygen", "-y", "-P", "", "-f", working], capture_output=True, check=True, stdin=subprocess.DEVNULL)
    except (OSError, ValueError, subprocess.CalledProcessError):
        notices.warn(f"host key {stored} cannot be used and is made anew", "clients will ask to accept the new one")
        working.unlink(missing_ok=True)
        return
    state.write(f"ssh/{working.name}.pub", public.stdout.decode("ascii"), mode=0o644)


def _keep(directory: Path, working: Path) -> None:
    """Copy a new host key to where it outlives the container."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (_name(MADE), f"{_name(MADE)}.pub"):
            target = directory / name
            target.touch(mode=0o600)
            target.chmod(0o644 if name.endswith(".pub") else 0o600)
            target.write_bytes((working / name).read_bytes())
    except OSError as error:
        fix = f"let user {os.getuid()} write there: clients see new ones at each start otherwise"
        notices.warn(f"SSH host keys cannot be kept in {directory}: {error.strerror}", fix)


GATES: Final = (settings.Gate("SSH_POST_QUANTUM_ONLY", settings.flag),)
"""What ``variables`` of its declaration names."""
