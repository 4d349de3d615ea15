"""``torchstrata-doctor``: every check on demand, as text or JSON; the exit status is the worst that was found."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from container import (
    adoption,
    belongings,
    declarations,
    extension,
    facts,
    gpu,
    health,
    limits,
    mounts,
    notices,
    plain,
    preflight,
    privilege,
    services,
    settings,
    state,
    workspace,
)
from container.problems import Problem

GOOD, WARNING, ERROR = 0, 1, 2
"""Severities, which are also exit statuses."""

WORDS: Final = ("ok", "warning", "error")
PYTHON: Final = Path("/opt/venv/bin/python")
SITE_PACKAGES: Final = "lib/python3*/site-packages"
PROBES: Final = Path("/usr/local/lib/torchstrata/probes")
PATIENCE: Final = 300
"""Seconds for one test of torch; its compiler is slow on few CPUs."""

LITTLE_SPACE: Final = 5 << 30
"""Bytes below which the doctor warns."""

SAMPLE: Final = 32 << 20
"""Bytes that are written to see how fast a disk is."""

SLOW_KINDS: Final = ("nfs", "nfs4", "cifs", "9p", "fuse", "fuse.sshfs", "virtiofs", "fakeowner")
"""File systems over a network, or of a virtual machine's host."""


class Finding(NamedTuple):
    """The result of one check."""

    subject: str
    severity: int
    what: str
    fix: str = ""


def main(arguments: list[str]) -> int:
    """Run all checks and print them; return the worst severity: 0 all well, 1 warnings, 2 errors."""
    options = _options(arguments)
    findings = list(handed_over()) if options.hand_over else []
    privilege.drop()
    for check in (belonging,) if options.hand_over else QUICK if options.quick else QUICK + THOROUGH:
        findings += check()
    if options.json:
        sys.stdout.write(json.dumps([_plain(finding) for finding in findings], indent=2) + "\n")
    else:
        sys.stdout.writelines(_text(finding) for finding in findings)
    return max(finding.severity for finding in findings)


def image() -> Iterator[Finding]:
    """Say what this image is, and whether its torch is still the one that it was tested with."""
    known = facts.read()
    if known is None:
        yield Finding("image", WARNING, f"{facts.IMAGE} is missing or damaged", "pull the image again")
        return
    cuda = f"CUDA {_dotted(known.cuda)}" if known.cuda else "no CUDA"
    yield Finding("image", GOOD, f"{known.cell}: torch {known.torch}, {cuda}")
    installed = sorted(path.name.split("-")[1].removesuffix(".dist") for path in Path("/opt/venv/lib").glob("python3*/site-packages/torch-*.dist-info"))
    if installed and [version.partition("+")[0] for version in installed] != [known.torch]:
        what = f"torch {' and '.join(installed)} is installed, this image was tested with {known.torch}"
        yield Finding("torch", WARNING, what, f"pip install torch=={known.torch}")


def driver() -> Iterator[Finding]:
    """Compare the driver with what the image needs, and the GPUs with those that its torch has code for."""
    known = facts.read()
    if known is None or not known.cuda:
        yield Finding("gpu", GOOD, "not needed by this image")
    elif not gpu.present():
        yield Finding("gpu", WARNING, "no GPU is visible: torch uses the CPU", "start with --gpus all, on a host with an NVIDIA driver and container toolkit")
    elif gpu.lost():
        yield Finding("gpu", ERROR, "the GPU may not be opened (NVML lost, as after systemctl daemon-reload on the host)", "start the container anew")
    else:
        yield from _driver(known)


def _driver(known: facts.Facts) -> Iterator[Finding]:
    """Ask a GPU that is there, and its driver, what they are."""
    try:
        supported, devices = gpu.driver(), gpu.capabilities()
    except gpu.CudaError as error:
        yield Finding("gpu", ERROR, str(error), "compare the driver on the host with the one that nvidia-smi shows here, and start the container anew")
        return
    if supported is None:
        yield Finding("driver", ERROR, "no driver library in the container", "set NVIDIA_DRIVER_CAPABILITIES=compute,utility and use the NVIDIA toolkit")
        return
    kernel = gpu.kernel_module()
    yield _judged("driver", gpu.judge_driver(supported, known, devices), f"supports CUDA {_dotted(supported)}{f', version {kernel}' if kernel else ''}", ERROR)
    generations = ", ".join(_dotted(device) for device in devices)
    yield _judged("gpu", gpu.judge_generations(devices, known, supported), f"{len(devices)}, compute capability {generations}", ERROR if devices else WARNING)


def memory() -> Iterator[Finding]:
    """Look at shared, locked and limited memory, and what the kernel killed."""
    shm = os.statvfs(preflight.SHM) if preflight.SHM.exists() else None
    size = f"{preflight.SHM} has {limits.in_words(shm.f_frsize * shm.f_blocks)}" if shm else ""
    yield _judged("shared memory", preflight.shared_memory(), size, WARNING)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    needed = gpu.present() or preflight.INFINIBAND.exists()
    in_words = "unlimited" if locked == resource.RLIM_INFINITY else limits.in_words(locked)
    yield _judged("locked memory", preflight.pinned_memory() if needed else None, in_words, WARNING)
    used = limits.memory()
    if used.kills:
        what = f"{used.kills} processes were killed at the limit of {limits.in_words(used.limit)}"
        yield Finding("memory", WARNING, what, "use smaller batches, or raise --memory")
    else:
        yield Finding("memory", GOOD, f"limit {limits.in_words(used.limit) if used.limit else 'none'}, nothing killed")


