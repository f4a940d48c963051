from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.settings import ValidationSettings
from acme_server.validation.net.address_filter import AddressFilter


def objection(text: str, **settings: tuple[str, ...]) -> str | None:
    networks = {name: tuple(ip_network(each) for each in texts) for name, texts in settings.items()}
    return AddressFilter(ValidationSettings(**networks)).objection(ip_address(text))  # type: ignore[arg-type]


@pytest.mark.requirement("155", "SEC43", "SEC85")
@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "169.254.0.1",
        "192.0.0.192",
        "224.0.0.251",
        "239.255.255.255",
        "255.255.255.255",
        "240.0.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "::ffff:0:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd00:ec2::123",
        "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "fe80::a9fe:a9fe",
        "169.254.170.23",
    ],
)
def test_what_no_certificate_is_for_is_denied(address: str) -> None:
    assert objection(address)


@pytest.mark.requirement("SEC43")
@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "8.8.8.8",
        "fd00::1",
        "fd00:ec3::1",
        "2001:db8::1",
        "2a00::1",
    ],
)
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    assert objection(address) is None


def test_deny_adds_to_the_defaults() -> None:
    assert objection("10.96.0.1", deny=("10.96.0.0/12",)) == "denied by --validation-deny"
    assert objection("127.0.0.1", deny=("10.96.0.0/12",)) == "loopback"


@pytest.mark.requirement("155")
def test_allow_wins_over_deny_and_over_the_defaults() -> None:
    assert objection("10.96.0.7", deny=("10.96.0.0/12",), allow=("10.96.0.7/32",)) is None
    assert objection("127.0.0.1", allow=("127.0.0.0/8",)) is None
    assert objection("127.0.0.1", allow=("127.0.0.0/8",), deny=("127.0.0.0/8",)) is None
    assert objection("::1", allow=("127.0.0.0/8",)) == "loopback"


@pytest.mark.requirement("SEC43")
def test_allowing_an_ipv4_network_does_not_allow_its_ipv6_spellings() -> None:
    assert objection("::ffff:127.0.0.1", allow=("127.0.0.0/8",))


@pytest.mark.requirement("SEC43")
@given(st.ip_addresses())
def test_no_address_that_python_calls_special_for_hosts_is_allowed(address: object) -> None:
    text = str(address)
    parsed = ip_address(text)
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        assert objection(text)
