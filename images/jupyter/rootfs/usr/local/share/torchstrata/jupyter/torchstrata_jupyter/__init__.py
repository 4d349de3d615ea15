"""Additions to Jupyter: examples beside the workspace, PDF without TeX, no server without protection by accident."""

import os
from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Name this package as an extension of the server; /etc/jupyter/jupyter_server_config.d switches it on."""
    return [{"module": "torchstrata_jupyter"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Look at the server before it listens, when its settings are final."""
    from torchstrata_jupyter import access  # noqa: PLC0415  # every Jupyter program imports this package, few are servers

    access.refuse_open_server(app)
    os.environ.setdefault("TENSORBOARD_PROXY_URL", f"{app.base_url}proxy/%PORT%/")  # for %tensorboard in kernels: its own port is not published
