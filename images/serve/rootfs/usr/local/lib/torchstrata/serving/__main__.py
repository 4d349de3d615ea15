"""Serve what the variables name: ``POST /predict`` with a picture, ``GET /`` for health, ``GET /metrics`` for Prometheus.

The port opens once every stage has a process that is ready. ``--port`` and ``--path`` are Mosec's, and so are variables ``MOSEC_...``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
sys.path.append(str(Path.cwd()))  # where SERVE_MODEL and SERVE_WORKER may name modules

from serving import settings  # noqa: E402  # found by the lines above

ROUTE = "/predict"
DEFAULTS = {"MOSEC_TIMEOUT": "30000", "MOSEC_LOG_LEVEL": "warning"}
"""Milliseconds for an answer: without a GPU a queue of batches takes longer than Mosec's three seconds. Its log would have a line for each event."""


def main() -> int:
    """Serve until SIGTERM; return the exit status."""
    try:
        wanted = settings.read(os.environ)
        settings.check_files(wanted)
    except settings.WantedError as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_CONFIG
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mosec import Server  # noqa: PLC0415  # reads variables when it is loaded

    server = Server()
    if wanted.worker:
        from serving.model import imported  # noqa: PLC0415  # it loads torch

        server.append_worker(imported(wanted.worker), num=wanted.workers, max_batch_size=wanted.batch, max_wait_time=wanted.wait, route=ROUTE)
    else:
        from serving.stages import Classifier, Reader  # noqa: PLC0415

        server.append_worker(Reader, num=wanted.decoders, route=ROUTE)
        server.append_worker(Classifier, num=wanted.workers, max_batch_size=wanted.batch, max_wait_time=wanted.wait, route=ROUTE)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
