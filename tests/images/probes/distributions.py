"""Check every installed distribution against its RECORD, file by file, and look for files that none of them knows.

Prints ``installed``: versions by normalised name; ``twice``: names found more than once; ``files`` and ``bytes``: how many were
hashed; ``missing``, ``changed``, ``unhashed``: paths listed in a RECORD; ``unknown``: files of site-packages, the environment's
``bin`` and ``/opt/cuda`` that no RECORD lists.
"""

# Paths are strings here: there are tens of thousands of them.
# ruff: noqa: PTH113, PTH114, PTH118, PTH119, PTH120, PTH123, PTH202

import base64
import collections
import csv
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

SITE = sysconfig.get_path("purelib")
BIN = sysconfig.get_path("scripts")
CUDA = "/opt/cuda"


def normalised(name):
    """Return a name as locks write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def rows(distribution):
    """Yield path, hash and size of every line of the RECORD."""
    for path, digest, size in csv.reader(distribution.read_text("RECORD").splitlines()):
        yield os.path.normpath(os.path.join(SITE, path)), digest, size


def verdict(row):
    """Return what is wrong with a file, in a word, and its size."""
    path, digest, size = row
    if not os.path.isfile(path):
        return "missing", 0
    if not digest:
        return "unhashed", 0
    algorithm, _, expected = digest.partition("=")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).digest() if hasattr(hashlib, "file_digest") else hashlib.new(algorithm, file.read()).digest()
    length = os.path.getsize(path)
    same = base64.urlsafe_b64encode(found).rstrip(b"=").decode() == expected and length == int(size)
    return "" if same else "changed", length


def present():
    """Yield files that belong to packages; bytecode is Python's own matter, and links in CUDA's tree lead to its files."""
    for top in (SITE, BIN, CUDA):
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if name != "__pycache__"]
            paths = (os.path.join(folder, name) for name in files)
            yield from (path for path in paths if top != CUDA or not os.path.islink(path))


def real(paths):
    """Return where the paths lead: ``/opt/cuda`` has what a link of site-packages leads to."""
    folders = {folder: os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}
    return {os.path.join(folders[os.path.dirname(path)], os.path.basename(path)) for path in paths}


def main():
    """Print all results."""
    distributions = list(importlib.metadata.distributions(path=[SITE]))
    names = collections.Counter(normalised(each.metadata["Name"]) for each in distributions)
    records = sorted({row for each in distributions for row in rows(each)}, key=lambda row: -int(row[2] or 0))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(verdict, records))
    found = {word: sorted(row[0] for row, (each, _) in zip(records, verdicts, strict=True) if each == word) for word in ("missing", "changed", "unhashed")}
    document = found | {
        "installed": {normalised(each.metadata["Name"]): each.version for each in distributions},
        "twice": sorted(name for name, count in names.items() if count > 1),
        "files": len(records),
        "bytes": sum(size for _, size in verdicts),
        "unknown": sorted({*present()} - real({row[0] for row in records})),
    }
    json.dump(document, sys.stdout)


main()
