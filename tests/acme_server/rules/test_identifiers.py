from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.problems import ProblemType, Refused
from acme_server.rules import identifiers
from acme_server.wire import RequestedIdentifier
from kms.pki.names import Name, dns_name
from kms.resources.orders import Identifier


def asked(*values: str, type_: str = "dns") -> list[RequestedIdentifier]:
    return [RequestedIdentifier(type=type_, value=value) for value in values]


def refusal(wanted: list[RequestedIdentifier]) -> Refused:
    with pytest.raises(Refused) as caught:
        identifiers.normalised(wanted)
    return caught.value


def test_names_are_lowercase_and_each_is_there_once() -> None:
    names = identifiers.normalised(asked("WWW.example.com", "b.example.com", "www.EXAMPLE.com"))
    assert [name.value for name in names] == ["www.example.com", "b.example.com"]


@pytest.mark.parametrize(
    "value",
    ["127.0.0.1", "0x7f.1", "2130706433", "010.0.0.1", "::1", "[::1]", "example.com.", "a..b", "", "a b", "*", "a.*.b"],
)
def test_what_is_no_dns_name_is_malformed(value: str) -> None:
    refused = refusal(asked(value))
    assert refused.type == ProblemType.MALFORMED
    assert refused.subproblems[0].identifier == Identifier(type="dns", value=value)


def test_other_types_are_unsupported() -> None:
    for type_ in ("ip", "permanent-identifier", "", "DNS"):
        refused = refusal(asked("10.0.0.1", type_=type_))
        assert refused.type == ProblemType.UNSUPPORTED_IDENTIFIER
        expected = Identifier(type="ip", value="10.0.0.1") if type_ == "ip" else None
        assert refused.subproblems[0].identifier == expected


def test_every_identifier_that_is_wrong_is_told() -> None:
    refused = refusal([*asked("good.example.com", "bad..example", "10.0.0.1"), *asked("x", type_="email")])
    assert refused.type == ProblemType.REJECTED_IDENTIFIER
    assert len(refused.subproblems) == 3
    assert refused.detail.startswith("The identifiers are refused: ")
    many = refusal(asked(*[f"bad..{number}" for number in range(9)]))
    assert many.type == ProblemType.MALFORMED
    assert "and 6 more" in many.detail


@given(st.lists(st.tuples(st.sampled_from(["dns", "ip", "x"]), st.text(max_size=30)), min_size=1, max_size=5))
def test_no_identifiers_are_anything_but_names_or_refused(pairs: list[tuple[str, str]]) -> None:
    wanted = [RequestedIdentifier(type=type_, value=value) for type_, value in pairs]
    try:
        names = identifiers.normalised(wanted)
    except Refused:
        return
    assert all(dns_name(name.value) == name for name in names)


def test_names_survive_being_stored() -> None:
    names = (Name("dns", "*.example.com"), Name("ip", "10.0.0.1"))
    assert identifiers.names_of(identifiers.identifier_of(name) for name in names) == names
