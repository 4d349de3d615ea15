"""Programs that run inside a container, by the interpreter of an OS part; standard library only."""
