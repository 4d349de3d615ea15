"""Converts a notebook in a process of its own, with limits: whatever a notebook does to it, the server goes on answering.

Notebooks come from others. Their HTML and formulas may take for ever, or all memory, and may name files that are not the author's.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mimetypes
import os
import pickle
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from nbconvert.utils.exceptions import ConversionException

PAGE: Final = Path(__file__).with_name("page.css")
START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from torchstrata_jupyter import rendering; rendering.main()"
MEMORY: Final = 4 << 30
PICTURE: Final = 64 << 20
"""Bytes of a file that a notebook shows."""

LINES: Final = 50
"""Of a child's log that the parent passes on; :data:`WIDTH` is what it passes on of one."""

WIDTH: Final = 200
SECONDS: Final = 180
"""For a conversion to anything but PDF."""

CONFIGURED: Final = ("Exporter", "Preprocessor", "NbConvertBase", "2HTML", "2Latex")
"""Endings of the names of those sections of a configuration that conversions read; others have secrets."""


def limited(exporter: Any) -> Any:
    """Return an exporter of the server that converts in a child; the one to PDF does so by itself, for commands, too."""
    from torchstrata_jupyter.exporter import PDFExporter  # noqa: PLC0415  # it imports this module

    if not isinstance(exporter, PDFExporter):
        exporter.from_notebook_node = functools.partial(_converted, exporter)
    return exporter


def _converted(exporter: Any, nb: Any, resources: Any) -> tuple[Any, Any]:
    """Return what an exporter makes of a notebook in a child, and its resources."""
    config = type(exporter.config)({name: section for name, section in exporter.config.items() if name.endswith(CONFIGURED)})
    settings = {name: getattr(exporter, name) for name in ("sanitize_html",) if hasattr(exporter, name)}
    try:
        job = pickle.dumps((_convert, type(exporter), config, settings, nb, resources))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        exporter.log.warning("torchstrata: converted in the server, without limits, since its configuration cannot be handed over: %s", error)
        return type(exporter).from_notebook_node(exporter, nb, resources)  # type: ignore[no-any-return]  # nbconvert has no types
    output, exporter.output_mimetype, resources = pickle.loads(in_child(job, "document", SECONDS, exporter.log.warning))  # noqa: S301  # of this user's
    return output, resources


def _convert(kind: Any, config: Any, settings: dict[str, Any], nb: Any, resources: Any) -> bytes:
    exporter = kind(config=config, log=_log())
    for name, value in settings.items():
        setattr(exporter, name, value)
    output, resources = exporter.from_notebook_node(nb, resources)
    return pickle.dumps((output, exporter.output_mimetype, {name: resources[name] for name in ("output_extension", "outputs") if name in resources}))


def lay_out(job: tuple[Any, Any, Any], seconds: int, complain: Callable[[str], None]) -> bytes:
    """Return the PDF of a notebook.

    :param job: configuration, notebook and resources.
    :param seconds: that it may take.
    :param complain: is given a line for each thing that the PDF lacks.
    :raises ConversionException: with one line: why there is none.
    """
    return in_child(pickle.dumps((_lay_out, *job)), "PDF", seconds, complain)


