import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.api.problems import status_of
from acme_server.jose import eab
from acme_server.problems import ProblemType, Refused
from tests.support.acme import MAC_KEY, ClientKey, b64, binding, flattened

URL = "https://acme.example.com/acme/pki/web/new-account"
KEY = ClientKey("ES256")


def refusal(members: dict[str, Any]) -> ProblemType:
    with pytest.raises(Refused) as refused:
        eab.parse(members, url=URL, key=KEY.public)
    return refused.value.type


@pytest.mark.requirement("M90")
def test_the_members_of_the_key_may_come_in_any_order_and_with_others() -> None:
    payload = json.dumps(dict(reversed(KEY.jwk.items())) | {"use": "sig"}).encode()
    eab.verify(eab.parse(binding(KEY, url=URL, payload=payload), url=URL, key=KEY.public), MAC_KEY)


@pytest.mark.requirement("M91", "SEC09")
def test_an_unknown_key_identifier_and_a_wrong_mac_look_the_same() -> None:
    right = eab.parse(binding(KEY, url=URL), url=URL, key=KEY.public)
    wrong = eab.parse(binding(KEY, url=URL, mac_key=b"x" * 32), url=URL, key=KEY.public)
    said = []
    for signed, mac_key in ((right, None), (wrong, MAC_KEY), (right, b""), (wrong, None)):
        with pytest.raises(Refused) as refused:
            eab.verify(signed, mac_key)
        said.append((refused.value.type, refused.value.detail, status_of(refused.value)))
    assert set(said) == {(ProblemType.UNAUTHORIZED, said[0][1], 403)}


@pytest.mark.requirement("SEC09")
def test_the_mac_of_nobody_opens_nothing() -> None:
    for guess in (b"", bytes(32)):
        signed = eab.parse(binding(KEY, url=URL, mac_key=guess), url=URL, key=KEY.public)
        with pytest.raises(Refused):
            eab.verify(signed, None)


@pytest.mark.requirement("M92", "SEC11")
@pytest.mark.parametrize("alg", ["none", "ES256", "RS256", "HS1", "hs256", "HS256 ", "EdDSA"])
def test_only_macs_are_accepted(alg: str) -> None:
    assert refusal(binding(KEY, url=URL, alg=alg)) is ProblemType.BAD_SIGNATURE_ALGORITHM


@pytest.mark.requirement("M89", "M92", "SEC11")
@pytest.mark.parametrize(
    "header",
    [
        {"alg": None},
        {"alg": 5},
        {"kid": None},
        {"kid": ""},
        {"kid": 5},
        {"kid": "schlüssel"},
        {"kid": "a\nb"},
        {"kid": "k" * 300},
        {"nonce": "AAAA"},
        {"jwk": KEY.jwk},
        {"crit": ["x"]},
        {"b64": False},
        {"url": None},
        {"url": 5},
        {"url": URL + "/"},
        {"url": URL.replace("web", "open")},
        {"url": URL.upper()},
    ],
)
def test_headers_that_rfc_8555_does_not_allow_are_malformed(header: dict[str, Any]) -> None:
    assert refusal(binding(KEY, **{"url": URL} | header)) is ProblemType.MALFORMED


@pytest.mark.requirement("M90", "SEC11")
@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'"x"', json.dumps(ClientKey("ES256").jwk).encode()])
def test_a_binding_is_for_the_key_that_signs_the_request(payload: bytes) -> None:
    assert refusal(binding(KEY, url=URL, payload=payload)) is ProblemType.MALFORMED


def test_a_payload_that_is_no_key_is_refused() -> None:
    assert refusal(binding(KEY, url=URL, payload=b"{}")) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.requirement("M90", "SEC11")
@pytest.mark.parametrize(
    "members",
    [
        {},
        {"protected": "e30"},
        {"signatures": []},
        binding(KEY, url=URL) | {"header": {}},
        {"payload": 1, "protected": 2},
    ],
)
def test_other_forms_than_a_flattened_jws_are_malformed(members: dict[str, Any]) -> None:
    assert refusal(members) is ProblemType.MALFORMED


ANYTHING: st.SearchStrategy[Any] = st.none() | st.integers() | st.text(max_size=20) | st.just({}) | st.just([])


@pytest.mark.requirement("SEC40")
@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "url", "nonce", "jwk", "x"]), ANYTHING),
    st.dictionaries(st.sampled_from(["protected", "payload", "signature"]), ANYTHING),
    st.binary(max_size=40),
)
def test_no_binding_raises_anything_but_a_refusal(header: Any, members: Any, payload: bytes) -> None:
    base = flattened({"alg": "HS256", "kid": "a", "url": URL} | header, payload, lambda _: b"")
    for each in (base, base | members, members):
        try:
            eab.verify(eab.parse(each, url=URL, key=KEY.public), MAC_KEY)
        except Refused:
            continue
        pytest.fail("a binding without a MAC was accepted")


@pytest.mark.requirement("M90")
def test_a_changed_payload_is_refused() -> None:
    members = binding(KEY, url=URL) | {"payload": b64(json.dumps(KEY.jwk | {"use": "sig"}).encode())}
    with pytest.raises(Refused):
        eab.verify(eab.parse(members, url=URL, key=KEY.public), MAC_KEY)
