from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.keys import (
    KEY_ALGORITHMS,
    fingerprint,
    generate_key,
    key_algorithm,
    load_private_key,
    private_key_pem,
    public_key_der,
    same_public_key,
    weakness,
)
from tests.support.pki import key

KINDS = [("RSA", 2048), ("ECDSA", 256), ("ECDSA", 384), ("ECDSA", 521), ("Ed25519", None)]


@pytest.mark.parametrize(
    ("algorithm", "size", "name"),
    [
        ("RSA", 2048, "RSA-2048"),
        ("RSA", 3072, "RSA-3072"),
        ("RSA", 4096, "RSA-4096"),
        ("ECDSA", 256, "ECDSA-P256"),
        ("ECDSA", 384, "ECDSA-P384"),
        ("ECDSA", 521, "ECDSA-P521"),
        ("Ed25519", None, "Ed25519"),
    ],
)
def test_every_kind_of_key_can_be_made_and_is_sound(algorithm: str, size: int | None, name: str) -> None:
    public_key = key(algorithm, size).public_key()
    assert key_algorithm(public_key) == name
    assert name in KEY_ALGORITHMS
    assert weakness(public_key) is None


def test_sizes_have_the_defaults_that_the_manual_promises() -> None:
    assert key_algorithm(generate_key("RSA", None).public_key()) == "RSA-3072"
    assert key_algorithm(generate_key("ECDSA", None).public_key()) == "ECDSA-P384"


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [("RSA", 1024), ("RSA", 2049), ("ECDSA", 224), ("ECDSA", 2048), ("Ed25519", 256), ("DSA", None)],
)
def test_no_other_kind_of_key_is_made(algorithm: str, size: int | None) -> None:
    with pytest.raises(ValueError, match=algorithm):
        generate_key(algorithm, size)


@pytest.mark.parametrize(("algorithm", "size"), KINDS)
def test_a_private_key_survives_pem(algorithm: str, size: int | None) -> None:
    original = key(algorithm, size)
    pem = private_key_pem(original)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert same_public_key(load_private_key(pem).public_key(), original.public_key())


def test_the_older_forms_of_pem_are_read_too() -> None:
    for algorithm, size in KINDS[:4]:
        pem = key(algorithm, size).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        assert same_public_key(load_private_key(pem).public_key(), key(algorithm, size).public_key())


def test_an_encrypted_key_is_refused_with_the_fix() -> None:
    pem = key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass"))
    with pytest.raises(ValueError, match="without a password"):
        load_private_key(pem)


@pytest.mark.parametrize(
    "other",
    [ec.generate_private_key(ec.SECP256K1()), ed448.Ed448PrivateKey.generate(), x25519.X25519PrivateKey.generate()],
)
def test_a_key_of_another_kind_is_refused(other: ec.EllipticCurvePrivateKey) -> None:
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="must be RSA, ECDSA"):
        load_private_key(pem)


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(ValueError, match="larger than"):
        load_private_key(private_key_pem(key()) + b"\n" * 65536)


@pytest.mark.requirement("SEC40", "SEC64")
@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda der: b"-----BEGIN PRIVATE KEY-----\n" + der))
)
def test_any_bytes_give_a_key_or_a_value_error_that_does_not_quote_them(pem: bytes) -> None:
    with pytest.raises(ValueError, match="the private key") as refusal:
        load_private_key(pem)
    assert len(str(refusal.value)) < 200


@pytest.mark.requirement("SEC32")
@pytest.mark.parametrize("size", [1024, 2047, 2056, 4104])
def test_rsa_keys_of_other_sizes_must_not_be_used(size: int) -> None:
    public_key = rsa.RSAPublicNumbers(65537, 2**size - 1).public_key()
    assert key_algorithm(public_key) == f"RSA-{size}"
    found = weakness(public_key)
    assert found is not None
    assert f"RSA-{size}" in found
    assert "RSA-2048" in found


@pytest.mark.requirement("SEC32")
def test_an_rsa_key_with_a_small_exponent_must_not_be_used() -> None:
    assert weakness(rsa.RSAPublicNumbers(3, 2**2048 - 1).public_key()) == "its public exponent is 3, not 65537"


@pytest.mark.requirement("SEC32")
@pytest.mark.parametrize(
    "public_key",
    [
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ec.generate_private_key(ec.SECP224R1()).public_key(),
        ec.generate_private_key(ec.BrainpoolP256R1()).public_key(),
        dsa.generate_private_key(2048).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
        object(),
    ],
)
def test_keys_of_other_kinds_have_no_name_and_must_not_be_used(public_key: object) -> None:
    assert key_algorithm(public_key) is None
    assert weakness(public_key) is not None


def test_a_fingerprint_is_that_of_the_subject_public_key_info() -> None:
    public_key = key().public_key()
    assert fingerprint(public_key) == hashlib.sha256(public_key_der(public_key)).hexdigest()
    assert fingerprint(public_key) != fingerprint(key(which="other").public_key())


def test_keys_are_compared_by_value() -> None:
    again = load_private_key(private_key_pem(key())).public_key()
    assert same_public_key(key().public_key(), again)
    assert not same_public_key(key().public_key(), key(which="other").public_key())
    assert not same_public_key(key().public_key(), key("RSA", 2048).public_key())
