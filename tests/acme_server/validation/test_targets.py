from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.validation.attempts import ValidationFailed
from acme_server.validation.targets import PORTS, Target, challenge, redirected
from kms.pki.names import dns_name
from kms.resources.orders import Identifier

FIRST = challenge(Identifier(type="dns", value="web.example.com"), "token", port=80)


def follow(location: str, start: Target = FIRST) -> Target:
    return redirected(start, location.encode(), ports=PORTS)


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
    target = follow(location)
    assert (target.url, target.host) == (url, host)


def test_an_ipv6_identifier_is_bracketed() -> None:
    target = challenge(Identifier(type="ip", value="fd00::1"), "token", port=8080)
    assert target.url == "http://[fd00::1]:8080/.well-known/acme-challenge/token"
    assert target.host == "[fd00::1]"


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
def test_every_location_leads_to_a_permitted_place_or_nowhere(location: bytes) -> None:
    try:
        target = redirected(FIRST, location, ports=PORTS)
    except ValidationFailed:
        return
    assert target.scheme in {"http", "https"}
    assert target.port in PORTS
    assert target.name == dns_name(target.name.value, wildcard=False)
    assert target.path.startswith("/")
    assert all("!" <= each <= "~" for each in target.path)
