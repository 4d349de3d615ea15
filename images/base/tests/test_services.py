"""A service that a derived image adds by a file: it runs beside those of the image, and what is wrong with it is said in one line."""

from __future__ import annotations

import json

import pytest

SERVER = "import http.server, pathlib, sys; print('token', pathlib.Path(sys.argv[2], 'GYM_TOKEN').read_text(), flush=True); \
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"
GYM = {
    "command": ["/usr/bin/python3", "-c", SERVER, "{port}", "{state}"],
    "port": 8000,
    "health": {"http": "/etc/hostname"},
    "starts": "asked",
    "ready": "the gym is open: {url}",
    "secrets": ["GYM_TOKEN"],
    "quiet": ['"GET /etc/hostname'],
}
MODULE = "def plan(declared, given, home):\n    return given['GYM_HOME']\n"
DOCKERFILE = """
FROM IMAGE
COPY gym.json /etc/torchstrata/services.d/
COPY gym.py /usr/local/lib/torchstrata/services/
WORKDIR /
CMD []
"""


@pytest.fixture
def gym(derive, start, tmp_path):
    """Derive an image that adds the service, with those fields changed; start it, by default for that service alone."""

    def run(*, environment=None, **fields):
        (tmp_path / "gym.json").write_text(json.dumps(GYM | fields))
        (tmp_path / "gym.py").write_text(MODULE)
        return start(image=derive(DOCKERFILE, context=tmp_path), environment={"TORCHSTRATA_SERVICES": "gym"} | (environment or {}))

    return run


def test_added_service(gym):
    """It is ready, healthy, and listed by the doctor; its secret is in its own file alone."""
    box = gym(environment={"GYM_TOKEN": "open-sesame", "GYM_PORT": "8001"})
    log = box.wait_for("the gym is open: http://127.0.0.1:8001")
    assert ("gym | token ***" in log, "sesame" in log, "GET /etc/hostname" in log) == (True, False, False)
    probe = box.run("torchstrata-health")
    assert (probe.status, probe.out) == (0, "gym: up\n")
    assert "answers on port 8001" in box.run("torchstrata-doctor", "--quick").out
    shown = box.run("sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'", env={"GYM_TOKEN": ""})
    assert "sesame" not in shown.out


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"port": None}, "gym does not start: /etc/torchstrata/services.d/gym.json: gym has no port"),
        ({"command": ["/opt/gym/serve"]}, "gym does not start: /opt/gym/serve is no program of this image"),
        ({"module": "gym"}, "gym does not start: its module gym.py fails in plan: KeyError: 'GYM_HOME'"),
        ({"module": "nowhere"}, "gym does not start: its module nowhere.py fails in check: ModuleNotFoundError"),
    ],
)
def test_added_service_that_is_wrong(gym, fields, said):
    """It ends a container that has no other one to run with status 78, and no traceback."""
    box = gym(**fields)
    assert box.ended() == 78
    assert said in box.log
    assert "no service can run" in box.log
    assert "Traceback" not in box.log
