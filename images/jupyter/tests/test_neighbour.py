"""What a neighbour in the network tries on Jupyter: without a token, from another site's page, under another name."""

from __future__ import annotations

import json
import shlex
from urllib.parse import urljoin

import pytest

from tests.images.boxes import READY

TOKEN = "a-token-of-mine"
UPGRADE = (
    *("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13"),
    *("-H", "Sec-WebSocket-Key: YWJjZGVmZ2hpamtsbW5vcA=="),
)
OF_TOKEN = ("-H", f"Authorization: token {TOKEN}")


@pytest.fixture(scope="module")
def box(start_shared):
    """A container with a token of ours, and a server of the user's own on a port of loopback."""
    box = start_shared(environment={"JUPYTER_TOKEN": TOKEN})
    box.wait_for(READY)
    box.container.exec_run(["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/etc/skel", "6006"], detach=True)
    box.until(lambda: box.run("curl", "-sf", "http://127.0.0.1:6006/").status == 0, "the server on loopback")
    return box


@pytest.fixture(scope="module")
def url(box):
    """Where the server answers."""
    return f"http://{box.address}:8888"


@pytest.fixture(scope="module")
def opened(client, url):
    """Kernel and terminal that their owner has started."""
    answers = {kind: json.loads(client.run("curl", "-s", "-X", "POST", *OF_TOKEN, f"{url}/api/{kind}s").out) for kind in ("kernel", "terminal")}
    return {"kernel": answers["kernel"]["id"], "terminal": answers["terminal"]["name"]}


def status(client, url, *options):
    """Return the HTTP status of a request from the client container."""
    return client.run("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-m", "60", *options, url).out


PATHS = (
    "/api/contents",
    "/api/contents/examples/ddp_train.py",
    "/api/kernels",
    "/api/kernelspecs",
    "/api/sessions",
    "/api/terminals",
    "/api/status",
    "/api/config/notebook",
    "/api/me",
    "/api/nbconvert",
    "/api/spec.yaml",
    "/api/metrics",
    "/metrics",
    "/files/a.txt",
    "/view/a.txt",
    "/nbconvert/html/a.ipynb",
    "/lab",
    "/lab/api/settings",
    "/lab/api/workspaces/default",
    "/lab/api/themes/any/index.css",
    "/lab/api/translations",
    "/lab/tree/examples",
    "/lab/extensions/any.js",
    "/lsp/status",
    "/tree",
    "/proxy/6006/",
    "/proxy/127.0.0.1:6006/",
    "/proxy/absolute/6006/",
    "/tensorboard/",
    "/server-proxy/servers-info",
    "/terminals/1",
    "/kernelspecs/python3/logo-64x64.png",
    "/../../etc/passwd",
    "/static/../../../etc/passwd",
    "/files/%2e%2e/%2e%2e/etc/passwd",
)
CREDENTIALS = {
    "none": (),
    "wrong": ("-H", "Authorization: token wrong"),
    "empty": ("-H", "Authorization: token "),
    "cookie": ("-b", "username-8888=me; _xsrf=x"),
}
REFUSED = {"302", "401", "403", "404", "405"}
BODY = ("-H", "Content-Type: application/json", "-d", '{"type": "file", "format": "text", "content": "x", "name": "python3"}')
METHODS = ("POST", "PUT", "PATCH", "DELETE")
TARGETS = ("/api/kernels", "/api/terminals", "/api/sessions", "/api/contents/a.txt", "/api/shutdown", "/login", "/proxy/6006/")


def statuses(client, url, paths, *options):
    """Return the HTTP status of requests for several paths, by path."""
    urls = [word for path in paths for word in ("-o", "/dev/null", f"{url}{path}")]
    done = client.run("curl", "-sk", "--path-as-is", "-w", "%{http_code}\n", *options, *urls)
    return dict(zip(paths, done.out.split(), strict=True))


