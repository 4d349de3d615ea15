"""The machine that this runs on: its apt, root, home, variables, file systems, and what a run leaves there."""
