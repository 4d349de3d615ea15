"""Ask the loader about every shared object: what it needs and does not find, and by which name each is known.

Prints ``objects``: path and soname of every one on the file system; ``unread``: those of which readelf said nothing;
``examined``: how many of the payload were traced;
``unresolved``: for each of the payload that does not resolve by itself, what it lacks (``alone``), and the loader's word when it is opened, bound at
once, in Python (``python``) and in Python that has imported torch (``torch``); an empty word means that it opens. ``led``: what
resolves only by ``LD_LIBRARY_PATH``, and what that lacks without it.
"""

# Paths are strings here: there are tens of thousands of them.
# ruff: noqa: PTH114, PTH118, PTH120, PTH123

import ctypes
import json
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PAYLOAD = tuple(str(path) for path in Path("/opt").glob("*") if path.name == "venv" or path.name.startswith("cuda"))
UNREAL = ("/proc", "/sys", "/dev", "/run", "/tmp", "/workspace")
LOADER, MACHINE = {"x86_64": ("/lib64/ld-linux-x86-64.so.2", "X86-64"), "aarch64": ("/lib/ld-linux-aarch64.so.1", "AArch64")}[platform.machine()]
SHARED = re.compile(r"\.so(\.[\w.]+)?$")
PROBLEM = re.compile(r"^\s*(\S+) => not found|undefined symbol: ([^\s,]+)|version `([^']+)' not found|error while loading shared libraries: (.+)", re.MULTILINE)
KINDS = ("missing", "symbol", "version", "error")
LED = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
BATCH = 400


def walk(top):
    """Yield every file of the file system that is no mount of the container's own."""
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if os.path.join(folder, name) not in UNREAL]
        yield from (os.path.join(folder, name) for name in files)


def is_object(path):
    """Say whether it is an ELF file: in the payload any, elsewhere one that is called a shared object."""
    if os.path.islink(path) or not (path.startswith(PAYLOAD) or SHARED.search(path)):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except PermissionError:
        return False


def described(paths):
    """Yield path, type, soname and whether the loader has to do with it, of each."""
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        # One name twice, so that readelf says the name of a single file too.
        text = subprocess.run(
            ["readelf", "-hdW", *batch, batch[-1]], capture_output=True, text=True, env={"PATH": "/usr/bin", "LC_ALL": "C"}, check=False
        ).stdout
        for part in re.split(r"^File: ", text, flags=re.MULTILINE)[1 : len(batch) + 1]:
            soname = re.search(r"Library soname: \[(.*)\]", part)
            yield {
                "path": part.split("\n", 1)[0],
                "soname": soname[1] if soname else None,
                "dynamic": "Dynamic section at" in part and re.search(r"Type: +(DYN|EXEC)", part) is not None and MACHINE in part,
            }


def trace(path, *, led=True):
    """Return what the loader does not find for ``path``, functions bound at once, as ``ldd -r`` asks; whether it was led."""
    env = {name: value for name, value in os.environ.items() if led or name != "LD_LIBRARY_PATH"}
    env |= {"LD_TRACE_LOADED_OBJECTS": "1", "LD_WARN": "yes", "LD_BIND_NOW": "yes"}
    done = subprocess.run([LOADER, path], capture_output=True, text=True, env=env, check=False)
    text = done.stdout + done.stderr
    found = sorted({f"{kind} {name}" for groups in PROBLEM.findall(text) for kind, name in zip(KINDS, groups, strict=True) if name})
    return found or ([f"error {text.strip()[:200]}"] if done.returncode else []), any(f"=> {folder}/" in text for folder in LED)


def opened(path, missing=()):
    """Return the loader's word on opening ``path`` in a child of this process; its package opens its siblings first."""
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        with os.fdopen(read) as pipe:
            word = pipe.read()
        _, status = os.waitpid(pid, 0)
        return word or ("" if status == 0 else f"ended with {os.waitstatus_to_exitcode(status)}")
    try:
        beside = [os.path.join(os.path.dirname(path), name) for name in missing]
        for each in [*filter(os.path.exists, beside), path]:
            ctypes.CDLL(each, mode=os.RTLD_NOW)
    except OSError as error:
        os.write(write, str(error).encode())
    finally:
        os._exit(0)


def resolve(paths):
    """Return what the loader lacks for each path, and what it would lack without ``LD_LIBRARY_PATH``."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        traced = dict(zip(paths, pool.map(trace, paths), strict=True))
        led = [path for path, (_, by_variable) in traced.items() if by_variable]
        unled = dict(zip(led, pool.map(lambda path: trace(path, led=False)[0], led), strict=True))
    alone = {path: lacks for path, (lacks, _) in traced.items() if lacks}
    return alone, {path: lost for path, lacks in unled.items() if (lost := sorted({*lacks} - {*alone.get(path, ())}))}


def main():
    """Print all results."""
    everything = [path for path in walk("/") if is_object(path)]
    objects = list(described(everything))
    payload = [each["path"] for each in objects if each["dynamic"] and each["path"].startswith(PAYLOAD)]
    alone, led = resolve(payload)
    missing = {path: [line.split()[1] for line in lacks if line.startswith("missing ")] for path, lacks in alone.items()}
    in_python = {path: opened(path, missing[path]) for path in alone}
    import torch  # noqa: F401, PLC0415  # only what follows is to find it open

    in_torch = {path: word and opened(path, missing[path]) for path, word in in_python.items()}
    unresolved = {path: {"alone": alone[path], "python": in_python[path], "torch": in_torch[path]} for path in alone}
    known = [{"path": each["path"], "soname": each["soname"]} for each in objects if SHARED.search(each["path"])]
    unread = sorted({*everything} - {each["path"] for each in objects})
    json.dump({"objects": known, "unread": unread, "examined": len(payload), "unresolved": unresolved, "led": led}, sys.stdout)


main()
