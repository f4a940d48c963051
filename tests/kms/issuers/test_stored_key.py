"""CAs whose key is in a key store: what they sign, and what becomes of wrong and missing signatures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509

from kms.issuers import Issuer, IssuerNotReady, Issuers, KeyStores
from kms.issuers.key_stores import KeyLocation, KeyStoreNotReady, KeyStoreRefused, StoredKey
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.crl import ListTemplate, encode_entry
from kms.pki.keys import PrivateKey
from kms.pki.stand_in import ToBeSigned
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority
from kms.resources.core import Secret
from kms.resources.meta import ObjectMeta
from kms.resources.secret_names import KEY_STORE, PIN, TLS_CERTIFICATE, signing_key_name
from tests.support import pki
from tests.support.key_stores import Memory, signature_of
from tests.support.softhsm import Token

RELEASE = "kms-acme"
KEYS = [("ECDSA", 256), ("ECDSA", 384), ("RSA", 2048), ("Ed25519", None)]
LIST = ListTemplate([encode_entry(5, pki.NOW, "superseded")], 9, pki.NOW, pki.NOW + pki.DAY)


def secret_of(signer: Signer, *, store: bytes | None = None) -> Secret:
    text = msgspec.json.encode(Token().store("issuing")) if store is None else store
    return Secret(
        metadata=ObjectMeta(name=signing_key_name("u1"), namespace=RELEASE, resource_version="1"),
        data={TLS_CERTIFICATE: certificate_pem(signer.certificate).encode(), KEY_STORE: text, PIN: b"1234"},
    )


def issuer(signer: Signer, stores: KeyStores, *, secret: Secret | None = None) -> Issuer:
    found = secret_of(signer) if secret is None else secret
    authority = CertificateAuthority(
        metadata=ObjectMeta(name="issuing", namespace="pki", uid="u1"),
        spec=AuthoritySpec(),
        status=AuthorityStatus(certificate=certificate_pem(signer.certificate)),
    )
    return Issuers(find_secret=lambda *_: found, namespace=RELEASE, key_stores=stores).of(authority)


@pytest.mark.requirement("X53")
@pytest.mark.parametrize(("algorithm", "size"), KEYS)
async def test_a_key_in_a_store_signs_certificates_and_lists(algorithm: str, size: int | None) -> None:
    key = pki.key(algorithm, size, "stored")
    signer, memory = pki.root(with_key=key), Memory({"issuing": key})
    remote = issuer(signer, memory.stores)
    issued = await remote.sign(pki.leaf(serial=5, not_after=pki.NOW + timedelta(days=1)))
    leaf, _ = x509.load_pem_x509_certificates(issued.chain.encode())
    leaf.verify_directly_issued_by(signer.certificate)
    assert issued.serial_number == "5"
    revoked = x509.load_der_x509_crl(await remote.revocation_list(LIST))
    assert pki.vouched_for(revoked, signer.certificate)
    assert [each.serial_number for each in revoked] == [5]
    assert memory.signed == 2, "one call for each document"
    assert (remote.not_after, remote.signs_lists) == (signer.not_after, True)
    assert memory.credentials == {PIN: b"1234"}


def other_key(_: ToBeSigned) -> bytes:
    return signature_of(pki.key("ECDSA", 256, "other"), ToBeSigned(b"another message", "sha256"))


def away(_: ToBeSigned) -> bytes:
    raise KeyStoreNotReady("connection refused")


def lost(_: ToBeSigned) -> bytes:
    raise KeyStoreRefused("KeyLost", "no such key")


@pytest.mark.requirement("X54", "X58")
@pytest.mark.parametrize(
    ("sign", "why"), [(other_key, "another key"), (away, "connection refused"), (lost, "no such key")]
)
async def test_without_a_signature_of_its_key_a_ca_is_not_ready(sign: Callable[[ToBeSigned], bytes], why: str) -> None:
    key: PrivateKey = pki.key(which="stored")
    remote = issuer(pki.root(with_key=key), Memory({"issuing": key}, sign=sign).stores)
    with pytest.raises(IssuerNotReady, match=why):
        await remote.sign(pki.leaf(not_after=pki.NOW + timedelta(days=1)))
    with pytest.raises(IssuerNotReady, match=why):
        await remote.revocation_list(LIST)


@pytest.mark.parametrize("store", [b"", b"{", b"\xff", b'{"pkcs11": 3}'])
def test_a_secret_that_cannot_be_read_is_not_used(store: bytes) -> None:
    signer = pki.root()
    with pytest.raises(IssuerNotReady, match="not known"):
        issuer(signer, Memory({}).stores, secret=secret_of(signer, store=store))


def test_a_certificate_that_the_ca_does_not_publish_is_not_used() -> None:
    other = secret_of(pki.root(with_key=pki.key(which="other")))
    with pytest.raises(IssuerNotReady, match="does not belong"):
        issuer(pki.root(), Memory({}).stores, secret=other)


def test_credentials_are_in_no_text() -> None:
    location = KeyLocation.of(Token().store("issuing"), {PIN: b"1234"})
    assert "1234" not in repr(location)
    assert "1234" not in repr(StoredKey(pki.key().public_key()))
