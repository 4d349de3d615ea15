"""Read by every Jupyter program, before its own configuration: where this image's additions lie, and what is running.

Sockets, keys and cookies of servers lie in the container's state (container/state.py): no file of an image made by ``docker commit``.
"""

import contextlib
import os
import sys

if "/usr/local/share/torchstrata/jupyter" not in sys.path:
    sys.path.append("/usr/local/share/torchstrata/jupyter")

if "JUPYTER_RUNTIME_DIR" not in os.environ:
    sys.path.append("/usr/local/lib/torchstrata")
    from container import state

    sys.path.remove("/usr/local/lib/torchstrata")
    with contextlib.suppress(OSError):  # nowhere to write: Jupyter's own choice, in the home, is left
        os.environ["JUPYTER_RUNTIME_DIR"] = str(state.join() / "jupyter")
