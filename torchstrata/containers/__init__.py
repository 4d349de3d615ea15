"""Containers for people: what one is to be, files that start it elsewhere, and those in this machine's engine."""
