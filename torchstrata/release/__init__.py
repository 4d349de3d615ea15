"""Channels and the ledger: moves of images by digest, and what may go from a registry."""
