"""Bytes by digest: the content store, writing layers the same way everywhere, and image layouts."""