@pytest.fixture(scope="module")
def shown(client, url):
    """What each path answers to each credential that is none."""
    return {name: statuses(client, url, PATHS, *options) for name, options in CREDENTIALS.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_nothing_without_the_token(shown, path, credential):
    """No path shows anything to who has no token, a wrong or empty one, or a cookie of their own making."""
    assert shown[credential][path] in REFUSED


@pytest.fixture(scope="module")
def done(client, url):
    """What each path answers to each method that changes something, without the token."""
    return {method: statuses(client, url, TARGETS, "-X", method, *BODY) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", TARGETS)
def test_nothing_is_done_without_the_token(done, method, path):
    """No method of no path is carried out."""
    assert done[method][path] in REFUSED


def test_nothing_was_done(box, done):
    """After all of them the workspace is as it was, and the server runs."""
    assert box.run("ls", "/workspace").out.split() == ["checkpoints", "data", "logs", "plots"]
    assert box.run("torchstrata-health").out == "jupyter: up\n"


ORIGINS = {"foreign": ("-H", "Origin: http://evil.example"), "same": ("-H", "Origin: http://localhost:8888", "-H", "Host: localhost:8888"), "none": ()}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(
    "path", ["/api/kernels/{kernel}/channels", "/terminals/websocket/{terminal}", "/api/events/subscribe", "/lsp/ws/python", "/proxy/6006/"]
)
def test_no_websocket_without_the_token(client, url, opened, path, origin):
    """No websocket opens, whatever page the browser says that it comes from."""
    assert status(client, url + path.format(**opened), *UPGRADE, *ORIGINS[origin]) in REFUSED


@pytest.mark.parametrize("path", ["/api", "/login", "/static/favicon.ico"])
def test_what_anybody_may_see(client, url, path):
    """The version, which the probe of health asks for, and the page to log in with what it shows."""
    assert status(client, f"{url}{path}") == "200"


@pytest.fixture(scope="module")
def jar(client, url):
    """The cookies of a browser that is logged in."""
    assert status(client, f"{url}/lab?token={TOKEN}", "-c", "/tmp/neighbour", "-L") == "200"
    return ("-b", "/tmp/neighbour")


FORMS = ("application/json", "text/plain", "application/x-www-form-urlencoded")


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("origin", ["foreign", "none"])
def test_page_of_another_site_cannot_write(client, url, jar, kind, origin):
    """A request with the browser's cookies alone, as a form of another site sends, starts nothing: it lacks the XSRF token."""
    kernels = client.run("curl", "-s", *OF_TOKEN, f"{url}/api/kernels").out
    assert status(client, f"{url}/api/kernels", "-X", "POST", *jar, *ORIGINS[origin], "-H", f"Content-Type: {kind}", "-d", "{}") in {"403", "404"}
    assert client.run("curl", "-s", *OF_TOKEN, f"{url}/api/kernels").out.count('"id"') == kernels.count('"id"')


def test_page_of_another_site_sends_no_cookie(client, url):
    """Browsers send the cookie of a login with no form, script or picture of another site, which proxied ports would believe."""
    head = client.run("curl", "-s", "-D", "-", "-o", "/dev/null", f"{url}/lab?token={TOKEN}").out
    (cookie,) = [line for line in head.splitlines() if line.lower().startswith("set-cookie: username-")]
    assert "SameSite=Lax" in cookie


def test_page_of_another_site_cannot_read(client, url, jar):
    """No answer lets another site's script read it: there is no CORS header, for requests and for those that ask before."""
    for method in ("GET", "OPTIONS"):
        asked = ("-X", method, *jar, "-H", "Origin: http://evil.example", "-H", "Access-Control-Request-Method: POST")
        head = client.run("curl", "-s", "-D", "-", "-o", "/dev/null", *asked, f"{url}/api/contents").out.lower()
        assert head.startswith("http/1.1")
        assert "access-control-allow-origin" not in head


def test_page_of_another_site_cannot_frame(client, url, jar):
    """No other site may show the server in a frame."""
    head = client.run("curl", "-s", "-D", "-", "-o", "/dev/null", *jar, f"{url}/lab").out.lower()
    assert "frame-ancestors 'self'" in head


def test_rebound_name(client, url, opened):
    """A page whose name was bound anew to this address (DNS rebinding) has no cookie under that name, and gets nothing."""
    host = ("-H", "Host: evil.example:8888", "-H", "Origin: http://evil.example:8888")
    assert status(client, f"{url}/api/kernels", *host) == "403"
    assert status(client, f"{url}/api/kernels/{opened['kernel']}/channels", *UPGRADE, *host) == "403"
    assert status(client, f"{url}/api/kernels", *host, "-X", "POST") == "403"


@pytest.mark.parametrize("there", ["http://evil.example", "//evil.example", "/\\evil.example", "https:evil.example", "%09//evil.example"])
def test_login_goes_nowhere_else(client, url, there):
    """The page to log in sends nobody to another site, however the address is written."""
    head = client.run("curl", "-s", "-D", "-", "-o", "/dev/null", *OF_TOKEN, "-G", "--data-urlencode", f"next={there}", f"{url}/login").out
    locations = [line.partition(": ")[2] for line in head.splitlines() if line.lower().startswith("location:")]
    assert not [place for place in locations if "\\" in place or not urljoin(f"{url}/login", place).startswith(f"{url}/")], head


def test_idle_connections(box, client, url):
    """A thousand connections that send nothing keep neither users nor the probe of health from the server."""
    script = "import socket, sys\ns = [socket.create_connection((sys.argv[1], 8888)) for _ in range(1000)]\nprint('open', flush=True)\nsys.stdin.read()\n"
    client.put("/tmp/idle.py", script.encode())
    client.container.exec_run(["sh", "-c", f"tail -f /dev/null | python3 /tmp/idle.py {shlex.quote(box.address)} >/tmp/idle.log"], detach=True)
    client.until(lambda: "open" in client.run("cat", "/tmp/idle.log").out, "the connections")
    assert status(client, f"{url}/api/kernels", *OF_TOKEN) == "200"
    assert box.run("torchstrata-health").status == 0
    client.run("pkill", "-f", "idle.py")


@pytest.mark.parametrize("path", ["/login", "/api/contents/a.txt"])
def test_large_bodies(client, url, path):
    """Nobody makes the server hold more than 64 MiB of a request."""
    script = f"""
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1].removeprefix("http://"), timeout=20)
connection.putrequest("POST", {path!r})
connection.putheader("Content-Length", str(65 << 20))
connection.endheaders(b"x")
print(connection.getresponse().status)
"""
    assert client.run("python3", "-c", script, url).out.strip() == "400"


def test_long_paths(box, client, url):
    """The log has two hundred characters of a path and of a referrer."""
    assert status(client, f"{url}/{'a' * 30000}", "-H", f"Referer: {'b' * 9000}") in REFUSED
    box.wait_for("a" * 190)
    assert "a" * 201 not in box.log
    assert "b" * 201 not in box.log
