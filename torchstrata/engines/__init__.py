"""The container engine: setting one up, asking it, loading images into it."""
