"""What must hold of an image, what was tested of it, and the evidence."""
