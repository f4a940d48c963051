"""Name constraints of a certificate against those that were asked for, with the rules of issuance as the oracle."""

from __future__ import annotations

import ipaddress
import itertools
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from kms.address import Network
from kms.pki.ca import NameConstraints
from kms.pki.ca.limits import missing_limits
from kms.pki.constraints import constraint_violations, constraints_of
from kms.pki.names import Name, dns_name, ip_address
from tests.support.foreign_ca import NAME_CONSTRAINTS, ROOT, authority, ec_key, pem

LABELS = ("a", "b", "c")
DOMAINS = [".".join(each) for length in (1, 2, 3) for each in itertools.product(LABELS, repeat=length)]
NETWORKS = [ipaddress.ip_network(each) for each in ("10.0.0.0/29", "10.0.0.0/30", "10.0.0.4/31", "fd00::/126", "::/0")]
ADDRESSES = [*map(str, ipaddress.ip_network("10.0.0.0/28")), "fd00::1", "fd00::5"]
NAMES = [
    *map(dns_name, DOMAINS),
    *(dns_name(f"*.{each}") for each in DOMAINS),
    *map(ip_address, ADDRESSES),
]


def certified(constraints: NameConstraints, *, dotted: bool = False) -> x509.Certificate:
    """A CA with these constraints; `dotted`: domains are not part of their own subtrees."""
    dot = "." if dotted else ""

    def names(domains: tuple[str, ...], networks: tuple[Network, ...]) -> list[x509.GeneralName] | None:
        return [*(x509.DNSName(dot + each) for each in domains), *map(x509.IPAddress, networks)] or None

    value = x509.NameConstraints(
        names(constraints.permitted_domains, constraints.permitted_networks),
        names(constraints.excluded_domains, constraints.excluded_networks),
    )
    contents = authority(ROOT, ROOT).with_extension(NAME_CONSTRAINTS, value.public_bytes(), critical=True)
    return x509.load_der_x509_certificate(contents.signed(ec_key(ROOT)))


def refused(chain: list[x509.Certificate]) -> set[Name]:
    """The names that the constraints do not let the CA certify."""
    text = "".join(pem(each.public_bytes(Encoding.DER)).decode() for each in chain)
    return {each.name for each in constraint_violations(NAMES, constraints_of(text)) if each.name is not None}


def subtrees(of: str = "domains networks", maximum: int = 2) -> st.SearchStrategy[NameConstraints]:
    domains = st.lists(st.sampled_from(DOMAINS), max_size=maximum * ("domains" in of), unique=True).map(tuple)
    networks = st.lists(st.sampled_from(NETWORKS), max_size=maximum * ("networks" in of), unique=True).map(tuple)
    return st.builds(NameConstraints, domains, networks, domains, networks).filter(
        lambda each: each != NameConstraints()
    )


@pytest.mark.requirement("X51")
@pytest.mark.parametrize("of", ["domains", "networks", "domains networks"])
@given(data=st.data())
def test_a_chain_that_lacks_no_limit_certifies_no_name_more(of: str, data: st.DataObject) -> None:
    asked = data.draw(subtrees(of, 1))
    found = data.draw(st.lists(st.tuples(subtrees(of), st.booleans()), min_size=1, max_size=2))
    chain = [certified(each, dotted=dotted) for each, dotted in found]
    if next(missing_limits(chain, None, asked), None) is None:
        assert refused([certified(asked)]) <= refused(chain)


@given(subtrees())
def test_what_was_asked_for_lacks_nothing(asked: NameConstraints) -> None:
    assert list(missing_limits([certified(asked)], None, asked)) == []


def test_a_certificate_of_thousands_of_subtrees_takes_no_longer_for_a_hundred_that_were_asked_for() -> None:
    domains = tuple(f"{number}.z" for number in range(1100))
    networks = tuple(ipaddress.ip_network(f"11.{number // 256}.{number % 256}.0/24") for number in range(700))
    chain = [certified(NameConstraints(domains, networks))]
    last = NameConstraints(("z",), (ipaddress.ip_network("11.0.0.0/8"),))
    many = NameConstraints(
        (*(f"d{number}" for number in range(99)), "z"),
        (*(ipaddress.ip_network(f"10.{number}.0.0/16") for number in range(99)), *last.permitted_networks),
    )

    def seconds(asked: NameConstraints) -> float:
        began = time.perf_counter()
        assert list(missing_limits(chain, None, asked)) == []
        return time.perf_counter() - began

    one, hundred = (min(seconds(asked) for _ in range(5)) for asked in (last, many))
    assert hundred < 5 * one, "forty times, if each was compared with each"
