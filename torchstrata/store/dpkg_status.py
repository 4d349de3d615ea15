"""dpkg's status file: what is installed (deb822(5), dpkg-query(1))."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class OsPackage(msgspec.Struct, frozen=True, kw_only=True):
    """What dpkg's status file says of an installed package."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str


def installed(status: str) -> Iterator[OsPackage]:
    """Yield the packages that dpkg's status file calls installed, by name."""
    packages = []
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" ok installed"):
            source, _, version = fields.get("Source", fields["Package"]).partition(" ")
            packages.append(
                OsPackage(
                    name=fields["Package"],
                    version=fields["Version"],
                    architecture=fields.get("Architecture", "all"),
                    source=source,
                    source_version=version.strip("()") or fields["Version"],
                )
            )
    yield from sorted(packages, key=lambda package: package.name)
