"""Addresses of a node."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest

from e2e.cluster.errors import NoNode
from e2e.cluster.node.network import Network, free, touched


def test_a_block_that_anything_touches_is_not_taken() -> None:
    all_but_one = [IPv4Network(f"10.{number}.7.0/24") for number in range(100, 240) if number != 177]
    assert free(all_but_one) == Network(177)


def test_where_all_blocks_are_used_a_person_is_told() -> None:
    with pytest.raises(NoNode, match=r"10\.100\.0\.0 to 10\.239\.255\.255 is in use"):
        free([IPv4Network("10.0.0.0/8")])


def test_the_parts_of_a_block_do_not_overlap_and_are_private() -> None:
    network = Network(123)
    services, pods = IPv4Network(network.services), IPv4Network(network.pods)
    assert not services.overlaps(pods)
    for each in (services, pods):
        assert each.subnet_of(network.block)
        assert not {ip_address(network.machine), ip_address(network.node)} & {*each}
    assert network.block.is_private


def test_the_name_of_the_link_is_one_that_the_kernel_takes() -> None:
    assert len(Network(239).link) <= 15


def test_routes_and_addresses_are_read_as_ip_tells_them() -> None:
    routes = [
        {"dst": "default", "gateway": "192.0.2.1"},
        {"dst": "10.150.0.0/16"},
        {"type": "local", "dst": "10.9.8.7"},
    ]
    links: list[dict[str, Any]] = [
        {"ifname": "lo"},
        {"ifname": "eth0", "addr_info": [{"local": "10.151.2.3", "prefixlen": 24}]},
    ]
    assert touched(routes, links) == [
        IPv4Network("10.150.0.0/16"),
        IPv4Network("10.9.8.7/32"),
        IPv4Network("10.151.2.0/24"),
    ]
