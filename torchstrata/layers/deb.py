"""One package of a distribution, downloaded without what it depends on and without being installed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from torchstrata import process
from torchstrata.layers import os_image
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.store import tarball


@contextmanager
def downloaded(suite: str, component: str, package: str, on_line: process.LineSink) -> Iterator[tuple[str, IO[bytes]]]:
    """Have apt download a package with mmdebstrap's keys and mirror; yield the file's name and its content.

    What this machine's own apt knows does not matter: neither its release nor its lists.

    :param package: its name, and ``=version`` if it must be that one.
    :raises OsPartError: mmdebstrap cannot run here.
    :raises Failed: apt has no such package, or cannot reach the mirror.
    """
    hook = f'cd "$1" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download -- {shlex.quote(package)}'
    options = ("--quiet", "--variant=custom", "--format=tar", f"--components={component}", f"--customize-hook={hook}")
    with os_image.Command.inputs() as inputs:
        told = AptSettings.of_host()
        hooks = os_image.telling(inputs, told.write(Path(inputs), inputs)[0]) if told else ()
        command = os_image.Command.find(on_line).around(inputs, (os_image.PROGRAM, *options, *hooks, suite, "-"))
        with process.piped(*command) as output, tarball.reading(output) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(".deb") else None
                if content is not None:
                    yield Path(member.name).name, content
