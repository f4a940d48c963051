from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.model import ChallengeId, Valid
from acme_server.orders.transitions import validated
from acme_server.validation import caa_rules
from acme_server.validation.caa_rules import Issuance, IssueValue, Property, issue_value, objection
from kms.resources.orders import ACMEOrder, Identifier
from tests.support.acmeorders import NOW, order

CA = "ca.example.net"
ACCOUNT = "https://acme.example.com/acme/pki/web/accounts/abc"
HOUR = timedelta(hours=1)


def issue(value: str, tag: str = "issue", flags: int = 0) -> Property:
    return Property(flags, tag.encode(), value.encode())


def wild(value: str) -> Property:
    return issue(value, "issuewild")


def verdict(*properties: Property, wildcard: bool = False, **changes: object) -> str | None:
    given_ = {"issuers": (CA, "second.example.net"), "account": ACCOUNT, "method": "http-01", **changes}
    return objection(properties, Issuance(wildcard=wildcard, **given_))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", IssueValue("", {})),
        (";", IssueValue("", {})),
        (" \t; ", IssueValue("", {})),
        (CA, IssueValue(CA, {})),
        (f" {CA} ;", IssueValue(CA, {})),
        ("CA.Example.NET", IssueValue(CA, {})),
        ("a--b.example", IssueValue("a--b.example", {})),
        (f"{CA};a=b", IssueValue(CA, {"a": "b"})),
        (f"{CA}; a = b ; C=d=e", IssueValue(CA, {"a": "b", "c": "d=e"})),
        ("; a=", IssueValue("", {"a": ""})),
    ],
)
def test_values_are_read_as_rfc_8659_spells_them(value: str, expected: IssueValue) -> None:
    assert issue_value(value.encode()) == expected


@pytest.mark.requirement("CAA-M8", "SEC54")
@pytest.mark.parametrize(
    "value",
    [
        f"{CA}.",
        f".{CA}",
        "-a.example",
        "a-.example",
        "a_b.example",
        f"{CA} {CA}",
        f"{CA}, second.example.net",
        f"{CA}; a",
        f"{CA}; =b",
        f"{CA}; a=b;",
        f"{CA};;",
        f"{CA}; a=b; a=c",
        f"{CA}; a=b; A=c",
        f"{CA}; a-=b",
        f"{CA}; a=b c",
        f"{CA}; a=\x01",
        f"{CA}\n",
        f"{CA}\0",
        "ü.example",
        f"{CA}; a=" + "b" * 5000,
    ],
)
def test_what_is_malformed_names_nobody(value: str) -> None:
    assert issue_value(value.encode()) is None
    assert verdict(issue(value)) is not None


tags = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,5}", fullmatch=True)
domains = st.lists(tags, min_size=1, max_size=4).map(".".join)
white = st.text(" \t", max_size=3)


@given(
    domains | st.just(""),
    st.dictionaries(tags, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=";"))),
    white,
    white,
)
def test_every_value_of_the_grammar_is_read(issuer: str, parameters: dict[str, str], one: str, two: str) -> None:
    text = f"{one}{issuer}{two}"
    if parameters:
        text += f";{one}" + f"{two};{one}".join(f"{tag}{one}={two}{value}" for tag, value in parameters.items()) + two
    assert issue_value(text.encode()) == IssueValue(issuer, parameters)


@given(st.binary(max_size=60))
@pytest.mark.requirement("SEC40")
def test_arbitrary_values_are_read_or_malformed(value: bytes) -> None:
    read = issue_value(value)
    assert read is None or all(each.isascii() for each in (read.issuer, *read.parameters.values()))


@given(
    st.lists(
        st.builds(
            Property,
            flags=st.integers(0, 255),
            tag=st.sampled_from([b"issue", b"IssueWild", b"iodef", b"x"]) | st.binary(max_size=5),
            value=st.sampled_from([b";", CA.encode(), b"other.example"]) | st.binary(max_size=30),
        ),
        max_size=4,
    ),
    st.booleans(),
)
@pytest.mark.requirement("SEC40", "SEC54")
def test_any_set_that_names_somebody_allows_only_if_it_names_this_ca(
    properties: list[Property], wildcard: bool
) -> None:
    if verdict(*properties, wildcard=wildcard) is None:
        tags_ = {each.tag.lower() for each in properties}
        counts = b"issuewild" if wildcard and b"issuewild" in tags_ else b"issue"
        assert counts not in tags_ or any(CA.encode() in each.value.lower() for each in properties)


def test_without_properties_everybody_may_issue() -> None:
    assert verdict() is None
    assert verdict(wildcard=True) is None
    assert verdict(issue("mailto:a@example.com", "iodef"), issue("x.example", "issuemail", 128)) is None


@pytest.mark.requirement("CAA-M3", "SEC54")
@pytest.mark.parametrize("value", [";", "", " ", "other.example.net", f"sub.{CA}", "example.net"])
def test_whoever_is_not_named_must_not_issue(value: str) -> None:
    assert verdict(issue(value)) == (
        'no property "issue" that is well-formed names ca.example.net or second.example.net'
    )
    assert verdict(issue(value), wildcard=True) is not None


