from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.model import RequestedIdentifier
from acme_server.orders import identifiers
from acme_server.problems import ProblemType, Refused
from kms.pki.names import Name, dns_name, ip_address
from kms.resources.orders import Identifier


def asked(*values: str, type_: str = "dns") -> list[RequestedIdentifier]:
    return [RequestedIdentifier(type=type_, value=value) for value in values]


def refusal(wanted: list[RequestedIdentifier]) -> Refused:
    with pytest.raises(Refused) as caught:
        identifiers.normalise(wanted)
    return caught.value


@pytest.mark.requirement("M62", "M110")
def test_names_are_lowercase_and_each_is_there_once() -> None:
    names = identifiers.normalise(asked("WWW.example.com", "b.example.com", "www.EXAMPLE.com"))
    assert [name.value for name in names] == ["www.example.com", "b.example.com"]


@pytest.mark.requirement("SEC42")
@pytest.mark.parametrize(
    "value",
    ["127.0.0.1", "0x7f.1", "2130706433", "010.0.0.1", "::1", "[::1]", "example.com.", "a..b", "", "a b", "*", "a.*.b"],
)
def test_what_is_no_dns_name_is_malformed(value: str) -> None:
    refused = refusal(asked(value))
    assert refused.type == ProblemType.MALFORMED
    assert refused.subproblems[0].identifier == Identifier(type="dns", value=value)


@pytest.mark.requirement("IP-M1")
@pytest.mark.parametrize("value", ["10.0.0.1", "2001:db8::1", "2001:db8:0:1:1:1:1:1", "1::"])
def test_an_address_in_its_canonical_spelling_is_a_name(value: str) -> None:
    assert identifiers.normalise(asked(value, value, type_="ip")) == (Name("ip", value),)


@pytest.mark.requirement("IP-M1", "IP-M2", "IP-M7")
@pytest.mark.parametrize(
    "value",
    [
        "010.0.0.1",
        "10.0.0.1/32",
        "10.1",
        "0x0a.0.0.1",
        "2001:DB8::1",
        "2001:db8:0:0:0:0:0:1",
        "2001:db8::/32",
        "[2001:db8::1]",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "*.10.0.0.1",
        "localhost",
        "10.0.0.1 ",
        "",
    ],
)
def test_another_spelling_of_an_address_is_malformed(value: str) -> None:
    refused = refusal(asked(value, type_="ip"))
    assert refused.type == ProblemType.MALFORMED
    assert refused.subproblems[0].identifier == Identifier(type="ip", value=value)


@pytest.mark.requirement("M118", "SEC02")
def test_other_types_are_unsupported() -> None:
    for type_ in ("permanent-identifier", "", "DNS", "IP"):
        refused = refusal(asked("10.0.0.1", type_=type_))
        assert refused.type == ProblemType.UNSUPPORTED_IDENTIFIER
        assert refused.subproblems[0].identifier is None


@pytest.mark.requirement("S46")
def test_every_identifier_that_is_wrong_is_told() -> None:
    refused = refusal([*asked("good.example.com", "bad..example", "10.0.0.1"), *asked("x", type_="email")])
    assert refused.type == ProblemType.REJECTED_IDENTIFIER
    assert len(refused.subproblems) == 3
    assert refused.detail.startswith("The identifiers are refused: ")
    many = refusal(asked(*[f"bad..{number}" for number in range(9)]))
    assert many.type == ProblemType.MALFORMED
    assert "and 6 more" in many.detail


@pytest.mark.requirement("SEC40")
@given(st.lists(st.tuples(st.sampled_from(["dns", "ip", "x"]), st.text(max_size=30)), min_size=1, max_size=5))
def test_no_identifiers_are_anything_but_names_or_refused(pairs: list[tuple[str, str]]) -> None:
    wanted = [RequestedIdentifier(type=type_, value=value) for type_, value in pairs]
    try:
        names = identifiers.normalise(wanted)
    except Refused:
        return
    assert all((dns_name if name.type == "dns" else ip_address)(name.value) == name for name in names)


def test_names_survive_being_stored() -> None:
    names = (Name("dns", "*.example.com"), Name("ip", "10.0.0.1"))
    assert identifiers.names_of(identifiers.identifier_of(name) for name in names) == names
