"""Registries and directories of images, by the OCI distribution and image specifications."""
