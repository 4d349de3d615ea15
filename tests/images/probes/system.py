"""Tell what state the OS and the Python code are in.

Prints ``held``: OS packages that upgrades pass over; ``pins``: files of apt preferences;
``suites``: suites that apt looks at; ``bytecode``: compiled files without a source, of another Python, or where only a run
leaves them.
"""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

SKIPPED = {"/proc", "/sys", "/dev"}
APT = Path("/etc/apt")
OWN = ("/opt/venv/", "/usr/")
"""Where compiled files belong."""


def paragraphs():
    """Yield what dpkg knows of each package."""
    for paragraph in Path("/var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        yield dict(re.findall(r"^(Package|Status|Version): (.*)$", paragraph, re.MULTILINE))


def files(name):
    """Return apt's file of that name and those of its directory."""
    return [path for path in (APT / name, *(APT / f"{name}.d").glob("*")) if path.is_file()]


def suites():
    """Yield the suites of apt's sources, of both forms."""
    for path in files("sources.list"):
        text = path.read_text(encoding="utf-8")
        yield from re.findall(r"^deb (?:\[[^]]*\] )?\S+ (\S+)", text, re.MULTILINE)
        for line in re.findall(r"^Suites: (.*)$", text, re.MULTILINE):
            yield from line.split()


def bytecode():
    """Yield what is wrong with compiled files."""
    for folder, names, found in os.walk("/"):
        names[:] = [name for name in names if f"{folder}{name}" not in SKIPPED]
        for path in (f"{folder}/{name}" for name in found if name.endswith(".pyc")):
            if fault := verdict(path):
                yield f"{path}: {fault}"


def verdict(path):
    """Return what is wrong with a compiled file, in a word."""
    if not path.startswith(OWN):
        return "left by a run"
    with Path(path).open("rb") as file:
        if file.read(4) != importlib.util.MAGIC_NUMBER:
            return "of another Python"
    source = importlib.util.source_from_cache(path) if "/__pycache__/" in path else path[:-1]
    return "" if Path(source).is_file() else "without a source"


installed = [each for each in paragraphs() if each.get("Status", "").endswith(" ok installed")]
document = {
    "held": [each["Package"] for each in installed if each["Status"].startswith("hold")],
    "pins": [str(path) for path in files("preferences")],
    "suites": sorted(set(suites())),
    "bytecode": sorted(bytecode()),
}
json.dump(document, sys.stdout)
