"""How much a reader of a catalogue downloads, and how long it takes until the picker answers: 3 images, and 500.

``python bench/catalogue.py`` needs the packages of requirements-dev.txt and Debian's chromium. Pages come from a server on loopback that
compresses nothing; a phone is Chromium with its processor four times as slow. The best of five loads counts, since other work only adds.
"""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, sync_playwright

from bench import machine
from tests import showcase
from torchstrata.catalogue import publication
from torchstrata.catalogue.site import Site
from torchstrata.matrix.matrix import ROOT

RESULT = ROOT / "bench/results/catalogue.json"
LOADS = 5
READY = "() => document.querySelector('#result') && !document.querySelector('#result').hidden"
TIMES = "() => { const [one] = performance.getEntriesByType('navigation'); return one.domContentLoadedEventEnd - one.startTime; }"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(directory: Path) -> http.server.ThreadingHTTPServer:
    """Serve a directory on loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def load(browser: Browser, address: str, slowdown: int) -> tuple[float, int]:
    """Load the first page anew; return the milliseconds until the picker answers, and the bytes that came."""
    page = browser.new_page()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    sizes: list[int] = []
    page.on("response", lambda response: sizes.append(len(response.body())))
    page.goto(f"{address}/index.html")
    page.wait_for_function(READY)
    page.wait_for_load_state("networkidle")
    found = page.evaluate(TIMES)
    page.context.close()
    return found, sum(sizes)


def measure(browser: Browser, count: int) -> dict[str, Any]:
    """Write a catalogue of so many images, and look at it."""
    with tempfile.TemporaryDirectory() as work:
        site = Path(work) / "site"
        whole = publication.write(Site(showcase.catalogue(count)).files(), site)
        server = serve(site)
        address = f"http://127.0.0.1:{server.server_port}"
        desk, phone = ([load(browser, address, slowdown) for _ in range(LOADS)] for slowdown in (1, 4))
        server.shutdown()
        first = {name: (site / name).stat().st_size for name in ("index.html", "assets/style.css", "assets/catalogue.js")}
    best = {"interactive_ms": round(min(time for time, _ in desk)), "interactive_ms_phone": round(min(time for time, _ in phone))}
    return {"first_page_bytes": sum(first.values()), "with_data_of_the_answer_bytes": desk[0][1], **best, "site_bytes": whole}


def main() -> None:
    """Measure, and keep what was measured."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        found = {str(count): measure(browser, count) for count in (3, 500)}
        version = browser.version
    result = {**machine.about(), "chromium": version, "load": machine.load(), "images": found}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