def in_child(job: bytes, name: str, seconds: int, complain: Callable[[str], None]) -> bytes:
    """Return what a function of this module makes in a child with limits.

    :param job: the function and its arguments, pickled.
    :param name: what it makes, in messages.
    :param seconds: that it may take.
    :param complain: is given a line for each thing that is left out.
    :raises ConversionException: with one line: why there is no result.
    """
    command = [sys.executable, "-I", "-c", START, str(Path(__file__).parents[1]), str(seconds), name]
    late = f"the {name} took more than {seconds} s - export parts of the notebook"
    if name == "PDF":
        late += ", or set PDFExporter.timeout"
    try:
        done = subprocess.run(command, input=job, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ConversionException(late) from None
    lines = done.stderr.decode(errors="replace").splitlines()
    if done.returncode:
        raise ConversionException(lines[-1] if done.returncode == 1 and lines else late)
    for line in lines:
        complain(line)
    return done.stdout


def main() -> None:
    """Do the job that comes on standard input, and write its result to standard output; in the child."""
    _limit(int(sys.argv[2]))
    output = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no part of the result
    try:
        work, *arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  # of the parent
        result = work(*arguments)
    except Exception as error:  # noqa: BLE001  # whatever a library comes upon
        sys.exit(_reason(error, sys.argv[3])[:WIDTH])
    with os.fdopen(output, "wb") as file:
        file.write(result)


def _limit(seconds: int) -> None:
    """Bound CPU time and memory of this process, and let the kernel end it first."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, limit in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, MEMORY)):
        hard = resource.getrlimit(kind)[1]
        if hard in {resource.RLIM_INFINITY, -1} or hard > limit:
            resource.setrlimit(kind, (limit, limit))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory is short, it goes and not the server


def _reason(error: Exception, name: str) -> str:
    """Return in one line why there is no result, with a cure for what a person can change."""
    if isinstance(error, RecursionError):
        return f"no {name}: the notebook's HTML has too many elements in each other - clear that output"
    if isinstance(error, MemoryError):
        return f"no {name}: it takes more than {MEMORY >> 30} GiB of memory - export parts of the notebook"
    return f"no {name}: {type(error).__name__}: {' '.join(str(error).split())}"


def _lay_out(config: Any, nb: Any, resources: Any) -> bytes:
    """Return the PDF of a notebook; in the child."""
    import bs4  # noqa: PLC0415  # the parent needs none of these
    import weasyprint  # noqa: PLC0415
    from pygments.formatters import HtmlFormatter  # noqa: PLC0415

    from torchstrata_jupyter import exporter, formulas  # noqa: PLC0415

    log = _log()
    page = exporter.PDFExporter(config=config, preprocessors=[], default_preprocessors=[], log=log).html(nb, resources)
    soup = bs4.BeautifulSoup(page, "html.parser")
    formulas.typeset(soup, log.warning)
    for element in soup.find_all(rel=True):
        if "attachment" in str(element["rel"]).lower():
            del element["rel"]  # else WeasyPrint puts the file into the PDF
    base = Path(resources.get("metadata", {}).get("path") or Path.cwd()).resolve()
    styles = [weasyprint.CSS(PAGE), weasyprint.CSS(string=HtmlFormatter().get_style_defs(".highlight"))]
    html = weasyprint.HTML(string=str(soup), base_url=f"{base}/", url_fetcher=_fetcher(base, log.warning))
    return bytes(html.write_pdf(stylesheets=styles))


def _log() -> logging.Logger:
    """Return a logger whose first lines go to the parent."""
    log, handler = logging.getLogger("torchstrata"), logging.StreamHandler()
    left = iter(range(LINES))
    handler.addFilter(lambda _: next(left, None) is not None)
    handler.setFormatter(logging.Formatter(f"%(message).{WIDTH}s"))
    log.addHandler(handler)
    log.propagate = False
    return log


def _fetcher(base: Path, complain: Callable[[str], None]) -> Any:
    """Return what gives WeasyPrint data in the page and files below the notebook's directory, and nothing else."""
    from weasyprint.urls import URLFetcher, URLFetcherResponse  # noqa: PLC0415

    class Fetcher(URLFetcher):  # type: ignore[misc]  # WeasyPrint has no types
        def fetch(self, url: str, headers: Any = None) -> Any:
            if url[:5].lower() == "data:":
                return super().fetch(url, headers)
            try:
                return URLFetcherResponse(url, read(url, base), {"Content-Type": mimetypes.guess_type(urlsplit(url).path)[0] or "text/plain"})
            except (OSError, ValueError) as error:
                complain(f"left out of the PDF: {url[:100]!r}: {getattr(error, 'strerror', None) or error}")
                raise

    return Fetcher()


def read(url: str, base: Path) -> bytes:
    """Return a file that a notebook names.

    :raises ValueError: it is not below ``base``, no file, or too large.
    :raises OSError: it cannot be read.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc:
        raise ValueError("only files are read, none of the network")
    path = Path(url2pathname(parts.path)).resolve(strict=True)
    if not path.is_relative_to(base):
        raise ValueError("it is not below the notebook's directory")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123  # a descriptor
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(PICTURE + 1)
    if len(content) > PICTURE:
        raise ValueError(f"it is larger than {PICTURE >> 20} MiB")
    return content
