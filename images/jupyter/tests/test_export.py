"""Exporting notebooks, by command and from the menu: whatever is offered works, and a PDF has all of the notebook."""

from __future__ import annotations

import base64
import json
import re
import zlib

import pytest

from tests.images.boxes import READY

TOKEN = "a-token-of-mine"
PLOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
LINES = "".join(f"line {number}\n" for number in range(60))
OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": LINES},
    {"output_type": "display_data", "metadata": {}, "data": {"image/png": PLOT}},
    {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<table><tr><td>recall</td></tr></table>", "text/plain": "recall"}},
    {"output_type": "display_data", "metadata": {}, "data": {"text/latex": "$\\frac{a}{b}$", "text/plain": "a/b"}},
]
CELLS = [
    {"cell_type": "markdown", "metadata": {}, "source": "# Title\n\n$a^2$ 深度学习 こんにちは 안녕하세요\n\n\\begin{align}\na &= b \\\\\nc &= d\n\\end{align}"},
    {"cell_type": "code", "metadata": {}, "execution_count": 1, "source": "model.fit()", "outputs": OUTPUTS},
]
NOTEBOOK = {
    "cells": CELLS,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python", "file_extension": ".py"}},
    "nbformat": 4,
    "nbformat_minor": 4,
}
"""A notebook that was run: with more lines than a page has, a plot of one pixel, a table, formulas, and text in three scripts."""

NEED_OPTIONS = {"custom"}
"""Exporters that ask for a template, and are not in the menu."""


@pytest.fixture(scope="module")
def box(start_shared):
    """A container with Jupyter and the notebook."""
    box = start_shared(environment={"JUPYTER_TOKEN": TOKEN})
    box.wait_for(READY)
    box.put("/workspace/a.ipynb", json.dumps(NOTEBOOK).encode())
    return box


@pytest.fixture(scope="module")
def offered(box):
    """The exporters that JupyterLab's menu asks the server for."""
    shown = box.run("curl", "-s", "-H", f"Authorization: token {TOKEN}", "http://127.0.0.1:8888/api/nbconvert").out
    return set(json.loads(shown)) - NEED_OPTIONS


def test_menu(offered):
    """The menu has these exporters, and none that needs TeX, pandoc or a browser."""
    assert offered == {"html", "markdown", "notebook", "pdf", "python", "script", "slides"}


def test_whatever_is_offered_works(box, offered):
    """The server exports a notebook in every form that it offers."""
    links = [f"http://127.0.0.1:8888/nbconvert/{name}/a.ipynb?download=true" for name in sorted(offered)]
    words = [word for link in links for word in ("-o", "/dev/null", link)]
    done = box.run("curl", "-s", "-w", "%{http_code}\n", "-H", f"Authorization: token {TOKEN}", *words)
    assert done.out.split() == ["200"] * len(offered), box.log


@pytest.mark.parametrize("name", ["latex", "webpdf"])
def test_what_does_not_work_says_so(box, name):
    """One that lacks its programs is disabled, and says that."""
    done = box.run("jupyter", "nbconvert", "--to", name, "/workspace/a.ipynb")
    assert (done.status, f'Exporter "{name}" disabled in configuration' in done.err) == (1, True)


@pytest.fixture(scope="module")
def exported(box):
    """What the command has written beside a notebook."""
    box.put("/tmp/a.ipynb", json.dumps(NOTEBOOK).encode())
    done = box.run("torchstrata-export", "/tmp/a.ipynb")
    assert done.status == 0, done.err
    (content, _) = box.container.get_archive("/tmp/a.pdf")
    return done, b"".join(content)


def parts(pdf):
    """Return the text of a PDF's objects, those in compressed streams included."""
    streams = [match[1] for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL)]
    return b"\n".join([pdf, *(zlib.decompressobj().decompress(stream) for stream in streams if stream[:1] == b"\x78")])


def test_pdf_has_all_pages(exported):
    """A long output goes on on the next page."""
    assert len(re.findall(rb"/Type\s*/Page\b", parts(exported[1]))) == 2


def test_pdf_has_glyphs(exported):
    """Text in Chinese, Japanese and Korean is set in the font that has it, plots are there, and nothing is complained of."""
    done, pdf = exported
    assert b"WenQuanYi" in parts(pdf)
    assert pdf.count(b"/Subtype /Image") == 1
    assert [line for line in done.err.splitlines() if not line.startswith("[NbConvertApp] ")] == []
    assert "stays TeX" not in done.err


