"""From a plan to images: what is missing, making it, and what an image tells its users."""
