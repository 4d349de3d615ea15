"""Notebook to PDF through nbconvert's HTML and WeasyPrint: no TeX, no browser."""

import os
from typing import Any

from nbconvert.exporters import HTMLExporter
from traitlets import default

PAGE = "@page { size: A4; margin: 15mm } body { font-size: 10pt } img, svg { max-width: 100% } pre { white-space: pre-wrap }"


class PaperExporter(HTMLExporter):  # type: ignore[misc]  # nbconvert has no types
    """Exports what nbconvert's classic template shows, laid out on A4."""

    export_from_notebook = "PDF (WeasyPrint)"

    @default("template_name")
    def _template_name_default(self) -> str:
        return "classic"

    def from_notebook_node(self, nb: Any, resources: Any = None, **keywords: Any) -> tuple[bytes, Any]:
        """Return the PDF of a notebook."""
        import weasyprint  # noqa: PLC0415  # a second of loading that listing the exporters need not wait for

        html, resources = super().from_notebook_node(nb, resources=resources, **keywords)
        resources["output_extension"] = ".pdf"
        self.output_mimetype = "application/pdf"  # not earlier: templates are chosen by it
        base = resources.get("metadata", {}).get("path") or os.getcwd()  # noqa: PTH109
        return weasyprint.HTML(string=html, base_url=f"{base}/").write_pdf(stylesheets=[weasyprint.CSS(string=PAGE)]), resources
