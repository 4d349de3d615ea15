"""Exact versions: wheels by hash, OS packages by version, what this program itself needs."""