def test_one_property_that_allows_is_enough() -> None:
    assert verdict(issue(";"), issue("other.example"), issue("SECOND.example.net")) is None


@pytest.mark.requirement("CAA-M2", "SEC54")
def test_for_a_wildcard_issuewild_counts_where_there_is_any() -> None:
    assert verdict(issue(";"), wild(CA), wildcard=True) is None
    assert verdict(issue(CA), wild(";"), wildcard=True) is not None
    assert verdict(issue(CA), wild("; malformed"), wildcard=True) is not None
    assert verdict(issue(CA), wildcard=True) is None
    assert verdict(issue(";"), wildcard=True) is not None  # also without issuewild


@pytest.mark.requirement("CAA-M2", "SEC54")
def test_for_other_names_issuewild_does_not_count() -> None:
    assert verdict(issue(CA), wild(";")) is None
    assert verdict(wild(";")) is None
    assert verdict(issue(";"), wild(CA)) is not None


@pytest.mark.requirement("CAA-M4", "SEC54")
@pytest.mark.parametrize("flags", [128, 129, 255])
def test_a_critical_property_that_is_not_known_forbids(flags: int) -> None:
    assert verdict(issue(CA), issue("x", "tbs", flags)) == "they have a critical property that is not known here"
    assert verdict(issue(CA), issue("x", "tbs", 127)) is None
    assert verdict(issue(CA, "ISSUE", flags)) is None


@pytest.mark.requirement("CAA-M6", "SEC54")
def test_another_account_must_not_issue() -> None:
    assert verdict(issue(f"{CA}; accounturi={ACCOUNT}")) is None
    for other in (ACCOUNT[:-1], f"{ACCOUNT}/", ACCOUNT.upper(), ""):
        assert "accounturi" in (verdict(issue(f"{CA}; accounturi={other}")) or "")
    assert verdict(issue(f"{CA}; AccountURI={ACCOUNT}x"), issue(f"{CA}; accounturi={ACCOUNT}")) is None


@pytest.mark.requirement("CAA-M7", "SEC54")
def test_a_challenge_that_is_not_listed_must_not_be_the_proof() -> None:
    assert verdict(issue(f"{CA}; validationmethods=dns-01,http-01")) is None
    for listed in ("dns-01", "", "http-01,", "http-01, dns-01", "HTTP-01", "http", "http-012"):
        assert verdict(issue(f"{CA}; validationmethods={listed}")) is not None
    told = verdict(issue(f"{CA}; validationmethods=dns-01"), method="tls-alpn-01")
    assert told == "they do not allow tls-alpn-01 (validationmethods)"
    assert "without a challenge" in (verdict(issue(f"{CA}; validationmethods=dns-01"), method=None) or "")
    assert verdict(issue(CA), method=None) is None


def test_both_conditions_must_be_met_by_the_same_property() -> None:
    split = (issue(f"{CA}; accounturi=x"), issue(f"{CA}; accounturi={ACCOUNT}; validationmethods=dns-01"))
    assert verdict(*split) is not None


def test_parameters_of_other_cas_are_passed_over() -> None:
    assert verdict(issue(f"{CA}; policy=ev")) is None


def proven(order_: ACMEOrder, position: int, *, checked: bool = True) -> ACMEOrder:
    outcome = Valid(NOW, NOW if checked else None)
    outcomes = {ChallengeId(position, "http-01"): outcome}
    return validated(order_, outcomes, lifetime=timedelta(0), now=NOW)


@pytest.mark.requirement("CAA-M9")
def test_what_was_looked_at_lately_need_not_be_again() -> None:
    both = proven(proven(order("a.example", "b.example"), 0), 1, checked=False)
    assert caa_rules.find_unchecked(both, now=NOW) == (1,)
    assert caa_rules.find_unchecked(both, now=NOW + 8 * HOUR) == (1,)
    assert caa_rules.find_unchecked(both, now=NOW + 8 * HOUR + timedelta(seconds=1)) == (0, 1)


def test_a_request_that_was_accepted_lately_was_checked_then() -> None:
    accepted = proven(order("a.example"), 0)
    accepted = replace(accepted, status=replace(accepted.status, accepted=NOW + 9 * HOUR))
    assert caa_rules.find_unchecked(accepted, now=NOW + 10 * HOUR) == ()
    assert caa_rules.find_unchecked(accepted, now=NOW + 18 * HOUR) == (0,)


@pytest.mark.requirement("CAA-M9")
def test_a_check_at_a_time_that_has_not_come_is_none() -> None:
    """Somebody has changed the status: CAA would never be looked at again."""
    checked = proven(order("a.example"), 0)
    assert caa_rules.find_unchecked(checked, now=NOW - HOUR) == (0,)
    assert caa_rules.find_unchecked(checked, now=NOW - caa_rules.SKEW) == ()


def test_addresses_have_no_such_records() -> None:
    mixed = order("a.example")
    address = replace(mixed.status.authorizations[0], identifier=Identifier(type="ip", value="10.0.0.1"))
    mixed = replace(mixed, status=replace(mixed.status, authorizations=(address,)))
    assert caa_rules.find_unchecked(mixed, now=NOW) == ()
