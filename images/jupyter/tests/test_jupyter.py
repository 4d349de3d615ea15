"""JupyterLab: who gets in, where it answers, what it must not give away."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import PROBED, READY, mounted, status, stop

TOKEN = "a-token-of-mine"


@pytest.fixture(scope="module")
def box(start_shared):
    """A container with a token of ours."""
    box = start_shared(environment={"JUPYTER_TOKEN": TOKEN}, **PROBED)
    box.wait_for(READY)
    return box


def test_token_is_needed(box, client):
    """Without the token nothing but the version is shown."""
    url = f"http://{box.address}:8888"
    assert [status(client, f"{url}{path}") for path in ("/api", "/api/kernels", "/api/contents")] == ["200", "403", "403"]


def test_token_opens(box, client):
    """The given token opens the server."""
    assert status(client, f"http://{box.address}:8888/api/kernels", "-H", f"Authorization: token {TOKEN}") == "200"


def test_url_is_printed_once(box):
    """The full URL with the token is in the log exactly once, also after it was used."""
    assert f"JupyterLab is ready: http://127.0.0.1:8888/lab?token={TOKEN}\n" in box.log
    assert box.log.count(TOKEN) == 1


def test_random_token(start, client):
    """Without a given token a random one of 192 bits is printed, and opens the server; two containers differ."""
    boxes = [start(), start()]
    for box in boxes:
        box.wait_for(READY)
        assert status(client, f"http://{box.address}:8888/api/kernels?token={box.token}") == "200"
    assert len({box.token for box in boxes}) == 2
    assert len(boxes[0].token) == 48


def test_token_from_file(start, client, tmp_path):
    """The token can come from a mounted file; reserved characters are quoted in the URL."""
    (tmp_path / "token").write_text("a b&c=d#é\n")
    box = start(environment={"JUPYTER_TOKEN_FILE": "/run/secrets/token"}, volumes=mounted(tmp_path / "token", "/run/secrets/token", "ro"))
    box.wait_for(READY)
    assert box.token == "a%20b%26c%3Dd%23%C3%A9"
    assert status(client, f"http://{box.address}:8888/api/kernels?token={box.token}") == "200"


def test_password(start, client):
    """With a password hash there is no token, and the password opens the server."""
    hashed = client.run("/opt/venv/bin/python", "-c", "from jupyter_server.auth import passwd; print(passwd('open sesame'))").out.strip()
    box = start(environment={"JUPYTER_PASSWORD_HASH": hashed})
    log = box.wait_for(READY)
    assert "/lab (with your password)" in log
    assert hashed not in log
    url = f"http://{box.address}:8888"
    assert status(client, f"{url}/api/kernels") == "403"
    login = "rm -f /tmp/jar; curl -s -c /tmp/jar -o /dev/null URL/login; x=$(awk '/_xsrf/{print $7}' /tmp/jar); "
    login += "curl -s -b /tmp/jar -c /tmp/jar -o /dev/null -d password='open sesame' -d _xsrf=$x URL/login; curl -s -b /tmp/jar -o /dev/null -w '%{http_code}' URL/api/kernels"
    assert client.run("bash", "-c", login.replace("URL", url)).out == "200"


def test_token_file_that_cannot_be_read(start, tmp_path, give):
    """Where the file of the token cannot be read Jupyter does not start: a random token would lock out whoever knows the right one."""
    (tmp_path / "forbidden").write_text("x")
    (tmp_path / "forbidden").chmod(0o600)
    tmp_path.chmod(0o755)
    give(tmp_path / "forbidden", "0:0")
    box = start(environment={"JUPYTER_TOKEN_FILE": "/secrets/forbidden"}, volumes=mounted(tmp_path, "/secrets", "ro"))
    assert box.ended() == 78
    assert "jupyter does not start: JUPYTER_TOKEN_FILE=/secrets/forbidden cannot be read: Permission denied" in box.errors


def test_port_and_base_url(start, client):
    """The port can be chosen, and the base URL, to which slashes are added; probe and printed URL follow."""
    box = start(environment={"JUPYTER_BASE_URL": "anna", "JUPYTER_PORT": "9999"})
    assert "http://127.0.0.1:9999/anna/lab?token=" in box.wait_for(READY)
    assert [status(client, f"http://{box.address}:9999{path}") for path in ("/anna/api", "/api")] == [
        "200",
        "302",
    ]  # to the login, as everything that is not there
    assert box.run("torchstrata-health").status == 0


def test_tls(start, client, tmp_path):
    """With a certificate the server speaks TLS only; probe and URL follow."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab -keyout /tmp/key.pem -out /tmp/cert.pem 2>/dev/null"
    make = f"command -v openssl >/dev/null && {make}; cat /tmp/cert.pem /tmp/key.pem"
    both = client.run("sh", "-c", make).out
    (tmp_path / "both.pem").write_text(both)
    box = start(environment={"JUPYTER_CERT_FILE": "/certs/both.pem"}, volumes=mounted(tmp_path, "/certs", "ro"))
    tmp_path.chmod(0o755)
    assert "https://127.0.0.1:8888/lab?token=" in box.wait_for(READY)
    assert status(client, f"https://{box.address}:8888/api") == "200"
    assert status(client, f"http://{box.address}:8888/api") != "200"
    assert box.run("torchstrata-health").status == 0


