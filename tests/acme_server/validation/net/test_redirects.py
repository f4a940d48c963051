from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.validation.net.redirects import PORTS, FetchURL, RedirectRefused, challenge_url, resolve_redirect
from kms.pki.names import dns_name, ip_address
from kms.resources.orders import Identifier

FIRST = challenge_url(Identifier(type="dns", value="web.example.com"), "token", port=80)


def follow(location: str, start: FetchURL = FIRST) -> FetchURL:
    return resolve_redirect(start, location.encode(), ports=PORTS)


@pytest.mark.parametrize(
    ("location", "url", "host"),
    [
        ("/a/b?c=d", "http://web.example.com/a/b?c=d", "web.example.com"),
        ("x", "http://web.example.com/.well-known/acme-challenge/x", "web.example.com"),
        ("https://WEB.example.com", "https://web.example.com/", "web.example.com"),
        ("//other.example.com/x", "http://other.example.com/x", "other.example.com"),
        ("https://other.example.com:80/", "https://other.example.com:80/", "other.example.com:80"),
        ("http://other.example.com:443/", "http://other.example.com:443/", "other.example.com:443"),
        ("?q", "http://web.example.com/.well-known/acme-challenge/token?q", "web.example.com"),
    ],
)
def test_locations_are_resolved(location: str, url: str, host: str) -> None:
    found = follow(location)
    assert (str(found), found.host) == (url, host)


@pytest.mark.requirement("IP-M3")
def test_an_ipv6_identifier_is_bracketed() -> None:
    found = challenge_url(Identifier(type="ip", value="fd00::1"), "token", port=8080)
    assert str(found) == "http://[fd00::1]:8080/.well-known/acme-challenge/token"
    assert found.host == "[fd00::1]"


ADDRESS = challenge_url(Identifier(type="ip", value="10.0.0.1"), "token", port=80)
IPV6 = challenge_url(Identifier(type="ip", value="fd00::1"), "token", port=80)


@pytest.mark.requirement("SEC44", "IP-M3")
@pytest.mark.parametrize(
    ("start", "location", "url", "host"),
    [
        (ADDRESS, "/a", "http://10.0.0.1/a", "10.0.0.1"),
        (ADDRESS, "https://10.0.0.1/a", "https://10.0.0.1/a", "10.0.0.1"),
        (ADDRESS, "http://10.0.0.2:443/", "http://10.0.0.2:443/", "10.0.0.2:443"),
        (ADDRESS, "http://web.example.com/", "http://web.example.com/", "web.example.com"),
        (IPV6, "/a", "http://[fd00::1]/a", "[fd00::1]"),
        (IPV6, "https://[fd00::2]/a", "https://[fd00::2]/a", "[fd00::2]"),
        (IPV6, "https://[fd00::2]:80/a", "https://[fd00::2]:80/a", "[fd00::2]:80"),
    ],
)
def test_where_the_identifier_is_an_address_redirects_may_lead_to_addresses(
    start: FetchURL, location: str, url: str, host: str
) -> None:
    found = follow(location, start)
    assert (str(found), found.host) == (url, host)


@pytest.mark.requirement("SEC44")
@pytest.mark.parametrize(
    "location",
    [
        "http://010.0.0.1/",
        "http://0x0a000001/",
        "http://167772161/",
        "http://10.1/",
        "http://10.0.0.1./",
        "http://[::ffff:10.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://[FD00:0::1]/",
        "http://[::1/",
    ],
)
def test_an_address_in_another_spelling_is_refused_even_there(location: str) -> None:
    with pytest.raises(RedirectRefused):
        follow(location, IPV6)


@pytest.mark.requirement("SEC44")
def test_a_name_does_not_lead_to_an_address_by_way_of_another_name() -> None:
    with pytest.raises(RedirectRefused):
        follow("http://10.0.0.1/", follow("http://other.example.com/"))


locations = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            ["http", "https", ":", "//", "/", "@", "[", "]", "..", "127.0.0.1", "a.example.com", "8080", "#", "?"]
        ),
        max_size=10,
    ).map(lambda parts: "".join(parts).encode()),
)


@given(locations)
@pytest.mark.requirement("SEC40", "SEC44")
def test_every_location_leads_to_a_permitted_place_or_nowhere(location: bytes) -> None:
    try:
        found = resolve_redirect(FIRST, location, ports=PORTS)
    except RedirectRefused:
        return
    assert found.scheme in {"http", "https"}
    assert found.port in PORTS
    assert found.name == dns_name(found.name.value, wildcard=False)
    assert found.path.startswith("/")
    assert all("!" <= each <= "~" for each in found.path)


@given(locations)
@pytest.mark.requirement("SEC44")
def test_every_location_that_an_address_gives_leads_to_one_canonical_place_or_nowhere(location: bytes) -> None:
    try:
        found = resolve_redirect(IPV6, location, ports=PORTS)
    except RedirectRefused:
        return
    spelled = {"dns": dns_name, "ip": ip_address}[found.name.type]
    assert found.name == spelled(found.name.value)
    assert found.port in PORTS
