"""Verification of images: what is verified, against what, what must have run, and what it proves."""
