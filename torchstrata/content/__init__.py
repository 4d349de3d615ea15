"""Bytes by digest: the content store, writing layers the same way everywhere, manifests and configs, image layouts."""
