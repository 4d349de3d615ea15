"""Read by every Jupyter program, before its own configuration: where this image's additions lie."""

import sys

if "/usr/local/share/torchstrata/jupyter" not in sys.path:
    sys.path.append("/usr/local/share/torchstrata/jupyter")
