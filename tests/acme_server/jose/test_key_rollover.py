import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.api.problems import status_of
from acme_server.jose import key_rollover
from acme_server.problems import ProblemType, Refused
from tests.support.acme import ClientKey, b64, flattened, signed

URL = "https://acme.example.com/acme/pki/web/key-change"
ACCOUNT = "https://acme.example.com/acme/pki/web/accounts/" + "a" * 52
OLD = ClientKey("ES256")
NEW = ClientKey("ES256")


def inner(new: ClientKey = NEW, payload: bytes | None = None, *, without: str = "", **header: Any) -> bytes:
    """The inner JWS as RFC 8555 wants it, unless a test says otherwise. A header member that is None is left out."""
    members = {"account": ACCOUNT, "oldKey": OLD.jwk}
    members.pop(without, None)
    body = json.dumps(members).encode() if payload is None else payload
    return signed(new, body, **({"jwk": new.jwk, "url": URL} | header))


def parsed(payload: bytes) -> key_rollover.KeyRollover:
    return key_rollover.parse(payload, url=URL, account=ACCOUNT)


def refusal(payload: bytes) -> ProblemType:
    with pytest.raises(Refused) as refused:
        parsed(payload)
    assert status_of(refused.value) == 400
    return refused.value.type


@pytest.mark.requirement("M97", "SEC23")
def test_the_old_key_is_compared_as_a_key_and_not_as_it_is_spelled() -> None:
    spelled = dict(reversed(OLD.jwk.items())) | {"use": "sig", "kid": "mine"}
    payload = json.dumps({"extra": 1, "oldKey": spelled, "account": ACCOUNT}).encode()
    assert parsed(inner(payload=payload)).old == OLD.public.thumbprint


@pytest.mark.requirement("M95", "SEC23")
@pytest.mark.parametrize(
    "header",
    [
        {"jwk": None},
        {"jwk": "key"},
        {"jwk": None, "kid": ACCOUNT},
        {"kid": ACCOUNT},
        {"nonce": "AAAA"},
        {"nonce": ""},
        {"url": None},
        {"url": 5},
        {"url": URL + "/"},
        {"url": URL.replace("https", "http")},
        {"url": URL.replace("acme.example.com", "ACME.example.com")},
        {"url": URL.replace("key-change", "new-account")},
        {"alg": None},
        {"alg": 5},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": True},
        {"b64": False, "crit": ["b64"]},
    ],
    ids=str,
)
def test_the_protected_header_must_be_exactly_right(header: dict[str, Any]) -> None:
    assert refusal(inner(**header)) is ProblemType.MALFORMED


@pytest.mark.requirement("M96", "M97", "SEC23")
@pytest.mark.parametrize(
    "payload",
    [
        {"oldKey": OLD.jwk},
        {"account": ACCOUNT},
        {"account": None, "oldKey": OLD.jwk},
        {"account": 5, "oldKey": OLD.jwk},
        {"account": ACCOUNT + "/", "oldKey": OLD.jwk},
        {"account": ACCOUNT[:-1], "oldKey": OLD.jwk},
        {"account": ACCOUNT.replace("https", "HTTPS"), "oldKey": OLD.jwk},
        {"account": ACCOUNT.replace("/web/", "/open/"), "oldKey": OLD.jwk},
        {"account": ACCOUNT.replace("/accounts", "/%61ccounts"), "oldKey": OLD.jwk},
        {"account": ACCOUNT, "oldKey": None},
        {"account": ACCOUNT, "oldKey": OLD.public.thumbprint},
        {"account": ACCOUNT, "oldKey": [OLD.jwk]},
        [],
        "text",
    ],
    ids=[
        *("no account", "no oldKey", "null", "a number", "a slash more", "a letter less", "another case"),
        *("another profile", "an escape", "oldKey null", "a thumbprint", "a list of keys", "a list", "text"),
    ],
)
def test_account_and_old_key_must_be_exactly_right(payload: Any) -> None:
    assert refusal(inner(payload=json.dumps(payload).encode())) is ProblemType.MALFORMED