def libraries() -> Iterator[Finding]:
    """Look for a cuDNN or NCCL that hides the one of torch."""
    problems = preflight.shadowed(os.environ.get("LD_LIBRARY_PATH", ""))
    yield from (Finding("libraries", WARNING, problem.what, problem.fix) for problem in problems)
    if not problems:
        yield Finding("libraries", GOOD, "nothing shadows cuDNN or NCCL")


def processors() -> Iterator[Finding]:
    """Give the CPU limit and what follows for data loading."""
    count, limit = limits.usable_cpus(), limits.cpus()
    bound = f"limited to {limit:g}" if limit is not None else "not limited"
    yield Finding("cpu", GOOD, f"{count} usable ({bound}): DataLoader(num_workers={max(1, count // 2)}, pin_memory=True)")


def disk() -> Iterator[Finding]:
    """Look at where data and results lie: writable, kept, fast, with room."""
    path, mounted = workspace.WORKSPACE, mounts.read()
    mount, holder = mounts.at(str(path), mounted), mounts.below(str(path), mounted)
    if not os.access(path, os.W_OK):
        yield Finding("workspace", ERROR, *workspace.complaint(path, mount, os.getuid(), os.getgid()))
        return
    if mount is None:
        yield Finding("workspace", WARNING, f"nothing is mounted at {path}: work is lost with the container", f"-v ./workspace:{path}")
    kind = holder.kind if holder else "unknown"
    if kind in SLOW_KINDS:
        yield Finding("disk", WARNING, f"{path} is on {kind}, slow for many small files", "copy the data set to a local disk or /dev/shm before training")
    yield _room(path, kind)


def _room(path: Path, kind: str) -> Finding:
    """Look at how much a directory still takes, and how fast."""
    free = shutil.disk_usage(path).free
    what = f"{path} ({kind}): {limits.in_words(free)} free"
    try:
        speed = _write_speed(path)
    except OSError as error:  # a full disk, or a quota that is used up
        return Finding("disk", ERROR, f"{what}, and {limits.in_words(SAMPLE)} cannot be written: {error.strerror}", "make room, or raise the quota")
    severity = WARNING if free < LITTLE_SPACE else GOOD
    return Finding("disk", severity, f"{what}, writes {speed:.0f} MB/s", "make room" if severity else "")


def temporary() -> Iterator[Finding]:
    """Look at whether temporary files can be written, and loaded as libraries, which torch.compile does with what it compiles."""
    place = next((path for path in (os.environ.get("TMPDIR"), "/tmp") if path and os.path.isdir(path)), "/tmp")  # noqa: PTH112, S108  # as Python's tempfile
    fix = "--tmpfs /tmp:exec, or set TMPDIR to a directory that can be written and is mounted without noexec"
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("temporary files", WARNING, f"{place} cannot be written", fix)
    elif os.statvfs(place).f_flag & os.ST_NOEXEC:
        what = f"{place} is mounted noexec: torch.compile, and builds that run what they have compiled, fail there"
        yield Finding("temporary files", WARNING, what, fix)
    else:
        yield Finding("temporary files", GOOD, f"{place} can be written, and programs run from it")


def handed_over() -> Iterator[Finding]:
    """As root, give the container's user what an engine has made as root."""
    uid, gid = state.user()
    yield from (Finding("mounts", GOOD, f"{path} is {uid}:{gid}'s now") for path in belongings.hand_over(uid, gid))


def belonging() -> Iterator[Finding]:
    """Look for mounts beside the workspace that this user cannot write."""
    problems = belongings.problems(os.getuid(), os.getgid())
    yield from (Finding("mounts", WARNING, problem.what, problem.fix) for problem in problems)
    if not problems:
        yield Finding("mounts", GOOD, "what is mounted can be written, or is read-only")


def running() -> Iterator[Finding]:
    """Look at what the image says of its services, ask those that were started, and let their modules tell more."""
    try:
        declared = {declaration.name: declaration for declaration in declarations.read().services}
    except settings.SettingError as error:
        yield Finding("services", ERROR, error.what, error.fix)
        return
    broken = (declaration for declaration in declared.values() if declaration.trouble)
    yield from (Finding(declaration.name, ERROR, declaration.trouble, declarations.CURE) for declaration in broken)
    for service in services.recall():
        trouble = health.trouble(service)
        yield Finding(service.name, ERROR if trouble else GOOD, trouble or f"answers on port {service.port}")
        if service.name in declared and not trouble:
            yield from _told(declared[service.name], service)


