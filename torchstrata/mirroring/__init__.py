"""Copies of images with everything that refers to them, between registries and directories."""