@pytest.mark.parametrize("payload", [b"", b"{", b'{"account":"a","account":"b"}', b"\xff", b"[" * 100])
def test_a_payload_that_is_no_json_object_is_refused(payload: bytes) -> None:
    assert refusal(inner(payload=payload)) is ProblemType.MALFORMED
    assert refusal(payload) is ProblemType.MALFORMED


@pytest.mark.requirement("M101", "SEC13", "SEC18")
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": "none"}, ProblemType.BAD_SIGNATURE_ALGORITHM),
        ({"alg": "HS256"}, ProblemType.BAD_SIGNATURE_ALGORITHM),
        ({"alg": "ES384"}, ProblemType.BAD_SIGNATURE_ALGORITHM),
        ({"alg": "RS256"}, ProblemType.BAD_SIGNATURE_ALGORITHM),
        ({"jwk": NEW.jwk | {"d": "AAAA"}}, ProblemType.BAD_PUBLIC_KEY),
        ({"jwk": {"kty": "oct", "k": "AAAA"}}, ProblemType.BAD_PUBLIC_KEY),
        ({"jwk": {"kty": "EC", "crv": "P-192", "x": "AA", "y": "AA"}}, ProblemType.BAD_PUBLIC_KEY),
        ({"jwk": NEW.jwk | {"x": b64(bytes(32))}}, ProblemType.BAD_PUBLIC_KEY),
        ({"jwk": {"kty": "RSA", "n": b64(b"\xff" * 128), "e": "AQAB"}}, ProblemType.BAD_PUBLIC_KEY),
    ],
    ids=[
        *("none", "a MAC", "another curve", "another algorithm"),
        *("a private key", "a symmetric key", "a weak curve", "a point off the curve", "a short RSA key"),
    ],
)
def test_the_new_key_meets_the_rules_for_account_keys(header: dict[str, Any], expected: ProblemType) -> None:
    assert refusal(inner(**header)) is expected


@pytest.mark.requirement("M101", "SEC23")
def test_only_the_holder_of_the_new_key_can_have_signed() -> None:
    assert refusal(inner(OLD, jwk=NEW.jwk)) is ProblemType.MALFORMED
    changed = json.loads(inner())
    changed["payload"] = b64(json.dumps({"account": ACCOUNT, "oldKey": NEW.jwk}).encode())
    assert refusal(json.dumps(changed).encode()) is ProblemType.MALFORMED


@pytest.mark.requirement("SEC14")
def test_the_form_of_the_inner_jws_is_as_strict_as_that_of_a_request() -> None:
    whole = json.loads(inner())
    for spoiled in (
        whole | {"header": {}},
        whole | {"signatures": []},
        {name: value for name, value in whole.items() if name != "payload"},
        whole | {"payload": None},
        whole | {"signature": whole["signature"] + "="},
        whole | {"protected": whole["protected"] + "\n"},
    ):
        assert refusal(json.dumps(spoiled).encode()) is ProblemType.MALFORMED
    twice = inner().replace(b'{"protected"', b'{"payload":"AA","protected"', 1)
    assert refusal(twice) is ProblemType.MALFORMED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=6,
)


@pytest.mark.requirement("SEC40")
@given(
    header=st.dictionaries(st.sampled_from(["alg", "jwk", "url", "kid", "nonce", "crit"]), json_values),
    payload=st.dictionaries(st.sampled_from(["account", "oldKey"]), json_values),
)
def test_whatever_stands_in_it_is_refused_and_nothing_else_happens(
    header: dict[str, Any], payload: dict[str, Any]
) -> None:
    whole = flattened({"alg": "ES256", "jwk": NEW.jwk, "url": URL} | header, json.dumps(payload).encode(), NEW.sign)
    with pytest.raises(Refused):
        parsed(json.dumps(whole).encode())


@pytest.mark.requirement("SEC40")
@given(st.binary(max_size=200))
def test_bytes_of_any_sort_are_refused_and_nothing_else_happens(payload: bytes) -> None:
    with pytest.raises(Refused):
        parsed(payload)
