"""Notebook to PDF through nbconvert's HTML and WeasyPrint: no TeX, no browser, no network."""

from typing import Any

from nbconvert.exporters import HTMLExporter, TemplateExporter
from nbconvert.utils.exceptions import ConversionException
from traitlets import Integer, default
from traitlets.config import Application, Config


class PDFExporter(HTMLExporter):  # type: ignore[misc]  # nbconvert has no types
    """Exports what nbconvert's classic template shows, laid out on A4, with formulas as they are in a browser."""

    export_from_notebook = "PDF"
    timeout = Integer(180, min=1, help="Seconds that the layout may take.").tag(config=True)

    @default("template_name")
    def _template_name_default(self) -> str:
        return "basic"

    @default("exclude_anchor_links")
    def _exclude_anchor_links_default(self) -> bool:
        return True

    def from_notebook_node(self, nb: Any, resources: Any = None, **keywords: Any) -> tuple[bytes, Any]:
        """Return the PDF of a notebook. Preprocessors, such as one that runs its cells, work in this process, the layout in a child."""
        from torchstrata_jupyter import rendering  # noqa: PLC0415  # which the child imports without this module's caller

        nb, resources = super(TemplateExporter, self).from_notebook_node(nb, resources, **keywords)
        resources["output_extension"] = ".pdf"
        self.output_mimetype = "application/pdf"
        plain = {name: value for name, value in resources.items() if not callable(value)}
        try:
            return rendering.lay_out((self._sections(), nb, plain), self.timeout, self.log.warning), resources
        except ConversionException as error:
            if Application.initialized() and Application.instance().name == "jupyter-nbconvert":
                raise SystemExit(f"torchstrata: {error}") from None  # instead of nbconvert's traceback
            raise

    def html(self, nb: Any, resources: Any) -> str:
        """Return the HTML page of a notebook whose preprocessors have run."""
        return str(super().from_notebook_node(nb, resources=resources)[0])

    def _sections(self) -> Config:
        """Return what is configured of the layout: other sections have secrets, and functions that cannot be pickled."""
        names = {parent.__name__ for parent in type(self).__mro__} | {"Highlight2HTML"}
        return Config({name: section for name, section in self.config.items() if name in names})
