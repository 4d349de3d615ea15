"""How long people wait for an image's services, beside the same programs started bare in the same image, in one run.

    python bench/start.py [IMAGE] > bench/results/start.json

Composed: the image as it is, until the SSH banner and until Jupyter's HTTP 200, and from ``docker stop`` to the end, idle and
with a busy kernel; a command, from the start to its end. Bare: ``jupyter lab``, ``ssh-keygen`` with ``sshd``, and the command as
the entrypoint. Rounds alternate, the median counts.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
from docker.models.containers import Container

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine
from tests.images.boxes import CLIENTS, Box

ROUNDS = 5
TOKEN = "bench"  # noqa: S105  # of containers that live for seconds
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDIhz2GK/XCUj4i6Q5yQJNL1MKJTlK6IMx7SwHJQCjXI bench"
BARE_JUPYTER = ["/opt/venv/bin/jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", f"--IdentityProvider.token={TOKEN}"]
BARE_SSH = ["sh", "-c", "ssh-keygen -q -t ed25519 -N '' -f /tmp/k && exec /usr/sbin/sshd -D -e -h /tmp/k -p 22 -o UsePAM=no -o PidFile=none"]


def answers(address: str, port: int, request: bytes, reply: bytes) -> bool:
    """Return whether a server's first bytes, after ``request``, contain ``reply``."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), 0.5) as connection:
        connection.sendall(request)
        return reply in connection.recv(16)
    return False


def jupyter(address: str) -> bool:
    """Return whether Jupyter answers with 200."""
    return answers(address, 8888, b"GET /api HTTP/1.0\r\n\r\n", b" 200")


def ssh(address: str) -> bool:
    """Return whether an SSH server shows its banner."""
    return answers(address, 22, b"", b"SSH-")


@contextlib.contextmanager
def running(engine: docker.DockerClient, image: str, **options: object) -> Iterator[tuple[Box, float]]:
    """Start a container and give it with the time of its start; remove it at the end."""
    container: Container = engine.containers.create(image, user="1000:0", shm_size="256m", **options)
    try:
        begun = time.monotonic()
        container.start()
        yield Box(container), begun
    finally:
        container.remove(force=True, v=True)


def until_answer(engine: docker.DockerClient, image: str, service: Callable[[str], bool], **options: object) -> float:
    """Return the seconds from the start of a container to the first answer."""
    with running(engine, image, **options) as (box, begun):
        address = box.address
        box.until(lambda: service(address), "an answer")
        return time.monotonic() - begun


def to_end(engine: docker.DockerClient, image: str, **options: object) -> float:
    """Return the seconds from the start of a container to the end of its command."""
    with running(engine, image, **options) as (box, begun):
        if box.ended():
            raise SystemExit(f"the command failed:\n{box.log}")
        return time.monotonic() - begun


def to_stop(engine: docker.DockerClient, image: str, code: str) -> float:
    """Return the seconds that ``docker stop`` takes, with a kernel that runs ``code``, if any."""
    with running(engine, image, environment={"JUPYTER_TOKEN": TOKEN}) as (box, _):
        box.until(lambda: jupyter(box.address), "an answer")
        if code:
            url = "http://127.0.0.1:8888/"
            script = f"nohup /opt/venv/bin/python /tmp/notebook.py {url} {TOKEN} kernel '{code}' >/dev/null 2>&1 &"
            box.put("/tmp/notebook.py", (CLIENTS / "notebook.py").read_bytes())  # noqa: S108
            box.run("sh", "-c", script)
            box.until(lambda: box.run("test", "-e", "/tmp/busy").status == 0, "a kernel")  # noqa: S108
        begun = time.monotonic()
        box.container.stop(timeout=10)
        return time.monotonic() - begun


def main() -> None:
    """Measure and print the figures as JSON; progress goes to standard error."""
    image = sys.argv[1] if len(sys.argv) > 1 else "pytorch-cuda:2.8-cu121-ssh"
    engine = docker.from_env(timeout=120)
    busy = 'open("/tmp/busy", "w")\nwhile True: pass'
    sides: dict[str, Callable[[], float]] = {
        "ssh_banner": lambda: until_answer(engine, image, ssh, environment={"SSH_PUBLIC_KEY": KEY}),
        "ssh_banner_bare": lambda: until_answer(engine, image, ssh, entrypoint=BARE_SSH),
        "jupyter_200": lambda: until_answer(engine, image, jupyter),
        "jupyter_200_bare": lambda: until_answer(engine, image, jupyter, entrypoint=BARE_JUPYTER),
        "command": lambda: to_end(engine, image, command=["true"]),
        "command_bare": lambda: to_end(engine, image, entrypoint=["true"]),
        "stop_idle": lambda: to_stop(engine, image, ""),
        "stop_busy_kernel": lambda: to_stop(engine, image, busy),
    }
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name, side in sides.items():
            seen[name].append(side())
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    middle = {name: round(statistics.median(values), 2) for name, values in seen.items()}
    figures = {
        **machine.about(),
        "image": image,
        "rounds": ROUNDS,
        "seconds": middle,
        "ratio_ssh": round(middle["ssh_banner"] / middle["ssh_banner_bare"], 2),
        "ratio_jupyter": round(middle["jupyter_200"] / middle["jupyter_200_bare"], 2),
        "start_overhead": round(middle["command"] - middle["command_bare"], 2),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
