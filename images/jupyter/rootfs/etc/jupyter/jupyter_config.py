"""Read by every Jupyter program, before its own configuration: where this image's additions lie, and what works here.

Sockets, keys and cookies of servers lie in the container's state (container/state.py), which ``docker commit`` does not take.
"""

import contextlib
import importlib.util
import os
import shutil
import sys

if "/usr/local/share/torchstrata/jupyter" not in sys.path:
    sys.path.insert(0, "/usr/local/share/torchstrata/jupyter")  # its PDF before nbconvert's, which needs TeX

if "JUPYTER_RUNTIME_DIR" not in os.environ:
    sys.path.append("/usr/local/lib/torchstrata")
    from container import state

    sys.path.remove("/usr/local/lib/torchstrata")
    with contextlib.suppress(OSError):  # nowhere to write: Jupyter's own choice, in the home, is left
        os.environ["JUPYTER_RUNTIME_DIR"] = str(state.join() / "jupyter")

c = get_config()  # type: ignore[name-defined]  # noqa: F821  # Jupyter's
for exporter in ("ASCIIDocExporter", "LatexExporter", "RSTExporter"):
    c[exporter].enabled = shutil.which("pandoc") is not None
c.WebPDFExporter.enabled = importlib.util.find_spec("playwright") is not None
for exporter in ("QtPDFExporter", "QtPNGExporter"):
    c[exporter].enabled = importlib.util.find_spec("PyQt5") is not None
