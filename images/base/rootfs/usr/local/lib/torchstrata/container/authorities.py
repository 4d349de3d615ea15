"""``TORCHSTRATA_CA_FILE``: a company's certificate authority, trusted beside the public ones, without root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from container import notices, settings, state

SYSTEM: Final = Path("/etc/ssl/certs/ca-certificates.crt")
BUNDLE: Final = "ca-bundle.crt"
APT: Final = "apt.conf"
BEGIN: Final = "-----BEGIN CERTIFICATE-----"

VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")
"""OpenSSL, Python and uv; requests; curl; pip; git."""


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Write the bundle and return the variables that make programs use it; those given already stay."""
    named = given.get("TORCHSTRATA_CA_FILE", "")
    own = _read(named) if named else None
    if own is None:
        return {}
    public = SYSTEM.read_text(encoding="utf-8") if SYSTEM.exists() else ""
    try:
        state.join()
    except OSError as error:
        notices.warn(f"TORCHSTRATA_CA_FILE={named}: the authorities cannot be written ({error.strerror})", "add --tmpfs /tmp")
        return {}
    bundle = str(state.write(BUNDLE, f"{public.rstrip()}\n{own}", mode=0o644))
    apt = str(state.write(APT, f'Acquire::https::CaInfo "{bundle}";\n', mode=0o644))
    found = dict.fromkeys(VARIABLES, bundle) | {"NODE_EXTRA_CA_CERTS": bundle, "APT_CONFIG": apt}
    return {name: value for name, value in found.items() if name not in given}


def _read(named: str) -> str | None:
    try:
        text = settings.read_file(Path(named), settings.CERTIFICATES_FILE)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        notices.warn(f"TORCHSTRATA_CA_FILE={named} cannot be read: {reason}", "mount the file and let it be readable")
        return None
    if BEGIN not in text:
        notices.warn(f"TORCHSTRATA_CA_FILE={named} has no certificate in PEM form", f"it must contain '{BEGIN}'")
        return None
    return text
