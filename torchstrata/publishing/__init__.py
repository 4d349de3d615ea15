"""What a build and a push have to do with a registry: parts found there, blobs put there, what is attached."""
