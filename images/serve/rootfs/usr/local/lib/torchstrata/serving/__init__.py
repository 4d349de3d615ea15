"""The inference server: pictures in, classes out, with Mosec; what runs is said by variables (docs/flavours.md)."""
