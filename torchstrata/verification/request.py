"""What can be asked of a verification, as a value: what the command line fills in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchstrata.arguments import option, switch
from torchstrata.matrix.matrix import ROOT
from torchstrata.store.layer import PLATFORM


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

    flavour: tuple[str, ...] = option("verify only this flavour; with commas between them, or given more than once (default: all)", "FLAVOUR", ())
    image: str | None = option("verify this image: any name or digest that the engine has (default: those of the cell)", "REF", group="subject")
    hosts: str | None = option("verify a machine that is no container: local:// or ssh://USER@HOST (default: containers)", "URI", group="subject")
    gpu: Literal["auto", "required", "none"] = option("tests that need a GPU (default: auto, they run if there is one)", default="auto")
    results: Path = option("where evidence goes (default: results)", "DIRECTORY", ROOT / "results")
    scope: Literal["quick", "full"] = option(
        "what each image is; what it does, on one all-in-one (default: full, which alone counts for releases)", default="full"
    )
    again: bool = switch("run the tests though the same ones have passed on the same image")
    platform: str = option("verify the images of this platform, such as linux/arm64 (default: linux/amd64)", "OS/ARCHITECTURE", PLATFORM)
    rest: tuple[str, ...] = ()
