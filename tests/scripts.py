"""Programs that stand in for others on a test's path."""

from __future__ import annotations

from pathlib import Path


def script(path: Path, text: str, interpreter: str = "/bin/sh") -> Path:
    """Write a program of a shell; return where it is."""
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)
    return path
