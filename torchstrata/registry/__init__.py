"""Registries, by the OCI distribution specification: the client of one; pushes, parts and copies."""
