"""Where to listen or where to send."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; an empty host stands for all interfaces."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`, `:port`, `[ipv6]:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