def test_nothing_can_run(start):
    """Where no service can run the container ends, and says so."""
    box = start(environment={"JUPYTER_CERT_FILE": "/missing.pem"})
    assert box.ended() == 78
    assert "no service can run: the container ends here" in box.errors


def test_origin_is_checked(box, client):
    """A websocket from another site's page is refused, although the browser sends the cookie of a person who is logged in."""
    kernel = client.run("curl", "-s", "-X", "POST", "-H", f"Authorization: token {TOKEN}", f"http://{box.address}:8888/api/kernels").out
    path = f"/api/kernels/{kernel.split(chr(34))[3]}/channels"
    upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: YWJjZGVmZ2hpamtsbW5vcA=="]
    assert status(client, f"http://{box.address}:8888/lab?token={TOKEN}", "-c", "/tmp/cookies") == "200"
    cookie = ["-b", "/tmp/cookies"]
    url = f"http://{box.address}:8888{path}"
    foreign = status(client, url, *upgrade, *cookie, "-H", "Origin: http://evil.example", "-m", "30")
    own = status(client, url, *upgrade, *cookie, "-H", f"Origin: http://{box.address}:8888", "-m", "10")
    assert (foreign, own) == ("403", "101")


def test_kernels_start_in_the_workspace(box, notebook):
    """A kernel's working directory is the workspace."""
    assert notebook(box, TOKEN, "kernel", "import os; print(os.getcwd())").out.strip() == "/workspace"


def test_runtime_files_are_not_in_the_workspace(start, notebook, workspace):
    """A kernel leaves nothing in the workspace."""
    box = start(environment={"JUPYTER_TOKEN": TOKEN}, user="1234:0", volumes=mounted(workspace))
    box.wait_for(READY)
    notebook(box, TOKEN, "kernel", "print(1)")
    assert {path.name for path in workspace.iterdir()} <= {"checkpoints", "logs", "plots", "data"}


def test_tensorboard(box, client):
    """TensorBoard is reached through Jupyter's port, with the token only."""
    url = f"http://{box.address}:8888/tensorboard/"
    assert status(client, url) in {"302", "403"}
    assert status(client, url, "-H", f"Authorization: token {TOKEN}", "-L", "-m", "60") == "200"


SHOW = """
import os
from IPython.utils.capture import capture_output
shell = get_ipython()
os.makedirs("/tmp/logs", exist_ok=True)
shell.run_line_magic("load_ext", "tensorboard")
with capture_output() as shown:
    shell.run_line_magic("tensorboard", "--logdir /tmp/logs --port 6111")
print("".join(output.data.get("text/html", "") for output in shown.outputs))
"""


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="plain", marks=pytest.mark.costly),
        pytest.param({"JUPYTER_BASE_URL": "/team/anna"}, id="base URL"),
        pytest.param({"NB_PREFIX": "/notebook/team/anna"}, id="Kubeflow", marks=pytest.mark.costly),
    ],
)
def test_tensorboard_in_a_notebook(start, client, notebook, given):
    """``%tensorboard`` shows a frame that leads through Jupyter's port, below its base URL, to what it has started."""
    box = start(environment={"JUPYTER_TOKEN": TOKEN} | given)
    box.wait_for(READY)
    base = next(iter(given.values()), "")
    frame = notebook(box, TOKEN, "kernel", SHOW, base=f"{base}/").out
    assert f'"{base}/proxy/6111/"' in frame
    page = client.run("curl", "-sL", "-m", "60", "-H", f"Authorization: token {TOKEN}", f"http://{box.address}:8888{base}/proxy/6111/").out
    assert "<title>TensorBoard</title>" in page


@pytest.mark.parametrize("path", ["/lab", "/tree"])
def test_interfaces(box, client, path):
    """JupyterLab and Notebook answer, both on the one server."""
    assert status(client, f"http://{box.address}:8888{path}", "-H", f"Authorization: token {TOKEN}") == "200"


