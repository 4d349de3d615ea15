"""What differs between a container and its image, and the files that make the difference an image."""
