"""Addresses to listen on or to connect to, and networks."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; an empty host stands for all interfaces."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`, `:port`, `[ipv6]:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
