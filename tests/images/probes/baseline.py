"""Look as root at the files and accounts of a container and print what a benchmark of hardening complains about, as JSON."""

import collections
import json
import os
import pathlib
import re
import stat
import sys

SKIPPED = ("/proc", "/sys", "/dev", "/workspace", "/run/secrets")
OWN = ("/opt/venv", "/opt/cuda/nvidia", "/opt/cuda/cusparselt", "/opt/cuda-12.4", "/home/dev", "/tmp", "/var/tmp", "/workspace", "/data")
"""Where the container's user may write, by design or as everybody may."""

SECRET_NAMES = re.compile(r"(^|/)(id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.pgpass|\.pypirc|\.git-credentials|\.gnupg|secring\.gpg|ssh_host_\w+_key)$")
OF_PACKAGES = ("/var/cache/", "/var/lib/", "/var/mail", "/var/local")
"""Where packages give directories to accounts of their own."""

HARMLESS = ("/root/", "/var/lib/extrausers/", "/opt/cuda/lib/")
"""Links for the name of the user alone: a workspace in root's home; the names of users, which no privileged program believes; and CUDA's
libraries, by names that no program of the system asks for, in a directory where only root can add one."""

CACHES = ("/var/cache/apt", "/var/lib/apt/lists", "/root/.cache", "/home/dev/.cache/pip", "/home/dev/.cache/uv")


def walk():
    """Yield path and status of every file of the image's own file system."""
    device = os.lstat("/").st_dev
    for folder, names, files in os.walk("/"):
        found = {name: os.lstat(f"{folder.rstrip('/')}/{name}") for name in (*names, *files)}
        own = {name: status for name, status in found.items() if status.st_dev == device and f"{folder.rstrip('/')}/{name}" not in SKIPPED}
        names[:] = [name for name in names if name in own]
        yield from ((f"{folder.rstrip('/')}/{name}", status) for name, status in own.items())


def rows(path):
    """Return the fields of a file such as passwd(5)."""
    return [line.split(":") for line in pathlib.Path(path).read_text().splitlines() if line]


def within(path, places):
    """Return whether a path is one of some places, or below one."""
    return f"{path}/".startswith(tuple(f"{place}/" for place in places))


def kinds(path, status, known):
    """Return what a benchmark says of a file, each with whether it is so."""
    mode, own = status.st_mode, within(path, OWN)
    by_group = mode & stat.S_IWGRP and status.st_gid == 0 and not mode & stat.S_ISVTX
    link, file = stat.S_ISLNK(mode), stat.S_ISREG(mode)
    return {
        "links of the system to what a user may write": link and not own and within(os.path.realpath(path), OWN) and not path.startswith(HARMLESS),
        "writable by anybody": file and mode & stat.S_IWOTH,
        "directory without sticky bit": stat.S_ISDIR(mode) and mode & stat.S_IWOTH and not mode & stat.S_ISVTX,
        "without owner": status.st_uid not in known[0] or status.st_gid not in known[1],
        "of the system, writable by others than root": not link and not own and not path.startswith(OF_PACKAGES) and (status.st_uid != 0 or by_group),
        "capabilities": file and "security.capability" in os.listxattr(path, follow_symlinks=False),
        "world-readable secrets": path in {"/etc/shadow", "/etc/gshadow"} and mode & 0o007,
        "keys and logins": SECRET_NAMES.search(path) and not path.startswith("/tmp/"),
        "caches of packages": file and within(path, CACHES),
        "preloaded": path == "/etc/ld.so.preload",
    }


def files():
    """Return the paths of each kind that something is wrong with."""
    found = collections.defaultdict(list)
    known = {int(row[2]) for row in rows("/etc/passwd")}, {int(row[2]) for row in rows("/etc/group")}
    for path, status in walk():
        for kind, is_so in kinds(path, status, known).items():
            found[kind] += [path] if is_so else []
    return {kind: paths[:20] for kind, paths in found.items()}


def accounts():
    """Return the names of accounts of each kind that something is wrong with."""
    passwd, shadow, groups = rows("/etc/passwd"), rows("/etc/shadow"), rows("/etc/group")
    counted = collections.Counter([row[0] for row in passwd] + [f"uid {row[2]}" for row in passwd])
    counted += collections.Counter([f"group {row[0]}" for row in groups] + [f"gid {row[2]}" for row in groups])
    gids = {row[2] for row in groups}
    return {
        "empty password": [row[0] for row in shadow if not row[1]],
        "password": [row[0] for row in shadow if row[1] and not row[1].startswith(("*", "!"))],
        "password in passwd": [row[0] for row in passwd if row[1] != "x"],
        "second root": [row[0] for row in passwd if row[2] == "0" and row[0] != "root"],
        "twice": [name for name, count in counted.items() if count > 1],
        "legacy entry": [row[0] for row in (*passwd, *shadow, *groups) if row[0].startswith("+")],
        "without group": [row[0] for row in passwd if row[3] not in gids],
        "login shell": [row[0] for row in passwd if not row[6].endswith(("/nologin", "/false")) and row[0] not in ("root", "dev", "sync")],
    }


def path():
    """Return the entries of PATH, which is the image's, of each kind that something is wrong with."""
    entries = os.environ["PATH"].split(":")
    return {
        "empty": [entry for entry in entries if not entry],
        "relative": [entry for entry in entries if not entry.startswith("/")],
        "writable by anybody": [entry for entry in map(pathlib.Path, entries) if entry.is_dir() and entry.stat().st_mode & stat.S_IWOTH],
    }


def modes():
    """Return mode and owner of the files that say who may what."""
    found = {name: os.lstat(name) for name in ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/tmp")}
    return {name: f"{status.st_mode & 0o7777:o} {status.st_uid}" for name, status in found.items()}


packages = re.findall(r"^Package: (\S+)$", pathlib.Path("/var/lib/dpkg/status").read_text(), re.MULTILINE)
json.dump({"files": files(), "accounts": accounts(), "path": path(), "modes": modes(), "packages": packages}, sys.stdout)
