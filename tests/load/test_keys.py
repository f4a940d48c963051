from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from josepy.jwk import JWKEC
from josepy.jws import JWS

from e2e.load.keys import (
    AccountKey,
    ExternalAccount,
    b64url,
    b64url_decode,
    certificate_key,
    certificate_request,
    encode_payload,
)


@pytest.fixture
def key() -> AccountKey:
    return AccountKey.generate()


def test_base64url_has_no_padding_and_goes_both_ways() -> None:
    assert b64url(b"\xff\xfe") == "__4"
    assert all(b64url_decode(b64url(bytes(size))) == bytes(size) for size in range(9))


def test_another_implementation_verifies_our_signature(key: AccountKey) -> None:
    body = key.jws({"alg": "ES256", "nonce": "n", "url": "u", "jwk": key.jwk}, {"a": 1})
    jws = JWS.from_json(json.loads(body))
    assert jws.verify(JWKEC.from_json(key.jwk))
    assert json.loads(jws.payload) == {"a": 1}


def test_another_implementation_finds_the_same_thumbprint(key: AccountKey) -> None:
    jwk = JWKEC.from_json(key.jwk)
    assert isinstance(jwk, JWKEC)
    assert b64url(jwk.thumbprint()) == key.thumbprint


def test_post_as_get_signs_nothing_and_an_empty_object_is_not_nothing() -> None:
    assert encode_payload(None) == b""
    assert encode_payload({}) == b"{}"
    assert encode_payload(b"as it is") == b"as it is"


def test_a_binding_is_a_mac_over_the_account_key(key: AccountKey) -> None:
    secret = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
    binding = ExternalAccount.parse("kid-1", secret + "\n").binding(key, "https://a.test/new-account")
    assert json.loads(b64url_decode(binding["protected"])) == {
        "alg": "HS256", "kid": "kid-1", "url": "https://a.test/new-account",
    }  # fmt: skip
    assert json.loads(b64url_decode(binding["payload"])) == key.jwk
    signed = f"{binding['protected']}.{binding['payload']}".encode()
    assert b64url_decode(binding["signature"]) == hmac.digest(bytes(range(32)), signed, hashlib.sha256)


def test_a_request_asks_for_its_names_and_only_on_wish_for_a_common_name() -> None:
    key = certificate_key()
    request = x509.load_der_x509_csr(certificate_request(["a.test", "b.test"], key))
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.test", "b.test"]
    assert request.public_key() == key.public_key()
    assert request.is_signature_valid
    assert not list(request.subject)
    named = x509.load_der_x509_csr(certificate_request(["a.test"], key, common_name=True))
    assert named.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "a.test"
