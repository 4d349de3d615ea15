"""The inference server: pictures in, classes out, with Mosec; variables say what runs (docs/flavours.md)."""
