"""One service works where the other cannot."""

from __future__ import annotations


def test_taken_port(start, public_key, engine):
    """A taken port is named in one line; SSH works; the probe names Jupyter as down."""
    other = start("/usr/bin/python3", "-m", "http.server", "8888")
    other.until(lambda: other.run("curl", "-s", "http://127.0.0.1:8888").status == 0, "the other server")
    box = start(environment={"SSH_PUBLIC_KEY": public_key}, network_mode=f"container:{other.container.id}")
    log = box.wait_for("SSH is ready")
    assert log.count("jupyter does not start: port 8888 is taken - set JUPYTER_PORT") == 1
    probe = box.run("torchstrata-health")
    assert (probe.status, probe.out.splitlines()) == (1, ["jupyter: port 8888 is taken", "ssh: up"])


def test_unreadable_certificate(start, public_key):
    """Without its certificate Jupyter does not fall back to plain text; SSH works."""
    box = start(environment={"JUPYTER_CERT_FILE": "/missing.pem", "SSH_PUBLIC_KEY": public_key})
    assert "jupyter does not start: its certificate file /missing.pem cannot be read" in box.wait_for("SSH is ready")
