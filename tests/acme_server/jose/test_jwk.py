import json
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from acme_server.api.problems import status_of
from acme_server.jose.jwk import account_key, stored_account_key, thumbprint
from acme_server.problems import ProblemType, Refused
from tests.support.acme import ALGORITHMS, ClientKey, b64

P256 = ClientKey("ES256")
RSA = ClientKey("RS256")
ED25519 = ClientKey("EdDSA")


def refusal(jwk: object) -> ProblemType:
    with pytest.raises(Refused) as refused:
        account_key(jwk)
    assert status_of(refused.value) == 400
    return refused.value.type


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


RFC_7638 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
    "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
    "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
    "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
RFC_8037 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@pytest.mark.requirement("M144")
@pytest.mark.parametrize(
    ("jwk", "published"),
    [
        (RFC_7638, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        (RFC_8037, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
    ],
    ids=["RFC 7638, 3.1", "RFC 8037, A.3"],
)
def test_thumbprints_are_those_that_the_rfcs_publish(jwk: dict[str, str], published: str) -> None:
    key = account_key(jwk)
    assert key.thumbprint == published
    assert thumbprint(key.public_key) == published


@pytest.mark.requirement("M144")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_thumbprint_is_the_digest_of_the_required_members_in_order(algorithm: str) -> None:
    key = ClientKey(algorithm)
    members = [f'"{name}":"{key.jwk[name]}"' for name in ("crv", "e", "kty", "n", "x", "y") if name in key.jwk]
    canonical = "{" + ",".join(members) + "}"
    assert key.public.jwk == canonical
    assert key.public.thumbprint == b64(sha256(canonical.encode()).digest())
    assert thumbprint(key.private.public_key()) == key.public.thumbprint


def test_keys_that_no_account_can_have_have_no_thumbprint() -> None:
    assert thumbprint(ec.generate_private_key(ec.SECP256K1()).public_key()) is None
    assert thumbprint(ed448.Ed448PrivateKey.generate().public_key()) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stored_key_is_the_key(algorithm: str) -> None:
    key = ClientKey(algorithm).public
    stored = stored_account_key(key.jwk)
    assert (stored.jwk, stored.thumbprint, stored.algorithms) == (key.jwk, key.thumbprint, key.algorithms)
    assert algorithm in key.algorithms


@pytest.mark.requirement("SEC16")
def test_further_members_do_not_change_the_thumbprint() -> None:
    more = P256.jwk | {"kid": "x", "use": "sig", "alg": "ES256", "x5c": ["AAAA"], "q9": {"a": 1}}
    assert account_key(more) == account_key(P256.jwk)


@pytest.mark.requirement("M144")
def test_leading_zeros_of_integers_do_not_change_the_thumbprint() -> None:
    padded = RSA.jwk | {"n": b64(b"\0" + bytes(RSA.private.public_key().public_numbers().n.to_bytes(256, "big")))}
    assert account_key(padded).thumbprint == RSA.public.thumbprint


@pytest.mark.requirement("SEC16")
@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "k", "oth"])
def test_a_private_key_is_never_taken(member: str) -> None:
    assert refusal(P256.jwk | {member: "AAAA"}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.requirement("M22", "SEC18")
@pytest.mark.parametrize("kty", ["oct", "DSA", "rsa", "", None, 1, ["RSA"], {"RSA": 1}])
def test_unknown_key_types_are_refused(kty: object) -> None:
    assert refusal(P256.jwk | {"kty": kty}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.requirement("M22", "SEC18", "SEC32")
@pytest.mark.parametrize("crv", ["P-192", "P-224", "secp256k1", "K-256", "Ed448", "X25519", "", None, 5, ["P-256"], {}])
@pytest.mark.parametrize("key", [P256, ED25519], ids=["EC", "OKP"])
def test_unknown_curves_are_refused(crv: object, key: ClientKey) -> None:
    assert refusal(key.jwk | {"crv": crv}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.parametrize("jwk", [None, [], "x", 5])
def test_a_jwk_is_an_object(jwk: object) -> None:
    assert refusal(jwk) is ProblemType.MALFORMED


@pytest.mark.parametrize("key", [P256, RSA, ED25519], ids=["EC", "RSA", "OKP"])
def test_every_member_is_needed_and_is_base64url(key: ClientKey) -> None:
    for member in set(key.jwk) - {"kty", "crv"}:
        without = {name: value for name, value in key.jwk.items() if name != member}
        assert refusal(without) is ProblemType.MALFORMED
        wrongs: tuple[object, ...] = (None, 7, [], {}, "=", "A", key.jwk[member] + "=", " " + key.jwk[member])
        for wrong in wrongs:
            assert refusal(key.jwk | {member: wrong}) is ProblemType.MALFORMED


@pytest.mark.requirement("SEC18", "SEC32")
def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    assert refusal(P256.jwk | {"y": P256.jwk["x"]}) is ProblemType.BAD_PUBLIC_KEY
    assert refusal(P256.jwk | {"x": b64(bytes(32)), "y": b64(bytes(32))}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.requirement("SEC18")
@pytest.mark.parametrize("octets", [0, 31, 33, 48, 4000, 60_000])
def test_coordinates_have_the_length_of_their_field(octets: int) -> None:
    assert refusal(P256.jwk | {"x": b64(b"\1" * octets)}) is ProblemType.BAD_PUBLIC_KEY
    assert refusal(ED25519.jwk | {"x": b64(b"\1" * octets)}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.requirement("M22", "SEC18", "SEC41")
@pytest.mark.parametrize("bits", [1024, 2047, 4097, 8192, 16384, 300_000])
def test_short_and_long_rsa_keys_are_refused(bits: int) -> None:
    assert refusal(RSA.jwk | {"n": number((1 << bits) - 1)}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.requirement("SEC18")
def test_leading_zeros_beyond_a_few_are_refused() -> None:
    assert refusal(RSA.jwk | {"n": b64(bytes(2000) + b"\1" * 256)}) is ProblemType.BAD_PUBLIC_KEY
    modulus = RSA.private.public_key().public_numbers().n.to_bytes(256, "big")
    assert refusal(RSA.jwk | {"e": b64(b"\1" * 6), "n": b64(modulus)}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.requirement("SEC18")
@pytest.mark.parametrize("exponent", [1, 3, 17, 65535, 65536, 65538, 2**32 + 1, 2**40 + 1])
def test_odd_exponents_from_65537_are_accepted_and_no_others(exponent: int) -> None:
    assert refusal(RSA.jwk | {"e": number(exponent)}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.parametrize("exponent", [65539, 2**31 + 1])
def test_other_sound_exponents_are_accepted(exponent: int) -> None:
    assert account_key(RSA.jwk | {"e": number(exponent)}).algorithms == RSA.public.algorithms


@pytest.mark.requirement("SEC32")
def test_rsa_keys_that_can_be_factored_are_refused() -> None:
    product = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n // 3 * 3
    product += 0 if product % 2 else 3
    assert refusal({"kty": "RSA", "e": "AQAB", "n": number(product)}) is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_keys_of_usual_sizes_are_accepted(bits: int) -> None:
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    key = account_key({"kty": "RSA", "n": number(numbers.n), "e": "AQAB"})
    assert key.algorithms == ("RS256", "RS384", "RS512", "PS256")


@pytest.mark.requirement("SEC13")
def test_a_key_has_the_algorithm_of_its_curve() -> None:
    assert [ClientKey(each).public.algorithms for each in ("ES256", "ES384", "ES512", "EdDSA")] == [
        ("ES256",),
        ("ES384",),
        ("ES512",),
        ("EdDSA",),
    ]
    assert isinstance(P256.public.public_key, ec.EllipticCurvePublicKey)
    assert json.loads(P256.public.jwk) == P256.jwk


VALUES: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.text(max_size=50) | st.sampled_from([P256.jwk["x"], RSA.jwk["n"], "AQAB", "P-256"])
)


@pytest.mark.requirement("SEC40")
@given(
    st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "alg"]), VALUES),
    st.sampled_from([{}, P256.jwk, RSA.jwk, ED25519.jwk]),
)
def test_no_jwk_raises_anything_but_a_refusal(members: dict[str, Any], base: dict[str, Any]) -> None:
    with suppress(Refused):
        assert account_key(base | members).thumbprint
