from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.ca import (
    AuthorityTemplate,
    InvalidAuthority,
    NameConstraints,
    chain_to_root_pem,
    intermediate,
    matches_template,
    remaining_path_length,
    renewal_time,
    self_signed,
    subject_key_id,
    trust_anchor_pem,
)
from kms.pki.certificate import Signer, certifies, sign_leaf
from kms.pki.names import dns_name
from tests.support.pki import DAY, NOW, below, key, leaf, root

CONSTRAINTS = NameConstraints(
    permitted_domains=("example.com",),
    permitted_networks=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")),
    excluded_domains=("admin.example.com",),
    excluded_networks=(ipaddress.ip_network("10.9.0.0/16"),),
)
TEMPLATE = AuthorityTemplate(
    common_name="Example Root",
    subject={"organizations": ("Example",), "countries": ("DE",)},
    serial=2**126 + 1,
    not_before=NOW,
    not_after=NOW + 3650 * DAY,
)
KEYS = [("RSA", 2048), ("ECDSA", 256), ("ECDSA", 384), ("ECDSA", 521), ("Ed25519", None)]


def extension(certificate: x509.Certificate, type_: type[Any]) -> x509.Extension[Any]:
    return certificate.extensions.get_extension_for_class(type_)


@pytest.mark.parametrize(("algorithm", "size"), KEYS)
def test_a_root_is_signed_by_itself(algorithm: str, size: int | None) -> None:
    certificate = self_signed(TEMPLATE, key(algorithm, size))
    assert certificate.subject == certificate.issuer
    assert certificate.subject.rfc4514_string() == "CN=Example Root,O=Example,C=DE"
    assert certificate.serial_number == TEMPLATE.serial
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (NOW, NOW + 3650 * DAY)
    assert certifies(certificate, certificate)


def test_the_extensions_of_a_root_are_those_of_a_ca() -> None:
    certificate = self_signed(replace(TEMPLATE, path_length=1), key())
    assert [(each.oid, each.critical) for each in certificate.extensions] == [
        (ExtensionOID.BASIC_CONSTRAINTS, True),
        (ExtensionOID.KEY_USAGE, True),
        (ExtensionOID.SUBJECT_KEY_IDENTIFIER, False),
    ]
    assert extension(certificate, x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=1)
    usage = extension(certificate, x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature
    assert extension(self_signed(TEMPLATE, key()), x509.BasicConstraints).value.path_length is None


def test_an_intermediate_names_its_issuer() -> None:
    top = root()
    certificate = below(top, path_length=0).certificate
    assert certificate.issuer == top.certificate.subject
    assert certifies(top.certificate, certificate)
    assert [each.oid for each in certificate.extensions] == [
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ]
    assert extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier.hex() == subject_key_id(
        top.certificate
    )


def test_name_constraints_are_critical_and_whole() -> None:
    found = extension(self_signed(replace(TEMPLATE, constraints=CONSTRAINTS), key()), x509.NameConstraints)
    assert found.critical
    assert found.value.permitted_subtrees == [
        x509.DNSName("example.com"),
        x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")),
        x509.IPAddress(ipaddress.ip_network("2001:db8::/32")),
    ]
    assert found.value.excluded_subtrees == [
        x509.DNSName("admin.example.com"),
        x509.IPAddress(ipaddress.ip_network("10.9.0.0/16")),
    ]


def test_empty_name_constraints_are_none() -> None:
    certificate = self_signed(replace(TEMPLATE, constraints=NameConstraints()), key())
    with pytest.raises(x509.ExtensionNotFound):
        extension(certificate, x509.NameConstraints)
    only_permitted = replace(TEMPLATE, constraints=NameConstraints(permitted_domains=("a.example",)))
    assert extension(self_signed(only_permitted, key()), x509.NameConstraints).value.excluded_subtrees is None


@pytest.mark.parametrize(
    ("name", "accepted"), [("www.example.com", True), ("www.example.org", False), ("admin.example.com", False)]
)
def test_clients_enforce_the_name_constraints(name: str, accepted: bool) -> None:
    top = root()
    template = replace(TEMPLATE, common_name="Constrained", not_after=NOW + 100 * DAY, constraints=CONSTRAINTS)
    issuing = Signer(
        intermediate(template, key(which="constrained"), top), key(which="constrained"), (top.certificate,)
    )
    certificate = sign_leaf(leaf(dns_name(name)), issuing)
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([top.certificate]))
        .time(NOW + DAY)
        .build_server_verifier(x509.DNSName(name))
    )
    if accepted:
        assert len(verifier.verify(certificate, [issuing.certificate])) == 3
    else:
        with pytest.raises(verification.VerificationError):
            verifier.verify(certificate, [issuing.certificate])


@pytest.mark.requirement("SEC59")
def test_a_renewed_ca_is_good_for_the_chains_of_the_old_one() -> None:
    """Both ways: what the old one has signed under the new one, and what the new one signs under the old (SEC59)."""
    old = root(not_after=NOW + 50 * DAY, serial=1)
    new = root(not_before=NOW, not_after=NOW + 400 * DAY, serial=2)
    assert old.certificate != new.certificate
    assert subject_key_id(old.certificate) == subject_key_id(new.certificate)
    for signer, trusted in ((old, new), (new, old)):
        certificate = sign_leaf(leaf(), signer)
        store = verification.Store([trusted.certificate])
        verifier = verification.PolicyBuilder().store(store).time(NOW + DAY)
        assert verifier.build_server_verifier(x509.DNSName("www.example.com")).verify(certificate, [])


