"""From a plan to images: what is missing, making it, and composing manifests."""
