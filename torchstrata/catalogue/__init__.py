"""A static site about images, for people who have no checkout: what there is, which one fits, and why it can be trusted."""
