from __future__ import annotations

import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from kms.pki.ca import serving_authority, serving_certificate
from kms.pki.certificate import Signer
from kms.pki.names import dns_name, ip_address
from tests.support.pki import DAY, NOW, key

AUTHORITY_KEY = key(which="serving authority")
AUTHORITY = serving_authority(AUTHORITY_KEY, serial=1, not_before=NOW - DAY, not_after=NOW + 3650 * DAY)
SIGNER = Signer(AUTHORITY, AUTHORITY_KEY)
NAMES = (dns_name("kms-acme.kms-acme.svc"), dns_name("acme.example.com"), ip_address("127.0.0.1"), ip_address("::1"))


def certificate() -> x509.Certificate:
    return serving_certificate(
        NAMES, key(which="server").public_key(), SIGNER, serial=2, not_before=NOW, not_after=NOW + 90 * DAY
    )


def test_the_serving_authority_signs_end_entities_only() -> None:
    constraints = AUTHORITY.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert AUTHORITY.subject.rfc4514_string() == "CN=kms-acme serving CA"


def test_the_serving_certificate_is_for_servers() -> None:
    extensions = certificate().extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize(
    "subject",
    [
        x509.DNSName("kms-acme.kms-acme.svc"),
        x509.DNSName("acme.example.com"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ],
)
def test_a_client_that_trusts_the_serving_authority_accepts_every_name(subject: verification.Subject) -> None:
    policy = verification.PolicyBuilder().store(verification.Store([AUTHORITY])).time(NOW + DAY)
    assert policy.build_server_verifier(subject).verify(certificate(), [])


def test_the_serving_certificate_does_not_outlive_its_authority() -> None:
    with pytest.raises(ValueError, match="outlive"):
        serving_certificate(
            NAMES,
            key().public_key(),
            SIGNER,
            serial=2,
            not_before=NOW,
            not_after=AUTHORITY.not_valid_after_utc + timedelta(seconds=1),
        )
