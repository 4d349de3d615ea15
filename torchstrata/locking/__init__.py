"""Which exact packages: wheels by hash, OS packages by version."""
