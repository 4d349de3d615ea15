"""Tell what torch says of itself where no GPU is to be seen: versions, architectures, and which libraries its import loads."""

import importlib.metadata
import json
import os
import platform
import re
import sys
import sysconfig
import tempfile
from pathlib import Path


def noise(function):
    """Return what ``function`` returns, and everything that is written on standard error meanwhile."""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            result = function()
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
        file.seek(0)
        return result, file.read().decode(errors="replace")


def loaded():
    """Return the shared objects of this process."""
    with Path("/proc/self/maps").open() as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")}
    return sorted(path for path in paths if re.search(r"\.so(\.[\w.]+)?$", path))


def imported(name):
    """Return the version that a module says, where its distribution is installed."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return str(__import__(name).__version__)


def use():
    """Import torch and ask for a GPU, as every program begins."""
    import torch  # noqa: PLC0415  # its noise is what is looked for

    return torch.cuda.is_available(), torch.cuda.device_count()


def cuda(torch):
    """Return what torch says of its CUDA; nothing where it was built without."""
    if torch.version.cuda is None:
        return {}
    return {
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "architectures": torch._C._cuda_getArchFlags().split(),
        "nccl_available": torch.distributed.is_nccl_available(),
    }


def main():
    """Print all facts."""
    if Path("/dev/nvidiactl").exists():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    (available, count), stderr = noise(use)
    libraries = loaded()
    import torch  # noqa: PLC0415

    document = {
        "torch": torch.__version__,
        "git": torch.version.git_version,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "executable": sys.executable,
        "stdlib": sysconfig.get_path("stdlib"),
        "prefix": sys.prefix,
        "available": available,
        "devices": count,
        "stderr": stderr,
        "loaded": libraries,
        "gloo": torch.distributed.is_gloo_available(),
    }
    document |= cuda(torch) | {name: imported(name) for name in ("torchvision", "torchaudio", "triton")}
    json.dump(document, sys.stdout)


main()
