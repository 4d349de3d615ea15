"""Additions to Jupyter: examples beside the workspace, PDF without TeX."""
