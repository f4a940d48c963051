"""Which processes a story has left behind."""

from __future__ import annotations

from pathlib import Path

MARK = "KMS_ACME_STORY"
"""In the environment of all that a story starts, with a value of the story's own."""
_PROC = Path("/proc")


def left_running(value: str) -> list[str]:
    """The command lines of all processes that carry the mark with this value."""
    mark = f"{MARK}={value}".encode()
    found = []
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found
