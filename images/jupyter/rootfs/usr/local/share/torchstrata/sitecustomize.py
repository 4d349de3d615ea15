# torchstrata
"""Read by every Python at its start: Chinese, Japanese and Korean text in matplotlib's figures (torchstrata_jupyter/fonts.py)."""

import sys


class _Fonts:
    """Extends modules of matplotlib when they are imported."""

    modules = ("matplotlib.font_manager", "matplotlib._mathtext")

    @classmethod
    def find_spec(cls, name: str, path=None, target=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN206
        """Return how a module is loaded; None for all but these."""
        if name not in cls.modules:
            return None
        import runpy  # noqa: PLC0415  # few programs draw
        from importlib.machinery import PathFinder  # noqa: PLC0415

        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            load = spec.loader.exec_module
            extend = runpy.run_path("/usr/local/share/torchstrata/jupyter/torchstrata_jupyter/fonts.py")["extend"]
            spec.loader.exec_module = lambda module: (load(module), extend(module))[0]  # type: ignore[func-returns-value, method-assign]
        return spec


sys.meta_path.insert(0, _Fonts)
