import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.model import RequestedIdentifier
from acme_server.payloads import (
    AccountUpdate,
    AuthorizationUpdate,
    ChallengeResponse,
    Finalization,
    NewAccount,
    NewAuthorization,
    NewOrder,
    Payload,
    Revocation,
    decode,
)
from acme_server.problems import ProblemType, Refused

TYPES = (NewAccount, AccountUpdate, NewOrder, AuthorizationUpdate, ChallengeResponse, Finalization)
ALL = (*TYPES, NewAuthorization, Revocation)
NAME = {"type": "dns", "value": "a.example.com"}


def payload(value: object) -> bytes:
    return json.dumps(value).encode()


def refusal(data: bytes, type_: type[Payload]) -> str:
    with pytest.raises(Refused) as refused:
        decode(data, type_)
    assert refused.value.type is ProblemType.MALFORMED
    return refused.value.detail


def test_an_order_is_read() -> None:
    wanted = decode(
        payload(
            {
                "identifiers": [NAME, {"type": "unheard-of", "value": ""}],
                "notBefore": "2026-11-23T12:00:00Z",
                "notAfter": "2026-11-24T12:00:00+00:00",
                "profile": "",
                "replaces": "x",
                "resource": "new-order",
            }
        ),
        NewOrder,
    )
    assert wanted == NewOrder(
        replaces="x",
        identifiers=(
            RequestedIdentifier(type="dns", value="a.example.com"),
            RequestedIdentifier(type="unheard-of", value=""),
        ),
        not_before=datetime(2026, 11, 23, 12, tzinfo=UTC),
        not_after=datetime(2026, 11, 24, 12, tzinfo=UTC),
        profile=None,
    )


@pytest.mark.requirement("M78", "M85")
def test_an_account_is_read_and_unknown_members_are_ignored() -> None:
    wanted = decode(
        payload({"contact": ["mailto:a@example.com"], "termsOfServiceAgreed": True, "status": "valid", "orders": 5}),
        NewAccount,
    )
    assert wanted == NewAccount(contact=("mailto:a@example.com",), terms_of_service_agreed=True)
    assert decode(b"{}", NewAccount) == NewAccount()
    assert decode(payload({"externalAccountBinding": {"a": 1}}), NewAccount).external_account_binding == {"a": 1}


@pytest.mark.requirement("M85")
def test_an_update_tells_what_is_not_mentioned_from_what_is_empty() -> None:
    assert decode(b"{}", AccountUpdate) == AccountUpdate(contact=None, status=None)
    assert decode(payload({"contact": []}), AccountUpdate).contact == ()


@pytest.mark.requirement("SEC36")
@pytest.mark.parametrize(
    ("value", "type_", "said"),
    [
        ({}, NewOrder, "identifiers"),
        ({"identifiers": []}, NewOrder, "identifiers"),
        ({"identifiers": 101 * [NAME]}, NewOrder, "identifiers"),
        ({"identifiers": [{"type": "dns"}]}, NewOrder, "value"),
        ({"identifiers": [{"type": "dns", "value": 5}]}, NewOrder, "identifiers[0].value"),
        ({"identifiers": [{"type": "dns", "value": "a" * 1025}]}, NewOrder, "identifiers[0].value"),
        ({"identifiers": [NAME], "notAfter": " "}, NewOrder, "notAfter"),
        ({"identifiers": [NAME], "notAfter": "0001-01-02T00:00:00"}, NewOrder, "notAfter"),
        ({"identifiers": None}, NewOrder, "identifiers"),
        ({"identifiers": [{"type": "dns", "value": None}]}, NewOrder, "identifiers[0].value"),
        ({"contact": [None]}, NewAccount, "contact[0]"),
        ({"identifiers": [NAME], "notAfter": "2026-11-24T12:00:00"}, NewOrder, "notAfter"),
        ({"identifiers": [NAME], "notAfter": 5}, NewOrder, "notAfter"),
        ({"contact": 11 * ["mailto:a@example.com"]}, NewAccount, "contact"),
        ({"contact": "mailto:a@example.com"}, NewAccount, "contact"),
        ({"onlyReturnExisting": "yes"}, NewAccount, "onlyReturnExisting"),
        ({"externalAccountBinding": "x"}, NewAccount, "externalAccountBinding"),
        ({}, Finalization, "csr"),
        ({"csr": None}, Finalization, "csr"),
    ],
)
def test_a_refusal_says_which_member_is_wrong(value: object, type_: type[Payload], said: str) -> None:
    assert said in refusal(payload(value), type_)


def optional(type_: type[Payload]) -> list[str]:
    return [each.encode_name for each in msgspec.structs.fields(type_) if not each.required]


@pytest.mark.parametrize("absent", [None, ""])
@pytest.mark.parametrize(("type_", "member"), [(type_, each) for type_ in ALL for each in optional(type_)])
def test_an_optional_member_that_says_nothing_is_absent(type_: type[Payload], member: str, absent: object) -> None:
    required = {
        "identifiers": [NAME],
        "identifier": NAME,
        "csr": "MAA",
        "certificate": "MAA",
    }
    assert decode(payload({**required, member: absent}), type_) == decode(payload(required), type_)


@pytest.mark.parametrize("zero", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00.000Z"])
def test_the_zero_time_of_go_is_no_time(zero: str) -> None:
    """The client package of step-ca sends it."""
    wanted = decode(payload({"identifiers": [NAME], "notBefore": zero, "notAfter": zero}), NewOrder)
    assert (wanted.not_before, wanted.not_after) == (None, None)
    assert decode(payload({"identifiers": [NAME], "profile": zero}), NewOrder).profile == zero


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'"x"', b"{", b'{"a":1,"a":2}', b"\xff"])
def test_a_payload_is_a_json_object(data: bytes, type_: type[Payload]) -> None:
    refusal(data, type_)


@pytest.mark.requirement("M4", "M111")
@pytest.mark.parametrize("csr", ["AA==", "+/", "A", "a b", "-----BEGIN CERTIFICATE REQUEST-----"])
def test_a_request_is_base64url(csr: str) -> None:
    with pytest.raises(Refused) as refused:
        decode(payload({"csr": csr}), Finalization).request()
    assert refused.value.type is ProblemType.MALFORMED


def test_the_request_is_der() -> None:
    assert decode(payload({"csr": "MAA"}), Finalization).request() == b"0\0"


MEMBERS = ("contact", "identifiers", "csr", "status", "notAfter", "notBefore", "externalAccountBinding", "profile")
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "value"]), inner),
    max_leaves=6,
)


@pytest.mark.requirement("SEC40")
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON), st.sampled_from(TYPES))
def test_no_payload_raises_anything_but_a_refusal(members: dict[str, Any], type_: type[Payload]) -> None:
    with suppress(Refused):
        assert isinstance(decode(payload(members), type_), type_)
