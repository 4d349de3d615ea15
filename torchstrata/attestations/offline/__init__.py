"""What is put into a directory with images, so that it can be verified where there is neither a network nor this program."""
