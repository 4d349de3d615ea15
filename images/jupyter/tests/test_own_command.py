"""A Jupyter server that somebody starts with a command of their own: it is as protected as the container's own."""

from __future__ import annotations

import pytest

from tests.images.boxes import mounted, status

TOKEN = "a-token-of-mine"
OPEN = "Jupyter would let everybody in: neither token nor password protects it"
BY_SHELL = ("bash", "-c", "jupyter lab --ip=0.0.0.0 --no-browser --ServerApp.token=$JUPYTER_TOKEN")
PLAIN = ("jupyter", "lab", "--ip=0.0.0.0")


def answering(box, client, url):
    """Wait until the server answers; return its address."""
    box.until(lambda: status(client, f"{url}/api") == "200", "the server")
    return url


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(BY_SHELL, id="shell"),
        pytest.param(("jupyter", "server", "--ip=0.0.0.0"), id="server", marks=pytest.mark.costly),
        pytest.param(("jupyter", "notebook", "--ip=0.0.0.0"), id="notebook", marks=pytest.mark.costly),
    ],
)
def test_given_token(start, client, command):
    """The given token is needed, and opens."""
    box = start(*command, environment={"JUPYTER_TOKEN": TOKEN})
    url = answering(box, client, f"http://{box.address}:8888")
    assert status(client, f"{url}/api/contents") == "403"
    assert status(client, f"{url}/api/contents?token={TOKEN}") == "200"


def test_token_of_a_file(start, client, tmp_path):
    """The same with a file; without its last line end."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    box = start(*PLAIN, environment={"JUPYTER_TOKEN_FILE": "/run/secrets/token"}, volumes=mounted(tmp_path / "token", "/run/secrets/token", "ro"))
    url = answering(box, client, f"http://{box.address}:8888")
    assert [status(client, f"{url}/api/contents{query}") for query in ("", f"?token={TOKEN}")] == ["403", "200"]


def test_kernels_do_not_see_it(start, client, notebook):
    """Kernels of that server see the token as little as those of the container's own."""
    box = start(*PLAIN, environment={"JUPYTER_TOKEN": TOKEN, "MY_KEY": "hidden", "TORCHSTRATA_SECRETS": "MY_*"})
    answering(box, client, f"http://{box.address}:8888")
    shown = notebook(box, TOKEN, "kernel", "import os; print(sorted({'JUPYTER_TOKEN', 'MY_KEY'} & set(os.environ)), 'HOME' in os.environ)")
    assert shown.out == "[] True\n"


def test_base_url_port_and_certificate(start, client, tmp_path):
    """Base URL, port and certificate are those that were given."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab -keyout /tmp/k.pem -out /tmp/c.pem 2>/dev/null; cat /tmp/c.pem /tmp/k.pem"
    (tmp_path / "both.pem").write_text(client.run("sh", "-c", make).out)
    tmp_path.chmod(0o755)
    given = {"JUPYTER_TOKEN": TOKEN, "JUPYTER_BASE_URL": "anna", "JUPYTER_PORT": "9999", "JUPYTER_CERT_FILE": "/certs/both.pem"}
    box = start(*PLAIN, environment=given, volumes=mounted(tmp_path, "/certs", "ro"))
    url = answering(box, client, f"https://{box.address}:9999/anna")
    assert [status(client, f"{url}/api/contents{query}") for query in ("", f"?token={TOKEN}")] == ["403", "200"]


def test_password(start, client):
    """With the hash of a password there is no token, and nobody enters without the password."""
    hashed = client.run("/opt/venv/bin/python", "-c", "from jupyter_server.auth import passwd; print(passwd('open sesame'))").out.strip()
    box = start(*PLAIN, environment={"JUPYTER_PASSWORD_HASH": hashed})
    url = answering(box, client, f"http://{box.address}:8888")
    assert [status(client, f"{url}/api/contents{query}") for query in ("", "?token=", f"?token={hashed}")] == ["403", "403", "403"]
    assert "lab?token=" not in box.log


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(BY_SHELL, id="unset"),
        pytest.param((*PLAIN, "--IdentityProvider.token="), id="identity"),
        pytest.param((*PLAIN, "--ServerApp.token=", "--ServerApp.password="), id="server", marks=pytest.mark.costly),
        pytest.param((*PLAIN, "--PasswordIdentityProvider.token="), id="password", marks=pytest.mark.costly),
    ],
)
def test_open_server(start, command):
    """A server that would let everybody in ends, and one line says what cures it."""
    box = start(*command)
    assert box.ended() == 78
    (line,) = [line for line in box.log.splitlines() if OPEN in line]
    assert "set JUPYTER_TOKEN" in line


@pytest.mark.costly
def test_open_server_that_is_meant(start, client):
    """Asked for by name it runs."""
    box = start(*PLAIN, "--IdentityProvider.token=", environment={"TORCHSTRATA_JUPYTER_OPEN": "1"})
    url = answering(box, client, f"http://{box.address}:8888")
    assert status(client, f"{url}/api/contents") == "200"


@pytest.mark.costly
def test_open_server_for_itself(start, client):
    """On loopback it runs, and no neighbour reaches it."""
    box = start("jupyter", "lab", "--ip=127.0.0.1", "--IdentityProvider.token=")
    box.until(lambda: box.run("curl", "-sf", "http://127.0.0.1:8888/api").status == 0, "the server")
    assert status(client, f"http://{box.address}:8888/api") == "000"


@pytest.mark.costly
def test_random_token(start, client):
    """With nothing given it has a random token, as Jupyter has everywhere."""
    box = start(*PLAIN)
    url = answering(box, client, f"http://{box.address}:8888")
    assert [status(client, f"{url}/api/contents{query}") for query in ("", f"?token={box.token}")] == ["403", "200"]


def test_setting_that_cannot_be_used(start, tmp_path):
    """A file of the token that cannot be read ends it with one line: a random token would lock out who knows the right one."""
    box = start(*PLAIN, environment={"JUPYTER_TOKEN_FILE": "/missing"})
    assert box.ended() == 78
    assert "torchstrata: JUPYTER_TOKEN_FILE=/missing cannot be read: No such file or directory" in box.log
