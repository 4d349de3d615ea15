"""What is attached to an image and who vouches for it: record, SBOMs, provenance, signatures, seals."""
