"""Which exact packages: wheels by hash, OS packages by version, and what mirrors and indexes offer."""