def test_launcher(box, client):
    """The launcher offers TensorBoard and the examples."""
    shown = client.run("curl", "-s", "-H", f"Authorization: token {TOKEN}", f"http://{box.address}:8888/server-proxy/servers-info").out
    for title in ("TensorBoard", "Defect detection", "ResNet-50 inference", "Training on several GPUs"):
        assert title in shown


@pytest.mark.parametrize("name", ["defect_detection.ipynb", "resnet50_inference.py", "ddp_train.py"])
def test_examples_are_read_only(box, client, name):
    """Each example opens, and cannot be saved over."""
    url = f"http://{box.address}:8888/api/contents/examples/{name}"
    shown = client.run("curl", "-s", "-H", f"Authorization: token {TOKEN}", f"{url}?content=0").out
    assert '"writable": false' in shown or '"writable":false' in shown
    body = '{"type": "file", "format": "text", "content": "x"}'
    assert status(client, f"{url}/checkpoints", "-H", f"Authorization: token {TOKEN}") == "200"
    assert status(client, url, "-X", "PUT", "-H", f"Authorization: token {TOKEN}", "-d", body) == "403"


def test_folder_with_content_can_be_deleted(box, client):
    """A folder goes with what is in it, after Lab has asked: there is no trash to move it to."""
    assert box.run("mkdir", "-p", "/workspace/old/inner").status == 0
    assert status(client, f"http://{box.address}:8888/api/contents/old", "-X", "DELETE", "-H", f"Authorization: token {TOKEN}") == "204"
    assert box.run("test", "-e", "/workspace/old").status == 1


def test_health_of_the_engine(box):
    """The engine's own state of health follows the probe."""
    assert box.is_healthy()


def test_health_follows_the_service(start):
    """What the engine runs to know the state of health says no while Jupyter does not answer, and yes again when it does."""
    box = start(**PROBED)
    box.wait_for(READY)
    kind, *command = box.container.attrs["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert box.run("pkill", "-STOP", "-f", "jupyter-lab").status == 0
    assert box.run(*command).status == 1, "a service that does not answer counts as healthy"
    assert box.run("pkill", "-CONT", "-f", "jupyter-lab").status == 0
    box.until(lambda: box.run(*command).status == 0, "health")


@pytest.mark.costly
def test_health_while_hooks_run(start):
    """While a hook of the start runs nothing is healthy: services that will run do not answer yet."""
    box = start("sleep", "infinity")
    hook = b"#!/bin/sh\nwhile test ! -e /tmp/go; do sleep 0.1; done\n"
    box.put("/etc/torchstrata/hook", hook, mode=0o755)
    assert box.run("sh", "-c", "mkdir -p ~/.config/torchstrata/start.d && cp /etc/torchstrata/hook ~/.config/torchstrata/start.d/10").status == 0
    box.container.exec_run(["sh", "-c", "echo begun >/tmp/begun; exec torchstrata-entrypoint >/tmp/log 2>&1"], detach=True)
    box.until(lambda: box.run("pgrep", "-f", "start.d/10").status == 0, "the hook")
    probe = box.run("torchstrata-health")
    assert (probe.status, probe.out.splitlines()[0]) == (1, "jupyter: starting")
    assert box.run("touch", "/tmp/go").status == 0
    box.until(lambda: box.run("torchstrata-health").out == "jupyter: up\n", "health")


@pytest.mark.costly
@pytest.mark.parametrize("init", [False, True])
def test_health_among_the_processes_of_others(start, init):
    """In a pod whose containers see each other's processes, the first of which is another user's, the probe finds the services of its own."""
    other = start("sleep", "infinity", user="65535")
    box = start(environment={"JUPYTER_TOKEN": TOKEN}, pid_mode=f"container:{other.container.id}", init=init)
    box.wait_for(READY)
    assert [box.run("torchstrata-health", user=user).out for user in ("", "0", "4242")] == ["jupyter: up\n"] * 3


NO_CLONE3 = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}
"""A seccomp profile as of Docker before 20.10.10: what it does not know is forbidden, and not missing."""


def test_engine_that_lets_no_thread_start(start):
    """Where no thread can be started a line says why and what cures it, and no traceback; the container is not healthy, and can be stopped."""
    box = start(security_opt=[f"seccomp={json.dumps(NO_CLONE3)}"])
    box.wait_for("no thread can be started: the engine's seccomp profile knows no clone3, or the limit of processes is reached - Docker 20.10.10 or newer")
    box.wait_for("jupyter was ended by signal 9; it starts again in 1 s")
    assert [box.run("torchstrata-health", user=user).status for user in ("", "0")] == [1, 137]
    assert (stop(box), "Traceback" in box.log) == (0, False)
