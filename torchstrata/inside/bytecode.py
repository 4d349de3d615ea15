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


def compiled(job: tuple[str, int, bytes]) -> "tuple[str, bytes] | None":
    """Return the path and bytes of the pyc of one source, or None if it does not compile."""
    name, mtime, source = job
    try:
        code = compile(source, f"/{name}", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return None
    header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, mtime, len(source) & 0xFFFFFFFF)
    return importlib.util.cache_from_source(name), header + marshal.dumps(code)


def sources(archive: tarfile.TarFile) -> "list[tuple[str, int, bytes]]":
    """Return name, modification time and content of every file in ``archive``."""
    return [(member.name, int(member.mtime), archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def main() -> None:
    """Compile everything on all cores, in the order of the input."""
    warnings.simplefilter("ignore")
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        jobs = sources(archive)
    cores = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("fork").Pool(cores) as pool, tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
        for result in pool.imap(compiled, jobs, chunksize=16):
            if result is not None:
                info = tarfile.TarInfo(result[0])
                info.size = len(result[1])
                out.addfile(info, io.BytesIO(result[1]))


if __name__ == "__main__":
    main()
