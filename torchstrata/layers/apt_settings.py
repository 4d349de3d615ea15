"""Settings of apt in builds beside those of the OS image: the administrator's own configuration, and other sources.

None of it gets into a layer: it lies beside the pins, where apt is pointed to it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from torchstrata.errors import OsPartError
from torchstrata.host import variables
from torchstrata.layers.snapshots import AptSource

VARIABLE: Final = "APT_CONFIG"
"""apt's own variable: a file that it reads before its others. Builds hand its content on, as they do with proxies."""

LIMIT: Final = 1_000_000
"""Bytes of that file."""

CONFIG: Final = "apt.conf"
SOURCES: Final = "sources.list"
CAS: Final = "authorities.crt"


@dataclass(frozen=True, kw_only=True, slots=True)
class AptSettings:
    """Settings of apt for one OS; false if there are none.

    :param config: lines of ``apt.conf``.
    :param sources: taken instead of those of the OS image; one that does not answer is an error then.
    """

    config: str = ""
    sources: tuple[AptSource, ...] = ()

    @classmethod
    def of_host(cls) -> Self:
        """Return what the administrator of this machine has put into the file that ``$APT_CONFIG`` names.

        :raises OsPartError, VariableError: it cannot be read.
        """
        content = variables.file(VARIABLE, LIMIT)
        try:
            return cls(config=content.decode() if content else "")
        except UnicodeDecodeError as error:
            raise OsPartError(f"the file that {VARIABLE} names is no UTF-8", fix=f"correct or unset {VARIABLE}") from error

    def __bool__(self) -> bool:
        return bool(self.config or self.sources)

    def write(self, directory: Path, seen_at: str) -> tuple[str, ...]:
        """Write the files that apt needs; return their names, ``apt.conf`` first.

        :param seen_at: what apt calls ``directory``.
        """
        lines, files = [self.config], {CONFIG: b""}
        if self.sources:
            lines += [
                f'Dir::Etc::sourcelist "{seen_at}/{SOURCES}";',
                'Dir::Etc::sourceparts "-";',
                'APT::Update::Error-Mode "any";',
                'Acquire::Languages "none";',
            ]
            files[SOURCES] = "".join(f"{source}\n" for source in self.sources).encode()
            if cas := _cas():
                lines.append(f'Acquire::https::CAInfo "{seen_at}/{CAS}";')
                files[CAS] = cas
        files[CONFIG] = ("\n".join(lines) + "\n").encode()
        for name, content in files.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o644)
        return tuple(files)


def _cas() -> bytes:
    """Return the certificates of the CAs that this machine trusts: the smallest OS images have none."""
    bundle = ssl.get_default_verify_paths().cafile
    return Path(bundle).read_bytes() if bundle else b""
