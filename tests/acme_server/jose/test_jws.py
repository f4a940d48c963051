import json
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from acme_server.api.problems import status_of
from acme_server.jose import jws
from acme_server.problems import ProblemType, Refused
from tests.support.acme import ALGORITHMS, ClientKey, b64, flattened, signed

KEY = ClientKey("ES256")
URL = "https://acme.example.com/acme/pki/web/new-order"
HEADER = {"alg": "ES256", "nonce": "AAAA", "url": URL, "kid": "https://acme.example.com/acme/pki/web/accounts/a"}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def refusal(body: bytes) -> Refused:
    with pytest.raises(Refused) as refused:
        jws.parse(body)
    assert status_of(refused.value) == 400
    return refused.value


def body(header: Any = HEADER, /, **members: Any) -> bytes:
    flat = flattened(header, b"{}", KEY.sign) | members
    return json.dumps({name: value for name, value in flat.items() if value is not ...}).encode()


def without(member: str) -> dict[str, Any]:
    return {name: value for name, value in HEADER.items() if name != member}


@pytest.mark.requirement("M14", "S15", "C14")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_accepted_algorithm_verifies(algorithm: str) -> None:
    key = ClientKey(algorithm)
    request = jws.parse(signed(key, b'{"a":1}', nonce="AAAA", url=URL, jwk=key.jwk))
    jws.verify(request, key.public)
    assert (request.payload, request.url, request.nonce, request.key_id) == (b'{"a":1}', URL, "AAAA", None)


@pytest.mark.requirement("M20", "M24")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_signature_of_another_key_is_refused(algorithm: str) -> None:
    key, other = ClientKey(algorithm), ClientKey(algorithm)
    with pytest.raises(Refused) as refused:
        jws.verify(jws.parse(signed(key, b"", **HEADER | {"alg": algorithm})), other.public)
    assert refused.value.type is ProblemType.MALFORMED


@pytest.mark.requirement("M6")
@pytest.mark.parametrize("part", ["protected", "payload", "signature"])
def test_a_changed_part_is_refused(part: str) -> None:
    flat = flattened(HEADER, b'{"a":1}', KEY.sign)
    others = {
        "protected": b64(json.dumps(HEADER | {"x": 1}).encode()),
        "payload": b64(b"{}"),
        "signature": b64(bytes(64)),
    }
    with pytest.raises(Refused) as refused:
        jws.verify(jws.parse(json.dumps(flat | {part: others[part]}).encode()), KEY.public)
    assert refused.value.type is ProblemType.MALFORMED


@pytest.mark.requirement("M7", "M8", "M10", "M11", "SEC14")
@pytest.mark.parametrize(
    "members",
    [
        {"header": {"kid": "x"}},
        {"signatures": []},
        {"payload": ...},
        {"payload": None},
        {"payload": {}},
        {"protected": ...},
        {"protected": ""},
        {"protected": 5},
        {"signature": ...},
        {"signature": 5},
        {"payload": "e30="},
        {"payload": "e3 0"},
        {"protected": b64(b"[]")},
        {"protected": b64(b'{"alg":"ES256","alg":"none"}')},
        {"protected": b64(b"\xff")},
    ],
)
def test_other_forms_than_a_flattened_jws_are_malformed(members: dict[str, Any]) -> None:
    assert refusal(body(**members)).type is ProblemType.MALFORMED


@pytest.mark.requirement("M7")
@pytest.mark.parametrize("text", ["a.b.c", '"a.b.c"', "[]", "null", "", "{}"])
def test_the_compact_form_is_malformed(text: str) -> None:
    assert refusal(text.encode()).type is ProblemType.MALFORMED


@pytest.mark.requirement("SEC14")
def test_duplicate_members_are_malformed() -> None:
    again = body()[:-1] + b',"payload":"e30"}'
    assert refusal(again).type is ProblemType.MALFORMED


@pytest.mark.requirement("M9", "M12", "M16", "M29", "SEC14")
@pytest.mark.parametrize(
    "header",
    [
        HEADER | {"crit": ["b64"], "b64": False},
        HEADER | {"crit": []},
        HEADER | {"b64": True},
        HEADER | {"jwk": KEY.jwk},
        HEADER | {"jwk": None},
        without("kid"),
        HEADER | {"kid": 5},
        HEADER | {"kid": None},
        without("kid") | {"jwk": "x"},
        without("kid") | {"jwk": None},
        without("alg"),
        HEADER | {"alg": 5},
        without("url"),
        HEADER | {"url": ["x"]},
        HEADER | {"nonce": 5},
    ],
)
def test_headers_that_rfc_8555_does_not_allow_are_malformed(header: dict[str, Any]) -> None:
    assert refusal(body(header)).type is ProblemType.MALFORMED


