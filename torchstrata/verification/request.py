"""What can be asked of a verification, as a value: what the command line fills in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyOptions:
    """What can be asked of a verification.

    :param flavour: flavours to verify; all if empty.
    :param image: name or digest of the one image to verify instead.
    :param hosts: testinfra's name of a machine to verify instead, such as ``local://``.
    :param rest: more arguments for pytest.
    :param scope: how many of the tests run.
    :param again: run them though they have passed on the same image.
    """

    flavour: tuple[str, ...]
    image: str | None
    hosts: str | None
    gpu: Literal["auto", "required", "none"]
    results: Path
    rest: tuple[str, ...]
    scope: Literal["quick", "full"] = "full"
    again: bool = False
