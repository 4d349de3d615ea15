"""Compile Python sources: a tar of ``.py`` files on standard input, a tar of their ``.pyc`` files on standard output.

Names in both archives are absolute paths without the leading slash. The pycs are of the timestamp kind (PEP 552), so that
an edit of a source is honoured; a source that does not compile is left out, as pip does. Runs by ``python3 -c``.
"""

import importlib.util
import io
import marshal
import multiprocessing
import os
import struct
import sys
import tarfile
import warnings

BATCH = 64
"""Sources that one process compiles."""


def compiled(batch: "list[tuple[str, int, bytes]]") -> "list[bytes]":
    """Return the content of the pyc of each source of a batch; nothing for one that does not compile.

    A batch is compiled in a process that has compiled nothing else: what came before decides, now and then, which equal
    constants of a module are one object, and so its bytes. Batches depend on the input alone, not on the number of cores.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as out:
                marshal.dump([pyc(*job) for job in batch], out)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        content = answer.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"the compiler of {batch[0][0]} and what follows it died")
    return list(marshal.loads(content))  # noqa: S302  # our own child wrote it


def pyc(name: str, mtime: int, source: bytes) -> bytes:
    """Return the content of a pyc, or nothing if the source does not compile."""
    try:
        code = compile(source, f"/{name}", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return b""
    return importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, mtime, len(source) & 0xFFFFFFFF) + marshal.dumps(code)


def sources(archive: tarfile.TarFile) -> "list[tuple[str, int, bytes]]":
    """Return name, modification time and content of every file in ``archive``."""
    return [(member.name, int(member.mtime), archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def main() -> None:
    """Compile everything on all cores, in the order of the input."""
    warnings.simplefilter("ignore")
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        jobs = sources(archive)
    batches = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
    cores = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("fork").Pool(cores) as pool, tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
        for batch, contents in zip(batches, pool.imap(compiled, batches), strict=True):
            for (name, *_), content in zip(batch, contents, strict=True):
                if content:
                    info = tarfile.TarInfo(importlib.util.cache_from_source(name))
                    info.size = len(content)
                    out.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main()