def _told(declared: declarations.Declaration, service: services.Service) -> Iterator[Finding]:
    """Yield what the module of a service says of it, or that it fails."""
    try:
        yield from [Finding(service.name, GOOD, line) for line in extension.of(declared, plain.findings)(service)]
    except extension.ModuleError as error:
        yield Finding(service.name, ERROR, str(error), declarations.CURE)


def person() -> Iterator[Finding]:
    """Say who this is, where home is, and whether packages can be installed."""
    home = os.environ.get("HOME", "")
    yield Finding("user", GOOD, f"{os.getuid()}:{os.getgid()}, home {home}")
    if not os.access("/opt/venv", os.W_OK):
        yield Finding("pip", WARNING, "packages cannot be installed", f"use --user {os.getuid()}:0 or --group-add 0, without --read-only")
    if adoption.in_user_namespace(adoption.UID_MAP.read_text(encoding="ascii")):
        yield Finding("user", GOOD, "in a user namespace (rootless): root here is an ordinary user of the host")


def packages(venv: Path = PYTHON.parents[1]) -> Iterator[Finding]:
    """Look for packages that lack files: another one that had the same files, as OpenCV's four have, was removed."""
    records = sorted(venv.glob(f"{SITE_PACKAGES}/*.dist-info/RECORD"))
    damaged = [(record, damage) for record in records if (damage := _damage(record))]
    for record, damage in damaged:
        name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
        yield Finding("packages", WARNING, f"{name} {version} {damage}", f"pip install --force-reinstall --no-deps {shlex.quote(f'{name}=={version}')}")
    if not damaged:
        yield Finding("packages", GOOD, f"{len(records)} in {venv}, all with their files")


def _damage(record: Path) -> str:
    """Return what is wrong with the files that a package lists (RECORD of the binary distribution format), bytecode aside; empty if nothing is."""
    import csv  # noqa: PLC0415  # only this check needs it

    try:
        with record.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            paths = [row[0] for row in csv.reader(file) if row and not row[0].endswith(".pyc")]
    except (OSError, csv.Error) as error:
        return f"has a list of files that cannot be read: {error}"
    site = record.parents[1]
    count = sum(not os.path.lexists(f"{site}/{path}") for path in paths)  # tens of thousands: a Path each would take seconds
    return f"lacks {count} of its files, as after the removal of another package with the same files" if count else ""


def torch() -> Iterator[Finding]:
    """Run torch for real: a matrix product, mixed precision, the compiler."""
    yield _probed("torch", "smoke.py")


def nccl() -> Iterator[Finding]:
    """Let NCCL add up numbers over all GPUs, one process each."""
    yield _probed("nccl", "collective.py")


QUICK: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    image,
    person,
    packages,
    driver,
    memory,
    libraries,
    processors,
    disk,
    temporary,
    belonging,
    running,
)
THOROUGH: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (torch, nccl)


def _probed(subject: str, script: str) -> Finding:
    """Run a test in torch's own Python; its last line is the result. One that fails ends with 1, as Python does where an assertion fails."""
    if not PYTHON.exists():
        return Finding(subject, WARNING, f"{PYTHON} is missing", "pull the image again")
    try:
        done = subprocess.run([PYTHON, PROBES / script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Finding(subject, ERROR, f"no result in {PATIENCE} s", "look for other load on the GPUs; NCCL_DEBUG=INFO says more")
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"])[-1]
    return Finding(subject, ERROR, last, f"run {PYTHON} {PROBES / script} to see all") if done.returncode else Finding(subject, GOOD, last)


def _write_speed(path: Path) -> float:
    """Return MB per second of writing and syncing one file.

    :raises OSError: there is no room for it.
    """
    scratch = path / f".torchstrata-doctor-{os.getpid()}"
    start = time.monotonic()
    try:
        with scratch.open("wb") as file:
            file.write(bytes(SAMPLE))
            os.fsync(file.fileno())
    finally:
        scratch.unlink(missing_ok=True)
    return SAMPLE / 1e6 / (time.monotonic() - start)


def _judged(subject: str, problem: Problem | None, well: str, severity: int) -> Finding:
    """Return a problem as a finding, or ``well`` where there is none.

    :param severity: of the problem.
    """
    return Finding(subject, severity, problem.what, problem.fix) if problem else Finding(subject, GOOD, well)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torchstrata-doctor", description="Say what does not work in this container, and what cures it.")
    parser.add_argument("--json", action="store_true", help="print a JSON list of findings")
    parser.add_argument("--quick", action="store_true", help="leave out what takes more than a second: torch and NCCL")
    parser.add_argument("--hand-over", action="store_true", help="as root: give the user what is mounted and empty; do nothing else")
    return parser.parse_args(arguments)


def _plain(finding: Finding) -> dict[str, str]:
    return finding._asdict() | {"severity": WORDS[finding.severity]}


def _text(finding: Finding) -> str:
    fix = f"\n{'':27}-> {notices.brief(finding.fix)}" if finding.fix else ""
    return f"{WORDS[finding.severity]:8} {notices.brief(finding.subject):17} {notices.brief(finding.what)}{fix}\n"


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))
