"""The environment is the same whichever way one comes in."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import READY, ssh_options

VALUES = {
    "PLAIN": "plain",
    "SPACES": "  a  b ",
    "QUOTES": 'it\'s "quoted" `id`',
    "DOLLAR": "$(id) $HOME ${X}",
    "EQUALS": "a=b==",
    "NEWLINES": "first\nsecond\n\nlast\n",
    "UNICODE": "Grüße 你好 🙂",
    "lower_case": "yes",
    "http_proxy": "http://proxy.invalid:3128",
    "BACKSLASH": "a\\nb\\",
    "EMPTY": "",
    "dotted.name-1": "kept",
    "NCCL_DEBUG": "WARN",
    "TOKEN_OF_MINE": "not one of the secrets",
}
IMAGE = ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG")
READ_SFTP = """
import json, subprocess
number = subprocess.check_output(["pgrep", "-n", "-x", "sftp-server"], text=True).strip()
block = open(f"/proc/{number}/environ", "rb").read()
print(json.dumps(dict(entry.decode().split("=", 1) for entry in block.split(b"\\0") if entry)))
"""
SEARCH = """
import os, pathlib
for process in pathlib.Path("/proc").iterdir():
    if process.name.isdigit() and int(process.name) not in (os.getpid(), os.getppid()):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError as error:
            text = b""
        print(process.name, b"s3cret-token" in text)
"""
DUMP = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.fixture(scope="module")
def box(start_shared, public_key):
    """A container with services and difficult variables."""
    variables = VALUES | {"SSH_PUBLIC_KEY": public_key, "JUPYTER_TOKEN": "s3cret-token", "MY_KEY": "hidden", "TORCHSTRATA_SECRETS": "MY_*"}
    box = start_shared(environment=variables, cap_add=["SYS_PTRACE"])  # for root alone, to look into sftp-server, which hides itself
    box.wait_for(READY)
    return box


@pytest.fixture(scope="module")
def seen(box, ssh, notebook, client):
    """The environment by every way in."""
    assert box.run("cp", "/usr/bin/env", "/tmp/printer").status == 0
    found = {"docker exec": box.run("/usr/bin/python3", "-c", DUMP).out, "ssh command": ssh(box, "/usr/bin/python3", "-c", f"'{DUMP}'").out}
    found["ssh interactive"] = ssh(box, options=("-tt",), stdin=f'/usr/bin/python3 -c "{DUMP}"; exit\n'.encode()).out
    found["kernel"] = notebook(box, "s3cret-token", "kernel", DUMP).out
    box.put("/tmp/dump.py", b"import json, os; open('/tmp/terminal.json', 'w').write(json.dumps(dict(os.environ)))")
    notebook(box, "s3cret-token", "terminal", "/usr/bin/python3 /tmp/dump.py")
    found["terminal"] = box.run("cat", "/tmp/terminal.json").out
    found["sftp"] = sftp_environment(box, client)
    return {way: parsed(way, text) for way, text in found.items()}


def parsed(way, text):
    """Return the JSON object in what a way in has printed."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    assert lines, f"{way} printed no environment: {text!r}"
    return json.loads(lines[-1])


def sftp_environment(box, client):
    """Return the environment of the server process behind an open sftp session."""
    client.container.exec_run(["sh", "-c", f"tail -f /dev/null | sftp {' '.join(ssh_options())} dev@{box.address}"], detach=True)
    box.until(lambda: box.run("pgrep", "-x", "sftp-server").status == 0, "an sftp session")
    box.put("/tmp/read.py", READ_SFTP.encode())
    shown = box.run("/usr/bin/python3", "/tmp/read.py", user="root").out
    client.run("pkill", "-x", "tail")
    return shown


OTHERS = ("ssh command", "ssh interactive", "kernel", "terminal", "sftp")
WAYS = ("docker exec", *OTHERS)
"""The engine gives its own the variables of the image and of the container: what the others are compared with."""


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("way", WAYS)
def test_given_variable(seen, way, name):
    """A variable passed with -e has the same value everywhere, whatever characters it holds."""
    assert seen[way].get(name) == VALUES[name]


@pytest.mark.parametrize("name", IMAGE)
@pytest.mark.parametrize("way", OTHERS)
def test_variable_of_the_image(seen, way, name):
    """A variable of the image has the same value everywhere; login shells do not reset PATH."""
    assert seen[way].get(name) == seen["docker exec"].get(name)


@pytest.mark.parametrize("way", OTHERS)
@pytest.mark.parametrize("name", ["JUPYTER_TOKEN", "MY_KEY"])
def test_secret(seen, way, name):
    """Secrets reach no process that the container starts; ``TORCHSTRATA_SECRETS`` adds patterns."""
    assert name not in seen[way]


def test_secret_is_in_no_process(box):
    """The token is in no argument and in no environment of any process."""
    box.put("/tmp/search.py", SEARCH.encode())
    lines = box.run("/usr/bin/python3", "/tmp/search.py").out.splitlines()
    assert len(lines) >= 4  # init, supervisor, jupyter, sshd
    assert not [line for line in lines if line.endswith("True")]


def test_threads_follow_the_cpu_limit(start):
    """With one CPU allowed, libraries start one thread."""
    box = start("sh", "-c", "echo $OMP_NUM_THREADS", nano_cpus=1_000_000_000)
    box.ended()
    assert box.container.logs(stderr=False).strip() == b"1"
