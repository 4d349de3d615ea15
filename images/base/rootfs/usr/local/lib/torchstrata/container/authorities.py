"""``TORCHSTRATA_CA_FILE``: a company's certificate authority, trusted beside the public ones, without root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from container import notices, settings, state

SYSTEM: Final = Path("/etc/ssl/certs/ca-certificates.crt")
LASTING: Final = Path("/var/lib/torchstrata/ca-bundle.crt")
"""The bundle that the image's variables name, for ``docker exec`` and whatever else no start brings up: a link to :data:`SYSTEM`, which
a start replaces by a file. Its directory is the user's, and root's shells do not look there."""

BUNDLE: Final = "ca-bundle.crt"
APT: Final = "apt.conf"
BEGIN: Final = "-----BEGIN CERTIFICATE-----"

VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
"""OpenSSL, Python, uv and httpx; requests; curl; pip; git; Node.js. An image sets them to :data:`LASTING` (``torchstrata/image/runtime.py``)."""


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Write the bundle and return the variables that make programs use it; those that somebody has given stay."""
    named = given.get("TORCHSTRATA_CA_FILE", "")
    own = _read(named) if named else None
    if own is None:
        _replace(None)
        return {}
    public = SYSTEM.read_text(encoding="utf-8") if SYSTEM.exists() else ""
    try:
        bundle = _write(f"{public.rstrip()}\n{own}")
        apt = state.write(APT, f'Acquire::https::CaInfo "{bundle}";\n', mode=0o644)
    except OSError as error:
        notices.warn(f"TORCHSTRATA_CA_FILE={named}: the authorities cannot be written ({error.strerror})", "add --tmpfs /tmp:exec")
        return {}
    variables = dict.fromkeys(VARIABLES, str(bundle)) | {"APT_CONFIG": str(apt)}
    return {name: value for name, value in variables.items() if given.get(name, str(LASTING)) == str(LASTING)}


def _write(content: str) -> Path:
    """Write the bundle where ``docker exec`` finds it, too, or, where this user may not, to this container's state; return its path.

    :raises OSError: it can be written nowhere.
    """
    state.join()
    return LASTING if _replace(content) else state.write(BUNDLE, content, mode=0o644)


def _replace(content: str | None) -> bool:
    """Make :data:`LASTING` a file at once, or without content the link that it was; return whether it is so."""
    if content is None and LASTING.is_symlink() and LASTING.readlink() == SYSTEM:
        return True
    new = LASTING.with_name(f".{os.getpid()}")
    try:
        if content is None:
            new.symlink_to(SYSTEM)
        else:
            new.write_text(content, encoding="utf-8")
            new.chmod(0o644)
        new.replace(LASTING)
    except OSError:  # read-only, or another group's: neither is wrong
        return False
    return True


def _read(named: str) -> str | None:
    """Return the certificates of a file; None where it has none, with a line that says why."""
    try:
        text = settings.read_file(Path(named), settings.CERTIFICATES_FILE)
    except (OSError, ValueError) as error:
        notices.warn(f"TORCHSTRATA_CA_FILE={named} cannot be read: {settings.unread(error)}", "mount the file and let it be readable")
        return None
    if BEGIN not in text:
        notices.warn(f"TORCHSTRATA_CA_FILE={named} has no certificate in PEM form", f"it must contain '{BEGIN}'")
        return None
    return text