def test_html(box, exported):
    """HTML has code and all kinds of outputs."""
    html = box.run("cat", "/tmp/a.html").out
    assert exported[0].status == 0
    assert [word for word in ("Title", "line 59", PLOT, "<td>recall</td>") if word not in html] == []


DRAW = """
import json, re, sys
sys.path.insert(0, "/usr/local/share/torchstrata/jupyter")
import bs4
from torchstrata_jupyter import formulas
soup, said = bs4.BeautifulSoup(sys.argv[1], "html.parser"), []
formulas.typeset(soup, said.append)
images = soup.find_all("img")
heights = [float(re.search(r'height="([0-9.]+)"', __import__("base64").b64decode(image["src"].split(",")[1]).decode())[1]) for image in images]
print(json.dumps({"text": soup.get_text(), "alt": [image["alt"] for image in images], "heights": heights, "said": said}))
"""


def drawn(box, html):
    """Return what the formulas of a page have become."""
    done = box.run("/opt/venv/bin/python", "-c", DRAW, html)
    assert done.status == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize(
    ("html", "formulas", "text"),
    [
        ("a $x^2$ b", ["x^2"], "a  b"),
        (r"$$x$$ \(y\) \[z\]", ["x", "y", "z"], "  "),
        (r"\begin{align}a &amp;= b\\c &amp;= d\end{align}", [r"\begin{align}a &= b\\c &= d\end{align}"], ""),
        (r"\begin{equation}\label{e} a \tag{1}\end{equation}", [r"\begin{equation}\label{e} a \tag{1}\end{equation}"], ""),
        (r"\begin{pmatrix}1&amp;2\\3&amp;4\end{pmatrix} $\text{损失} = 1$", [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\text{损失} = 1"], " "),
        (r"<code>$x$</code><pre>$y$</pre><td class='tex2jax_ignore'>$z$</td> 5 \$ and 6 \$", [], "$x$$y$$z$ 5 $ and 6 $"),
        (r"$\frac{a$", [], r"$\frac{a$"),
    ],
    ids=["inline", "delimiters", "align", "tag", "matrix and Chinese", "none", "broken"],
)
def test_formulas(box, html, formulas, text):
    """What MathJax would take for a formula becomes a picture; code, escaped dollars and what cannot be read stay text."""
    found = drawn(box, html)
    assert (found["alt"], found["text"]) == (formulas, text)
    assert len(found["said"]) == text.count(r"\frac")


def test_brackets_around_sums(box):
    """Brackets are as high as the sum between them."""
    plain, bracketed = drawn(box, r"$$\sum_t x$$ $$\left[\sum_t x\right]$$")["heights"]
    assert bracketed < 2 * plain


@pytest.mark.costly
@pytest.mark.parametrize(
    ("tex", "said"),
    [(rf"${nested * 21}x{end * 21}$", "nested more than 20") for nested, end in ((r"\sqrt{", "}"), (r"\left(", r"\right)"))]
    + [("$" + r"\sqrt" * 900 + "x$", "stays TeX"), (r"\begin{a}" * 9000, ""), (r"\tag{" * 9000 + "$" + r"\tag{" * 9000 + "$", ""), (r"$ \[ " * 9000, "")],
    ids=["braces", "brackets", "commands", "beginnings", "tags", "delimiters"],
)
def test_formulas_that_take_long(box, tex, said):
    """A formula that is nested deeply or has no end stays TeX, and costs seconds."""
    done = box.run("timeout", "60", "/opt/venv/bin/python", "-c", DRAW, tex)
    assert done.status == 0, done.err
    assert [line for line in json.loads(done.out)["said"] if said not in line] == []


@pytest.mark.costly
def test_formulas_beyond_a_thousand(box):
    """Of many formulas those after the first thousand stay TeX."""
    found = drawn(box, "$x$ " * 1003)
    assert (len(found["alt"]), found["text"].split()) == (1000, ["$x$"] * 3)


def shown(html):
    """Return a notebook with an output of HTML."""
    output = {"output_type": "display_data", "metadata": {}, "data": {"text/html": html}}
    return json.dumps({**NOTEBOOK, "cells": [{**CELLS[1], "outputs": [output]}]}).encode()


def export(box, html, *options):
    """Return how the export of an output went."""
    assert box.run("mkdir", "-p", "/tmp/hostile").status == 0
    box.put("/tmp/hostile/a.ipynb", shown(html))
    return box.run("timeout", "120", "jupyter", "nbconvert", "--to", "pdf", *options, "/tmp/hostile/a.ipynb")


ELSEWHERE = ("file:///etc/passwd", "http://127.0.0.1:8888/api", "file:///tmp/fifo", "file:///dev/zero", "link.png")
MENTIONS = '<img alt="" src="{0}"><a rel="attachment" href="{0}">a</a><link rel="attachment" href="{0}">'


@pytest.mark.costly
def test_pdf_takes_what_lies_beside_the_notebook(box):
    """Pictures below the notebook's directory are shown; no file elsewhere, device, pipe or address is read, and nothing is attached."""
    assert box.run("sh", "-c", "mkfifo /tmp/fifo; mkdir -p /tmp/hostile; ln -s /etc/passwd /tmp/hostile/link.png").status == 0
    box.put("/tmp/hostile/plot.png", base64.b64decode(PLOT))
    done = export(box, '<img alt="" src="plot.png">' + "".join(MENTIONS.format(url) for url in ELSEWHERE))
    assert done.status == 0, done.err
    pdf = parts(b"".join(box.container.get_archive("/tmp/hostile/a.pdf")[0]))
    assert (pdf.count(b"/Subtype /Image"), b"EmbeddedFile" in pdf, b"root:x:0" in pdf) == (1, False, False)
    assert [url for url in ELSEWHERE if f"{url}': " not in done.err] == []


def bomb():
    """Return an image that has a hundred million rectangles."""
    groups = "".join(f'<g id="a{level}">' + f'<use href="#a{level - 1}"/>' * 10 + "</g>" for level in range(1, 9))
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg"><g id="a0"><rect width="1" height="1"/></g>{groups}<use href="#a8"/></svg>'
    return f'<img alt="" src="data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}">'


@pytest.mark.costly
@pytest.mark.parametrize(
    ("html", "seconds", "said"), [(bomb(), 20, "more than 20 s"), ("<div>" * 3000, 180, "too many elements in each other")], ids=["long", "deep"]
)
def test_layout_has_limits(box, html, seconds, said):
    """What takes too long or is nested too deeply ends in one line."""
    done = export(box, html, f"--PDFExporter.timeout={seconds}")
    lines = [line for line in done.err.splitlines() if not line.startswith("[NbConvertApp] ")]
    assert (done.status, len(lines), said in done.err) == (1, 1, True), done.err


@pytest.mark.costly
@pytest.mark.parametrize("form", ["pdf", "html"])
def test_server_answers_meanwhile(box, form):
    """An export that does not end keeps neither users nor the probe of health from the server."""
    box.put("/workspace/dollars.ipynb", json.dumps({**NOTEBOOK, "cells": [{**CELLS[0], "source": "$ " + r"\[ " * 30000}]}).encode())
    link = f"http://127.0.0.1:8888/nbconvert/{form}/dollars.ipynb"
    box.container.exec_run(["curl", "-s", "-o", "/dev/null", "-H", f"Authorization: token {TOKEN}", link], detach=True)
    box.until(lambda: box.run("pgrep", "-f", "rendering.main").status == 0, "the conversion")
    statuses = [box.run("sh", "-c", "sleep 1; torchstrata-health").status for _ in range(5)]
    assert box.run("pkill", "-f", "rendering.main").status == 0
    assert statuses == [0] * 5


@pytest.mark.parametrize(("asked", "kept"), [("false", True), ("true", False)])
def test_html_of_the_server(box, asked, kept):
    """The server's HTML has what the notebook has, and scripts where that is not asked against."""
    box.put("/workspace/script.ipynb", shown("<b>recall</b><script>mine()</script>"))
    link = f"http://127.0.0.1:8888/nbconvert/html/script.ipynb?sanitize_html={asked}"
    html = box.run("curl", "-sf", "-H", f"Authorization: token {TOKEN}", link).out
    assert ("<b>recall</b>" in html, "<script>mine()</script>" in html) == (True, kept)


def test_server_says_why_there_is_no_document(box):
    """What a notebook makes impossible ends in one line for who asked."""
    box.put("/workspace/lacking.ipynb", json.dumps({**NOTEBOOK, "cells": [{**CELLS[0], "source": "![a](attachment:a.png)"}]}).encode())
    done = box.run("curl", "-s", "-w", "%{http_code}", "-H", f"Authorization: token {TOKEN}", "http://127.0.0.1:8888/nbconvert/html/lacking.ipynb")
    assert (done.out[-3:], "no document: " in done.out) == ("500", True), done.out
