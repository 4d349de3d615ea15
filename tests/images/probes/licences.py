"""List the licence of every distribution of the environment and of every OS package.

Prints ``distributions``: by name, what its metadata says of its licence and the licence files that lie with it; and
``packages``: by name, the licences of its copyright file, or ``null`` where there is no such file.
"""

import importlib.metadata
import json
import re
import sys
from pathlib import Path

DOCS = Path("/usr/share/doc")
FILES = re.compile(r"licen[cs]e|copying|notice|copyright", re.IGNORECASE)


def stated(metadata):
    """Return what the metadata says, the most exact first."""
    licence = metadata.get("License-Expression") or metadata.get("License") or ""
    classes = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    first = next(iter(licence.strip().splitlines()), "")
    return first[:120] if first and first != "UNKNOWN" else "; ".join(classes)


def files(distribution):
    """Return the licence files that lie with it and are there."""
    listed = [path for path in distribution.files or () if ".dist-info/" in f"{path}" and FILES.search(path.name)]
    return [str(path) for path in listed if Path(distribution.locate_file(path)).is_file()]


def packages():
    """Yield the names of all installed OS packages."""
    for paragraph in Path("/var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" ok installed"):
            yield fields["Package"]


def copyright_of(package):
    """Return the licences that a copyright file names; those that no program can read are named by their file."""
    try:
        text = (DOCS / package / "copyright").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    named = {line.strip() for line in re.findall(r"^License: *(\S.*)$", text, re.MULTILINE)}
    common = {f"see {name}" for name in re.findall(r"/usr/share/common-licenses/([A-Za-z0-9.-]*[A-Za-z0-9])", text)}
    return "; ".join(sorted(named or common)) or f"see {DOCS}/{package}/copyright"


distributions = importlib.metadata.distributions()
document = {
    "distributions": {each.metadata["Name"]: {"stated": stated(each.metadata), "files": files(each)} for each in distributions},
    "packages": {package: copyright_of(package) for package in sorted(packages())},
}
json.dump(document, sys.stdout)
