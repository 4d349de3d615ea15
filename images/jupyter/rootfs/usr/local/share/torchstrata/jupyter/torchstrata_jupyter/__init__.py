"""Additions to Jupyter: examples beside the workspace, PDF without TeX, no server that lets everybody in by accident."""

import os
from typing import Any

LOGGED = 200
"""Characters of a path in the log."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Name this package as an extension of the server; /etc/jupyter/jupyter_server_config.d switches it on."""
    return [{"module": "torchstrata_jupyter"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Look at the server before it listens, when its settings are final."""
    from torchstrata_jupyter import access  # noqa: PLC0415  # every Jupyter program imports this package, few are servers

    access.refuse_open_server(app)
    _shorten_log(app.web_app.settings)
    _limit_exports()
    os.environ.setdefault("TENSORBOARD_PROXY_URL", f"{app.base_url}proxy/%PORT%/")  # for %tensorboard in kernels: its own port is not published


def _shorten_log(settings: Any) -> None:
    """Keep strangers from filling the log with long paths."""
    log = settings["log_function"]

    def shortened(handler: Any) -> None:
        handler.request.uri = handler.request.uri[:LOGGED]
        if "Referer" in handler.request.headers:
            handler.request.headers["Referer"] = handler.request.headers["Referer"][:LOGGED]
        log(handler)

    settings["log_function"] = shortened


def _limit_exports() -> None:
    """Let the server convert notebooks in children with limits: notebooks come from others."""
    from jupyter_server.nbconvert import handlers  # noqa: PLC0415  # servers alone have it loaded

    get_exporter = handlers.get_exporter

    def limited(*given: Any, **named: Any) -> Any:
        from torchstrata_jupyter import rendering  # noqa: PLC0415  # it loads nbconvert, which few sessions use

        return rendering.limited(get_exporter(*given, **named))

    handlers.get_exporter = limited
