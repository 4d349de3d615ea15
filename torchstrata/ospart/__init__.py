"""From OS packages to layers: the OS image, what each flavour's Dockerfile adds, BuildKit, which runs it, and what mirrors offer."""
