"""Keys that cannot be read: what builders make with them is what they make with the key itself."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kms.pki.ca import AuthorityTemplate, intermediate, self_signed
from kms.pki.certificate import Signer, sign_leaf
from kms.pki.crl import ListTemplate, encode_entry, revocation_list
from kms.pki.keys import PrivateKey
from kms.pki.stand_in import (
    ToBeSigned,
    WrongSignature,
    absent,
    completed,
    is_stand_in,
    stand_in,
    to_be_signed,
    verify,
)
from tests.support import pki
from tests.support.key_stores import signature_of

KEYS = [("ECDSA", 256), ("ECDSA", 384), ("ECDSA", 521), ("RSA", 2048), ("Ed25519", None)]


def template() -> AuthorityTemplate:
    return AuthorityTemplate(
        common_name="Remote", serial=7, not_before=pki.NOW, not_after=pki.NOW + 9 * pki.DAY, path_length=0
    )


def leaf(signer: Signer) -> bytes:
    built = sign_leaf(pki.leaf(serial=5, not_after=pki.NOW + timedelta(days=1)), signer)
    return built.public_bytes(Encoding.DER)


def crl(signer: Signer) -> bytes:
    entries = [encode_entry(each, pki.NOW, "superseded") for each in (3, 5, 700)]
    return revocation_list(ListTemplate(entries, 9, pki.NOW, pki.NOW + pki.DAY), signer)


@pytest.mark.requirement("X53")
@pytest.mark.parametrize(("algorithm", "size"), KEYS)
@pytest.mark.parametrize("what", ["leaf", "crl", "root", "intermediate", "request"])
def test_two_passes_build_what_the_key_itself_builds(what: str, algorithm: str, size: int | None) -> None:
    key = pki.key(algorithm, size, "remote")
    signer = pki.root(with_key=key)
    below = pki.key(which="below")

    def build(with_key: PrivateKey) -> bytes:
        match what:
            case "leaf":
                return leaf(signer.with_key(with_key))
            case "crl":
                return crl(signer.with_key(with_key))
            case "root":
                return self_signed(template(), with_key).public_bytes(Encoding.DER)
            case "intermediate":
                return intermediate(template(), below, signer.with_key(with_key)).public_bytes(Encoding.DER)
            case _:
                return pki.signed(pki.csr_builder("a.example.com"), with_key)

    wanted = to_be_signed(build, key.public_key())
    built = completed(build, key.public_key(), wanted, signature_of(key, wanted, deterministic=True))
    if what == "request":
        assert x509.load_der_x509_csr(built).is_signature_valid
    else:
        assert built == build(key)


@pytest.mark.requirement("X54")
@pytest.mark.parametrize(("algorithm", "size"), KEYS)
def test_a_signature_of_another_key_builds_nothing(algorithm: str, size: int | None) -> None:
    signer = pki.root(with_key=pki.key(algorithm, size, "remote"))
    public_key = signer.key.public_key()

    def build(with_key: PrivateKey) -> bytes:
        return leaf(signer.with_key(with_key))

    wanted = to_be_signed(build, public_key)
    other = signature_of(pki.key(algorithm, size, "other"), wanted)
    for wrong in (other, b"", other[:-1], bytes(len(other))):
        with pytest.raises(WrongSignature):
            completed(build, public_key, wanted, wrong)


def test_a_document_that_changes_between_the_passes_is_not_built() -> None:
    signer = pki.root(with_key=pki.key(which="remote"))
    serials = iter((1, 2))

    def build(with_key: PrivateKey) -> bytes:
        changing = pki.leaf(serial=next(serials), not_after=pki.NOW + timedelta(days=1))
        return sign_leaf(changing, signer.with_key(with_key)).public_bytes(Encoding.DER)

    wanted = to_be_signed(build, signer.key.public_key())
    with pytest.raises(ValueError, match="differently"):
        completed(build, signer.key.public_key(), wanted, signature_of(signer.key, wanted))


def test_what_the_signer_raises_comes_out_of_the_builder() -> None:
    def away(_: ToBeSigned) -> bytes:
        raise ConnectionError("the store is away")

    for algorithm, size in KEYS:
        key = stand_in(pki.key(algorithm, size).public_key(), away)
        with pytest.raises(ConnectionError):
            self_signed(template(), key)


@pytest.mark.parametrize(("algorithm", "size"), KEYS)
def test_nothing_but_a_signature_can_be_had_of_the_key(algorithm: str, size: int | None) -> None:
    key = absent(pki.key(algorithm, size).public_key())
    assert is_stand_in(key)
    assert not is_stand_in(pki.key(algorithm, size))
    with pytest.raises(TypeError):
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(RuntimeError):
        self_signed(template(), key)


def test_a_hash_that_does_not_fit_the_key_is_no_signature() -> None:
    for key, hash_ in ((pki.key(), None), (pki.key("Ed25519", None), "sha256")):
        with pytest.raises(WrongSignature):
            verify(key.public_key(), ToBeSigned(b"message", hash_), b"signature")


def test_a_signer_with_another_object_for_its_key_is_the_same_ca() -> None:
    signer = pki.root()
    other = signer.with_key(absent(signer.key.public_key()))
    assert (other, other.chain, other.not_after) == (signer, signer.chain, signer.not_after)
    assert signer.key is pki.key(which="root")
