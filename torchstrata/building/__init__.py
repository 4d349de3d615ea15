"""From a plan to images: what is missing, making it, and the container engine that takes them."""
