"""Mirrors and proxies are honoured: what the variables name is asked, and nothing else."""

from __future__ import annotations

import pytest

PROXY = """
import http.server
class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, flush=True)
        body = b"<html></html>"
        self.send_response(200); self.send_header("Content-Type", "text/html"); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 3128), Proxy).serve_forever()
"""
ASKS = {
    "curl": ("curl -sSf http://{name}.invalid/", "http://{name}.invalid/"),
    "git": ("git ls-remote http://{name}.invalid/repo.git", "http://{name}.invalid/repo.git/info/refs?service=git-upload-pack"),
    "pip": (
        "PIP_INDEX_URL=http://{name}.invalid/simple pip download --retries 0 --no-deps --trusted-host {name}.invalid probe",
        "http://{name}.invalid/simple/probe/",
    ),
    "uv": ("UV_DEFAULT_INDEX=http://{name}.invalid/simple uv pip install probe", "http://{name}.invalid/simple/probe/"),
    "requests": ("python -c \"from pip._vendor import requests; requests.get('http://{name}.invalid/')\"", "http://{name}.invalid/"),
    "apt": (
        (
            "mkdir -p /tmp/apt/lists/partial /tmp/apt/archives/partial && echo 'deb [trusted=yes] http://{name}.invalid/ stable main' >/tmp/apt/list;"
            " apt-get -o Dir::State=/tmp/apt -o Dir::Cache=/tmp/apt -o Dir::Etc::SourceList=/tmp/apt/list -o Dir::Etc::SourceParts=- update"
        ),
        "http://{name}.invalid/dists/stable/InRelease",
    ),
}


@pytest.fixture(scope="module")
def proxy(start_shared):
    """A proxy that answers every request and prints what it was asked for."""
    box = start_shared("/usr/bin/python3", "-c", PROXY)
    box.until(lambda: box.run("curl", "-s", "http://127.0.0.1:3128/ready").status == 0, "the proxy")
    return box


@pytest.fixture(scope="module")
def behind(start_shared, proxy):
    """A container behind the proxy."""
    return start_shared("sleep", "infinity", environment={"http_proxy": f"http://{proxy.address}:3128", "no_proxy": "localhost"})


@pytest.mark.parametrize("program", ASKS)
def test_proxy_and_index(behind, proxy, program):
    """Each program asks its index through the proxy that the variables name."""
    command, asked = (text.format(name=program) for text in ASKS[program])
    done = behind.run("timeout", "90", "sh", "-c", command)
    assert f"asked {asked}\n" in proxy.log, done.out + done.err
