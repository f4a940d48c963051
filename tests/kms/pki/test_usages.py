from __future__ import annotations

import pytest
import yaml
from cryptography.x509.oid import ExtendedKeyUsageOID

from kms.pki.usages import EXTENDED_KEY_USAGES, KEY_USAGES, KNOWN_USAGES, extended_key_usage, key_usage, lacks_key_usage
from tests.support.crds import CRDS


def test_the_usages_are_those_that_manifests_may_name() -> None:
    crd = yaml.safe_load((CRDS / "certificateprofiles.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert set(spec["certificate"]["properties"]["usages"]["items"]["enum"]) == KNOWN_USAGES


@pytest.mark.parametrize("usage", ["cert sign", "crl sign"])
def test_an_end_entity_never_gets_the_usages_of_a_ca(usage: str) -> None:
    assert usage not in KNOWN_USAGES


@pytest.mark.parametrize(
    ("algorithm", "granted"),
    [
        ("RSA-2048", {"digital_signature", "content_commitment", "key_encipherment", "data_encipherment"}),
        ("ECDSA-P256", {"digital_signature", "content_commitment", "key_agreement"}),
        ("Ed25519", {"digital_signature", "content_commitment"}),
    ],
)
def test_a_key_gets_only_the_usages_that_it_is_able_to(algorithm: str, granted: set[str]) -> None:
    extension = key_usage(KNOWN_USAGES, algorithm)
    assert extension is not None
    bits = {*KEY_USAGES.values(), "key_cert_sign", "crl_sign"}
    assert {bit for bit in bits if getattr(extension, bit)} == granted


def test_signing_is_another_word_for_digital_signature() -> None:
    assert key_usage({"signing"}, "Ed25519") == key_usage({"digital signature"}, "Ed25519")


def test_no_key_usage_is_put_where_none_is_asked_for() -> None:
    assert key_usage({"server auth"}, "ECDSA-P256") is None
    assert not lacks_key_usage({"server auth"}, "ECDSA-P256")


def test_a_key_that_no_key_usage_suits_is_an_error_and_not_unlimited() -> None:
    assert lacks_key_usage({"key encipherment", "server auth"}, "ECDSA-P256")
    with pytest.raises(ValueError, match="ECDSA-P256"):
        key_usage({"key encipherment", "server auth"}, "ECDSA-P256")


def test_purposes_are_in_one_order_and_each_once() -> None:
    extension = extended_key_usage(["client auth", "s/mime", "email protection", "server auth", "digital signature"])
    assert extension is not None
    assert list(extension) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ]
    everything = extended_key_usage(KNOWN_USAGES)
    assert everything is not None
    assert set(everything) == set(EXTENDED_KEY_USAGES.values())


def test_no_extended_key_usage_is_put_where_no_purpose_is_asked_for() -> None:
    assert extended_key_usage({"digital signature"}) is None
