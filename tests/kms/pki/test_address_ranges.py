"""Ranges of addresses agree with the addresses themselves."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from kms.address import Network
from kms.pki.address_ranges import AddressRanges

UNIVERSE = [ipaddress.ip_network(f"10.0.0.{number}/32") for number in range(16)]
NETWORKS = st.lists(
    st.builds(
        lambda number, bits: ipaddress.ip_network((0x0A000000 + (number >> bits << bits), 32 - bits)),
        st.integers(0, 15),
        st.integers(0, 3),
    ),
    max_size=5,
)


def members(ranges: AddressRanges) -> set[int]:
    return {number for number, each in enumerate(UNIVERSE) if ranges.meets(each)}


def inside(networks: list[Network]) -> set[int]:
    return {n for n, each in enumerate(UNIVERSE) if any(each.network_address in network for network in networks)}


@given(NETWORKS, NETWORKS)
def test_ranges_are_sets_of_addresses(some: list[Network], others: list[Network]) -> None:
    one, other = AddressRanges.of(some), AddressRanges.of(others)
    assert members(one) == inside(some)
    assert members(one & other) == inside(some) & inside(others)
    assert members(one - other) == inside(some) - inside(others)
    assert bool(one) == bool(some)
    for each in some:
        assert other.covers(each) == (inside([each]) <= inside(others))


def test_the_last_ipv4_address_does_not_touch_the_first_ipv6_address() -> None:
    last, first = ipaddress.ip_network("255.255.255.255/32"), ipaddress.ip_network("::/128")
    ranges = AddressRanges.of([last, first, ipaddress.ip_network("::/64")])
    assert ranges.covers(ipaddress.ip_network("::/64"))
    assert not (ranges - AddressRanges.of([first, ipaddress.ip_network("::/64")])).meets(first)
    assert (ranges - AddressRanges.of([first])).meets(last)
