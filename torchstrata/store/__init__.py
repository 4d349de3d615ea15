"""Bytes by digest: the content store, tars that are written the same way everywhere, codecs, listings."""
