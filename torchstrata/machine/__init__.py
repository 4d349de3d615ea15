"""A machine that images run on: its engine, driver and GPUs, and which cells fit it."""
