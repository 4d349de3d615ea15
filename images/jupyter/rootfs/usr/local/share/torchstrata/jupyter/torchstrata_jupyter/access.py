"""Who may use a Jupyter server of this image, whoever starts it: the container's start, or a person with a command of their own."""

import functools
import ipaddress
import os
import sys
from typing import Any, Final

RUNTIME: Final = "/usr/local/lib/torchstrata"
WRONG_SETTING: Final = 78
"""Exit status, EX_CONFIG of sysexits.h."""

sys.path.insert(0, RUNTIME)  # first: packages of the virtual environment may have the same names
from container import declarations, environment, secret_files, state  # noqa: E402
from container import settings as gate  # noqa: E402
from services import jupyter  # noqa: E402

sys.path.remove(RUNTIME)


@functools.cache
def settings() -> dict[str, Any]:
    """Return what the start has written for its server; for one that a person starts, what the environment asks for.

    In the second case secrets leave this process's environment, so that no kernel or terminal inherits them.

    :return: what ``services.jupyter.asked`` returns.
    :raises SystemExit: with status 78 and one line: a setting is wrong.
    """
    written = state.read(jupyter.PRIVATE)
    if written:
        return written
    try:
        asked = jupyter.asked(os.environ)
        secrets = environment.secret(os.environ, declarations.secrets(declarations.read().services))
    except (gate.SettingError, secret_files.SecretFileError) as error:
        sys.stderr.write(f"torchstrata: {error}\n")
        raise SystemExit(WRONG_SETTING) from error
    for name in secrets:
        del os.environ[name]
    return asked


def refuse_open_server(app: Any) -> None:
    """End a server that would let in everybody who can reach it, unless ``TORCHSTRATA_JUPYTER_OPEN`` asks for that.

    :raises SystemExit: with status 78 and one line: nothing protects it.
    """
    if app.identity_provider.auth_enabled or app.sock or is_loopback(app.ip):
        return
    if gate.flag("TORCHSTRATA_JUPYTER_OPEN", os.environ.get("TORCHSTRATA_JUPYTER_OPEN", "")):
        app.log.warning("torchstrata: anybody who reaches port %s can run code here: TORCHSTRATA_JUPYTER_OPEN is set", app.port)
        return
    what = "Jupyter would let everybody in: neither token nor password protects it"
    sys.stderr.write(f"torchstrata: {what} - set JUPYTER_TOKEN, use --ip=127.0.0.1, or set TORCHSTRATA_JUPYTER_OPEN=1 if that is meant\n")
    raise SystemExit(WRONG_SETTING)


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches a server that listens on ``address``."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
