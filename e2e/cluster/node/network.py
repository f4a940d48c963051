"""The addresses and links of a node: a block of private addresses that is unused on this machine.

    this machine  10.N.0.1 ── veth ── 10.N.0.2  node ── a veth for each pod, 10.N.128.0/17
                                                 └─ Services, 10.N.64.0/18, by kube-proxy

Pods reach each other, Services and 10.N.0.1, where servers of the tests listen. No traffic leaves the machine.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from e2e.cluster.errors import NoNode, StartFailed

INSIDE = "eth0"
"""The node's end of the link."""
_BLOCKS = range(100, 240)
_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Network:
    """A block 10.N.0.0/16."""

    number: int

    @property
    def link(self) -> str:
        """This machine's end of the link to the node."""
        return f"kms-acme{self.number}"

    @property
    def block(self) -> IPv4Network:
        """The whole block."""
        return IPv4Network(f"10.{self.number}.0.0/16")

    @property
    def machine(self) -> str:
        """The address of this machine for pods."""
        return f"10.{self.number}.0.1"

    @property
    def node(self) -> str:
        """The address of the node and of the cluster's DNS server."""
        return f"10.{self.number}.0.2"

    @property
    def services(self) -> str:
        """The Service CIDR."""
        return f"10.{self.number}.64.0/18"

    @property
    def pods(self) -> str:
        """The pod CIDR."""
        return f"10.{self.number}.128.0/17"

    def up(self, init: int) -> None:
        """Link this machine with the namespaces of process `init`.

        Raises:
            StartFailed: the kernel refused.
        """
        ip("link", "add", self.link, "type", "veth", "peer", "name", INSIDE, "netns", str(init))
        ip("address", "add", f"{self.machine}/30", "dev", self.link)
        ip("link", "set", self.link, "up")

        def within(*arguments: str) -> None:
            ip(*arguments, prefix=("nsenter", f"--net=/proc/{init}/ns/net"))

        within("link", "set", "lo", "up")
        within("address", "add", f"{self.node}/30", "dev", INSIDE)
        within("link", "set", INSIDE, "up")
        # Service addresses need a route before kube-proxy's rules can translate them.
        within("route", "add", self.services, "via", self.machine)
        for each in (self.services, self.pods):
            ip("route", "add", each, "via", self.node)

    def down(self) -> None:
        """Remove the link and its routes, if it still exists."""
        try:
            ip("link", "delete", self.link)
        except StartFailed:
            # The kernel removes it, too, when the last process of the node ends.
            if self.link in {each["ifname"] for each in _told("link", "show")}:
                raise


def free(used: Iterable[IPv4Network]) -> Network:
    """Find a block that overlaps none of the used networks.

    Raises:
        NoNode: no block is free.
    """
    taken = list(used)
    unused = [number for number in _BLOCKS if not any(Network(number).block.overlaps(each) for each in taken)]
    if not unused:
        raise NoNode("All of 10.100.0.0 to 10.239.255.255 is in use on this machine: no addresses for a node.")
    return Network(secrets.choice(unused))


def ip(*arguments: str, prefix: Iterable[str] = ()) -> None:
    """Run iproute2's ip.

    Raises:
        StartFailed: with its error message.
    """
    command = [*prefix, "ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode != 0:
        raise StartFailed(f"{' '.join(command)}: {done.stderr.strip()}")


def used() -> list[IPv4Network]:
    """The networks of this machine's addresses and routes."""
    return touched(_told("-4", "route", "show", "table", "all"), _told("-4", "address", "show"))


def touched(routes: Iterable[Mapping[str, Any]], links: Iterable[Mapping[str, Any]]) -> list[IPv4Network]:
    """The networks in the output of `ip -json` for routes and for addresses."""
    destinations = [each["dst"] for each in routes if each["dst"] != "default"]
    addresses = [
        f"{address['local']}/{address['prefixlen']}" for link in links for address in link.get("addr_info", ())
    ]
    return [IPv4Interface(each).network for each in (*destinations, *addresses)]


def _told(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True, timeout=_LIMIT, check=True)
    return [each for each in json.loads(done.stdout or "[]") if each]
