"""Layers become an image: manifest, config, and what it tells its users; archives and layouts."""