def test_an_intermediate_of_the_old_root_stays_good_under_the_renewed_one() -> None:
    old, new = root(serial=1), root(serial=2, not_before=NOW, not_after=NOW + 400 * DAY)
    assert certifies(new.certificate, below(old).certificate)


@pytest.mark.parametrize("end", [NOW, NOW - DAY])
def test_a_ca_without_a_lifetime_is_not_made(end: Any) -> None:
    with pytest.raises(ValueError, match="before it begins"):
        self_signed(replace(TEMPLATE, not_after=end), key())


@pytest.mark.requirement("SEC31", "SEC59")
def test_an_intermediate_does_not_outlive_what_is_above_it() -> None:
    with pytest.raises(ValueError, match="outlive"):
        below(root(not_after=NOW + DAY), not_after=NOW + DAY + timedelta(seconds=1))


def test_a_subject_that_no_certificate_has_room_for_is_an_error() -> None:
    with pytest.raises(ValueError, match="organizations"):
        self_signed(replace(TEMPLATE, subject={"organizations": ("x" * 65,)}), key())


def test_the_path_length_counts_down_from_the_root() -> None:
    top = root(path_length=2)
    middle = below(top, common_name="Middle")
    lowest = below(middle, common_name="Lowest")
    assert [remaining_path_length(each) for each in (top, middle, lowest)] == [2, 1, 0]
    assert extension(middle.certificate, x509.BasicConstraints).value.path_length == 1
    with pytest.raises(InvalidAuthority, match="greater pathLength") as refusal:
        below(lowest, common_name="Too low")
    assert refusal.value.reason == "PathLengthExceeded"


def test_a_path_length_is_kept_where_it_fits_and_cut_where_it_does_not() -> None:
    top = root(path_length=2)
    assert remaining_path_length(below(top, path_length=0)) == 0
    assert remaining_path_length(below(top, path_length=5)) == 1
    assert remaining_path_length(root()) is None
    assert remaining_path_length(below(root(), path_length=3)) == 3


def test_a_limit_further_up_counts_too() -> None:
    """An imported chain may state a path length at its top alone."""
    top = root(path_length=1)
    loose = below(replace(top, certificate=root().certificate), common_name="Loose")
    assert remaining_path_length(replace(loose, issuers=(top.certificate,))) == 0


def test_a_certificate_is_as_wanted_until_something_of_it_changes() -> None:
    top = root()
    template = replace(TEMPLATE, not_after=NOW + 100 * DAY, constraints=CONSTRAINTS, path_length=0)
    certificate = intermediate(template, key(), top)
    later = replace(template, serial=5, not_before=NOW + DAY, not_after=NOW + 200 * DAY)
    assert matches_template(certificate, template, key(), top)
    assert matches_template(certificate, later, key(), top)
    for changed in (
        replace(template, common_name="Other"),
        replace(template, subject={}),
        replace(template, path_length=None),
        replace(template, constraints=None),
        replace(template, constraints=replace(CONSTRAINTS, permitted_domains=("example.org",))),
    ):
        assert not matches_template(certificate, changed, key(), top)
    assert not matches_template(certificate, template, key(which="other"), top)
    assert not matches_template(certificate, template, key(), root(with_key=key(which="other root")))
    assert not matches_template(certificate, template, key(), None)


def test_a_root_is_as_wanted_too() -> None:
    assert matches_template(self_signed(TEMPLATE, key()), TEMPLATE, key(), None)
    assert not matches_template(self_signed(TEMPLATE, key()), replace(TEMPLATE, path_length=1), key(), None)


def test_a_certificate_that_the_renewed_issuer_would_sign_again_is_still_as_wanted() -> None:
    certificate = intermediate(replace(TEMPLATE, not_after=NOW + 100 * DAY), key(), root(serial=1))
    assert matches_template(certificate, TEMPLATE, key(), root(serial=2))


@given(st.integers(min_value=1, max_value=40_000))
def test_renewal_is_due_after_two_thirds_of_the_lifetime(days: int) -> None:
    certificate = self_signed(replace(TEMPLATE, not_after=NOW + days * DAY), key())
    assert abs(renewal_time(certificate) - (NOW + days * DAY * 2 / 3)) < timedelta(seconds=1)


def certificates_in(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def test_the_published_chain_goes_up_to_the_root() -> None:
    top = root()
    issuing = below(top)
    assert certificates_in(chain_to_root_pem(issuing)) == [issuing.certificate, top.certificate]
    assert certificates_in(trust_anchor_pem(issuing)) == [top.certificate]
    assert certificates_in(chain_to_root_pem(top)) == certificates_in(trust_anchor_pem(top)) == [top.certificate]


def test_the_subject_key_id_is_hexadecimal() -> None:
    certificate = self_signed(TEMPLATE, key())
    assert subject_key_id(certificate) == x509.SubjectKeyIdentifier.from_public_key(key().public_key()).digest.hex()
