"""Where challenge connections may go.

An internal CA validates hosts of private networks, so those are allowed. Denied are the addresses that need no
certificate and that attackers want to reach: loopback, link-local with its metadata services, multicast, and every form
of writing one of these addresses inside another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from acme_server.settings import ValidationSettings
from kms.address import IPAddress, Network

_DENIED = (
    ("this network", "0.0.0.0/8"),
    ("loopback", "127.0.0.0/8"),
    ("link-local", "169.254.0.0/16"),
    ("protocol assignments", "192.0.0.0/24"),
    ("multicast", "224.0.0.0/4"),
    ("reserved", "240.0.0.0/4"),
    ("metadata service", "100.100.100.200/32"),  # Alibaba
    ("metadata service", "168.63.129.16/32"),  # Azure
    ("unspecified", "::/128"),
    ("loopback", "::1/128"),
    ("metadata service", "fd00:ec2::/32"),  # AWS: metadata, EKS Pod Identity, DNS, NTP
    ("metadata service", "fd20:ce::254/128"),  # Google
    ("metadata service", "fd00:c1::a9fe:a9fe/128"),  # Oracle
    ("metadata service", "fd00:42::42/128"),  # Scaleway
    ("metadata service", "fd00:a9fe:a9fe::1/128"),  # Akamai (Linode)
    ("metadata service", "fd00:100::100:200/128"),  # Alibaba
    ("an IPv4 address in IPv6 form", "::/96"),
    ("an IPv4 address in IPv6 form", "::ffff:0:0/96"),
    ("an IPv4 address in IPv6 form", "::ffff:0:0:0/96"),
    ("translated to IPv4", "64:ff9b::/96"),
    ("translated to IPv4", "64:ff9b:1::/48"),
    ("discard-only", "100::/64"),
    ("a tunnel", "2001::/32"),
    ("a tunnel", "2002::/16"),
    ("link-local", "fe80::/10"),
    ("site-local", "fec0::/10"),
    ("multicast", "ff00::/8"),
)
_DENIED_NETWORKS = tuple((reason, ip_network(text)) for reason, text in _DENIED)


class AddressFilter:
    """Decides about single addresses: the connector asks it about the very address that it connects to."""

    def __init__(self, settings: ValidationSettings) -> None:
        self._allow = settings.allow
        self._deny = settings.deny

    def objection(self, address: IPAddress) -> str | None:
        """Why this address must not be contacted; None if it may be.

        `--validation-allow` wins over `--validation-deny`, and both over the default.
        """
        if _within(address, self._allow):
            return None
        if _within(address, self._deny):
            return "denied by --validation-deny"
        return next((reason for reason, network in _DENIED_NETWORKS if address in network), None)


def _within(address: IPAddress, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
