"""Finds processes that a story has left running."""

from __future__ import annotations

from pathlib import Path

MARK = "KMS_ACME_STORY"
"""An environment variable of all processes of a story, with the story's own value."""
_PROC = Path("/proc")


def left_running(value: str) -> list[str]:
    """The command lines of all processes with this value of the variable."""
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
