"""From OS packages to layers: the OS image, what each flavour's Dockerfile adds, and BuildKit, which runs it."""