def test_unknown_header_members_are_ignored() -> None:
    assert jws.parse(body(HEADER | {"typ": "x", "x5c": [], "cty": 1})).key_id == HEADER["kid"]


def test_unknown_members_of_the_jws_are_ignored() -> None:
    assert jws.parse(body(resource="new-order")).key_id == HEADER["kid"]


@pytest.mark.requirement("M35")
def test_a_missing_nonce_is_a_bad_nonce() -> None:
    assert refusal(body(without("nonce"))).type is ProblemType.BAD_NONCE


@pytest.mark.requirement("M13", "M21", "SEC13")
@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS256", "HS512", "RS1", "ES256K", "es256", "PS512", "A128KW"]
)
def test_other_algorithms_are_refused_with_those_that_are_accepted(algorithm: str) -> None:
    refused = refusal(body(HEADER | {"alg": algorithm}))
    assert refused.type is ProblemType.BAD_SIGNATURE_ALGORITHM
    assert set(refused.members["algorithms"]) == set(ALGORITHMS)


@pytest.mark.requirement("SEC13")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("of", ["ES256", "ES384", "RS256", "EdDSA"])
def test_an_algorithm_that_does_not_fit_the_key_is_refused(algorithm: str, of: str) -> None:
    key = ClientKey(of)
    if algorithm in key.public.algorithms:
        return
    request = jws.parse(signed(key, b"", **HEADER | {"alg": algorithm}))
    with pytest.raises(Refused) as refused:
        jws.verify(request, key.public)
    assert refused.value.type is ProblemType.BAD_SIGNATURE_ALGORITHM
    assert refused.value.members["algorithms"] == list(key.public.algorithms)


def _with_signature(signature: bytes) -> bytes:
    return json.dumps(flattened(HEADER, b"{}", lambda _: signature)).encode()


@pytest.mark.requirement("SEC16")
def test_the_der_form_of_an_ecdsa_signature_is_refused() -> None:
    request = json.dumps(flattened(HEADER, b"{}", lambda m: KEY.private.sign(m, ec.ECDSA(SHA256())))).encode()
    with pytest.raises(Refused):
        jws.verify(jws.parse(request), KEY.public)


@pytest.mark.requirement("SEC16")
@pytest.mark.parametrize(
    ("r", "s"),
    [(0, 0), (0, 1), (1, 0), (P256_ORDER, 1), (1, P256_ORDER), (P256_ORDER, P256_ORDER), (2**256 - 1, 2**256 - 1)],
)
def test_numbers_outside_the_group_are_no_signature(r: int, s: int) -> None:
    request = jws.parse(_with_signature(r.to_bytes(32, "big") + s.to_bytes(32, "big")))
    with pytest.raises(Refused) as refused:
        jws.verify(request, KEY.public)
    assert refused.value.type is ProblemType.MALFORMED


@pytest.mark.requirement("SEC40")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(signature=st.binary(max_size=140))
def test_no_signature_raises_anything_but_a_refusal(algorithm: str, signature: bytes) -> None:
    request = jws.parse(_with_signature(signature).replace(b"ES256", algorithm.encode()))
    with pytest.raises(Refused):
        jws.verify(request, KEY.public)


@pytest.mark.requirement("SEC13")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_key_verifies_with_the_algorithms_of_other_types(algorithm: str) -> None:
    other = ClientKey("EdDSA" if algorithm != "EdDSA" else "ES256").public
    assert algorithm in ClientKey(algorithm).public.algorithms
    with pytest.raises(Refused) as refused:
        jws.verify_signature(other, algorithm, bytes(64), b"", "it")
    assert refused.value.type is ProblemType.BAD_SIGNATURE_ALGORITHM


ANYTHING: st.SearchStrategy[Any] = st.none() | st.integers() | st.text(max_size=20) | st.just({}) | st.just(["b64"])


@pytest.mark.requirement("SEC40")
@given(st.dictionaries(st.sampled_from(["alg", "nonce", "url", "kid", "jwk", "crit", "b64", "x"]), ANYTHING))
def test_no_header_raises_anything_but_a_refusal(members: dict[str, Any]) -> None:
    for header in (members, HEADER | members):
        with suppress(Refused):
            assert jws.parse(body(header)).algorithm


@pytest.mark.requirement("SEC40")
@given(
    st.dictionaries(st.sampled_from(["protected", "payload", "signature", "header"]), ANYTHING), st.binary(max_size=80)
)
def test_no_body_raises_anything_but_a_refusal(members: dict[str, Any], noise: bytes) -> None:
    for data in (body(**members), noise):
        with suppress(Refused):
            assert jws.parse(data).algorithm
