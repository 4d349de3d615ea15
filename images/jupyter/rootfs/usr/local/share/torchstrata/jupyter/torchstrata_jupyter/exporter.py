"""Notebook to PDF through nbconvert's HTML and WeasyPrint: no TeX, no browser, no network."""

import os
from pathlib import Path
from typing import Any, Final

from nbconvert.exporters import HTMLExporter
from traitlets import default

PAGE: Final = Path(__file__).with_name("page.css")


class PDFExporter(HTMLExporter):  # type: ignore[misc]  # nbconvert has no types
    """Exports what nbconvert's classic template shows, laid out on A4, with formulas as they are in a browser."""

    export_from_notebook = "PDF"

    @default("template_name")
    def _template_name_default(self) -> str:
        return "basic"

    @default("exclude_anchor_links")
    def _exclude_anchor_links_default(self) -> bool:
        return True

    def from_notebook_node(self, nb: Any, resources: Any = None, **keywords: Any) -> tuple[bytes, Any]:
        """Return the PDF of a notebook."""
        import bs4  # noqa: PLC0415  # a second of loading that listing the exporters need not wait for
        import weasyprint  # noqa: PLC0415
        from pygments.formatters import HtmlFormatter  # noqa: PLC0415

        from torchstrata_jupyter import formulas  # noqa: PLC0415

        html, resources = super().from_notebook_node(nb, resources=resources, **keywords)
        resources["output_extension"] = ".pdf"
        self.output_mimetype = "application/pdf"  # not earlier: templates are chosen by it
        soup = bs4.BeautifulSoup(html, "html.parser")
        formulas.typeset(soup, self.log.warning)
        styles = [weasyprint.CSS(PAGE), weasyprint.CSS(string=HtmlFormatter().get_style_defs(".highlight"))]
        base = resources.get("metadata", {}).get("path") or os.getcwd()  # noqa: PTH109
        return weasyprint.HTML(string=str(soup), base_url=f"{base}/").write_pdf(stylesheets=styles), resources
