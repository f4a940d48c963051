from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.certificate import (
    LeafTemplate,
    Signer,
    authority_key_identifier,
    certificate_pem,
    certifies,
    chain_pem,
    is_root,
    random_serial,
    serial_number,
    sign,
    sign_leaf,
    validity,
)
from kms.pki.keys import public_key_der
from kms.pki.names import dns_name, ip_address
from tests.support import pki
from tests.support.pki import DAY, NOW, below, key, leaf, root
from tests.support.processor import least_time

ROOT = root()
ISSUING = below(ROOT, path_length=0)
OTHER_KIND: Any = ed448.Ed448PrivateKey.generate().public_key()

KEYS = [("RSA", 2048), ("RSA", 4096), ("ECDSA", 256), ("ECDSA", 384), ("ECDSA", 521), ("Ed25519", None)]


def value_of(certificate: x509.Certificate, type_: type[x509.ExtensionType]) -> tuple[x509.ExtensionType, bool]:
    extension = certificate.extensions.get_extension_for_class(type_)
    return extension.value, extension.critical


def test_what_one_certificate_has_is_in_no_other_certificate_of_the_signer() -> None:
    plain = leaf(dns_name("www.example.com"))
    templates = [
        plain,
        replace(plain, usages=frozenset({"client auth"})),
        replace(plain, usages=frozenset({"digital signature"}), public_key=key("RSA", 2048).public_key()),
        replace(plain, crl_url="http://pki.test/one.crl"),
        replace(plain, crl_url="http://pki.test/two.crl", ca_url="http://pki.test/two.crt"),
    ]
    together = Signer(ISSUING.certificate, ISSUING.key, ISSUING.issuers)
    for template in (*templates, *templates):
        alone = Signer(ISSUING.certificate, ISSUING.key, ISSUING.issuers)
        assert sign_leaf(template, together) == sign_leaf(template, alone)
    assert len({sign_leaf(each, together).public_bytes(Encoding.DER) for each in templates}) == len(templates)


@pytest.mark.requirement("SEC29")
def test_a_certificate_says_what_the_template_says_and_nothing_else() -> None:
    template = leaf(
        dns_name("www.example.com"),
        dns_name("*.example.com"),
        ip_address("10.0.0.1"),
        ip_address("2001:db8::1"),
        common_name="www.example.com",
        subject={"organizations": ("Example",), "countries": ("DE",)},
    )
    certificate = sign_leaf(template, ISSUING)
    assert certificate.version is x509.Version.v3
    assert certificate.serial_number == template.serial
    assert certificate.issuer == ISSUING.certificate.subject
    assert certificate.subject.rfc4514_string() == "CN=www.example.com,O=Example,C=DE"
    assert certificate.not_valid_before_utc == template.not_before
    assert certificate.not_valid_after_utc == template.not_after
    assert certificate.public_key() == template.public_key
    assert certificate.signature_hash_algorithm == hashes.SHA256()
    assert [(each.oid, each.critical) for each in certificate.extensions] == [
        (ExtensionOID.BASIC_CONSTRAINTS, True),
        (ExtensionOID.KEY_USAGE, True),
        (ExtensionOID.EXTENDED_KEY_USAGE, False),
        (ExtensionOID.SUBJECT_KEY_IDENTIFIER, False),
        (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, False),
        (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, False),
    ]
    assert value_of(certificate, x509.BasicConstraints)[0] == x509.BasicConstraints(ca=False, path_length=None)
    assert value_of(certificate, x509.ExtendedKeyUsage)[0] == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    assert value_of(certificate, x509.SubjectAlternativeName)[0] == x509.SubjectAlternativeName(
        [
            x509.DNSName("www.example.com"),
            x509.DNSName("*.example.com"),
            x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        ]
    )


@pytest.mark.requirement("SEC29", "SEC60")
def test_a_certificate_says_where_the_list_and_the_certificate_of_its_ca_are() -> None:
    places = {"crl_url": "http://acme.example.com/crl/pki/ca.crl", "ca_url": "http://acme.example.com/ca/pki/ca.crt"}
    certificate = sign_leaf(replace(leaf(), crl_url=places["crl_url"], ca_url=places["ca_url"]), ISSUING)
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier(places["crl_url"])]
    assert (point.relative_name, point.reasons, point.crl_issuer) == (None, None, None)
    (access,) = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert access.access_method.dotted_string == "1.3.6.1.5.5.7.48.2"
    assert access.access_location == x509.UniformResourceIdentifier(places["ca_url"])
    assert not any(each.critical for each in list(certificate.extensions)[-2:])


def test_a_ca_that_may_not_sign_lists_lets_no_certificate_point_to_one() -> None:
    signer = pki.without_list_signing()
    assert (signer.signs_lists, ISSUING.signs_lists) == (False, True)
    present = {
        each.oid for each in sign_leaf(replace(leaf(), crl_url="http://x", ca_url="http://y"), signer).extensions
    }
    assert ExtensionOID.CRL_DISTRIBUTION_POINTS not in present
    assert ExtensionOID.AUTHORITY_INFORMATION_ACCESS in present


@pytest.mark.requirement("ARI-M12", "SEC29")
def test_the_key_identifiers_lead_from_the_certificate_to_its_issuer() -> None:
    certificate = sign_leaf(leaf(), ISSUING)
    subject = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    issuer = ISSUING.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert subject == x509.SubjectKeyIdentifier.from_public_key(key().public_key())
    assert authority.key_identifier == issuer.digest
    assert authority.authority_cert_issuer is None
    assert authority.authority_cert_serial_number is None


@pytest.mark.requirement("SEC29")
def test_the_names_are_critical_where_the_subject_is_empty() -> None:
    assert value_of(sign_leaf(leaf(), ISSUING), x509.SubjectAlternativeName)[1] is True
    named = sign_leaf(leaf(common_name="www.example.com"), ISSUING)
    assert value_of(named, x509.SubjectAlternativeName)[1] is False


@pytest.mark.requirement("SEC29")
@pytest.mark.parametrize(("algorithm", "size"), KEYS)
def test_key_encipherment_is_for_rsa_alone(algorithm: str, size: int | None) -> None:
    certificate = sign_leaf(leaf(public_key=key(algorithm, size).public_key()), ISSUING)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_encipherment is (algorithm == "RSA")
    assert not usage.key_cert_sign
    assert not usage.crl_sign
    assert not usage.key_agreement


def test_extensions_for_which_no_usage_is_asked_are_left_out() -> None:
    present = {each.oid for each in sign_leaf(leaf(usages=["server auth"]), ISSUING).extensions}
    assert ExtensionOID.KEY_USAGE not in present
    present = {each.oid for each in sign_leaf(leaf(usages=["digital signature"]), ISSUING).extensions}
    assert ExtensionOID.EXTENDED_KEY_USAGE not in present


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (replace(leaf(), names=()), "at least one name"),
        (leaf(public_key=OTHER_KIND), "known algorithm"),
        (leaf(usages=["cert sign"]), "no usages"),
        (leaf(usages=["key encipherment"]), "suits"),
        (leaf(subject={"emailAddress": ("a@example.com",)}), "emailAddress"),
        (leaf(common_name="x" * 65), "length"),
        (leaf(not_before=NOW, not_after=NOW), "before it begins"),
        (leaf(not_before=NOW, not_after=NOW - DAY), "before it begins"),
        (leaf(not_after=ISSUING.not_after + timedelta(seconds=1)), "outlive"),
        (leaf(serial=0), "positive"),
        (leaf(serial=2**160), "159 bits"),
    ],
)
def test_what_must_not_be_certified_is_an_error(template: LeafTemplate, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sign_leaf(template, ISSUING)


def test_a_certificate_may_end_with_its_ca() -> None:
    certificate = sign_leaf(leaf(not_after=ISSUING.not_after), ISSUING)
    assert certificate.not_valid_after_utc == ISSUING.not_after


@pytest.mark.requirement("SEC31")
def test_nothing_outlives_what_is_above_the_ca() -> None:
    """An imported intermediate may be valid longer than the root above it; a chain is not."""
    short = root(common_name="Short", not_after=NOW + 10 * DAY)
    assert Signer(ISSUING.certificate, ISSUING.key, (short.certificate,)).not_after == NOW + 10 * DAY


@pytest.mark.parametrize(("algorithm", "size"), KEYS)
@pytest.mark.parametrize("of_leaf", [("ECDSA", 256), ("RSA", 2048), ("Ed25519", None)])
def test_the_same_template_gives_the_same_bytes_under_every_kind_of_ca(
    algorithm: str, size: int | None, of_leaf: tuple[str, int | None]
) -> None:
    signer = root(with_key=key(algorithm, size, "root"))
    template = leaf(public_key=key(*of_leaf).public_key())
    first, second = sign_leaf(template, signer), sign_leaf(template, signer)
    assert first.public_bytes(Encoding.DER) == second.public_bytes(Encoding.DER)
    assert certifies(signer.certificate, first)


def store(*certificates: x509.Certificate) -> verification.Store:
    return verification.Store(list(certificates))


def test_a_chain_passes_the_verification_of_cryptography() -> None:
    certificate = sign_leaf(leaf(dns_name("www.example.com"), ip_address("10.0.0.1")), ISSUING)
    builder = verification.PolicyBuilder().store(store(ROOT.certificate)).time(NOW + DAY)
    for subject in (x509.DNSName("www.example.com"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))):
        chain = builder.build_server_verifier(subject).verify(certificate, [ISSUING.certificate])
        assert chain == [certificate, ISSUING.certificate, ROOT.certificate]
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example.com")).verify(certificate, [ISSUING.certificate])


def test_a_client_certificate_passes_too() -> None:
    certificate = sign_leaf(leaf(usages=["digital signature", "client auth"]), ISSUING)
    verifier = verification.PolicyBuilder().store(store(ROOT.certificate)).time(NOW + DAY).build_client_verifier()
    assert verifier.verify(certificate, [ISSUING.certificate]).subjects == [x509.DNSName("www.example.com")]


@pytest.mark.requirement("M123")
@pytest.mark.parametrize(("algorithm", "size"), [("RSA", 2048), ("ECDSA", 256), ("ECDSA", 384), ("Ed25519", None)])
def test_a_chain_passes_openssl_strictly(tmp_path: Path, algorithm: str, size: int | None) -> None:
    top = root(with_key=key(algorithm, size, "root"))
    issuing = below(top, with_key=key(algorithm, size, "issuing"), path_length=0)
    certificate = sign_leaf(leaf(public_key=key(algorithm, size).public_key()), issuing)
    (tmp_path / "root.pem").write_text(certificate_pem(top.certificate))
    (tmp_path / "chain.pem").write_text(chain_pem(certificate, issuing))
    command = [
        "openssl", "verify", "-x509_strict", "-attime", str(int((NOW + DAY).timestamp())), "-purpose", "sslserver",
        "-verify_hostname", "www.example.com", "-CAfile", "root.pem", "-untrusted", "chain.pem", "chain.pem",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stdout == "chain.pem: OK\n", result.stderr


def certificates_in(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


@pytest.mark.requirement("M123", "M126")
def test_a_chain_goes_from_the_certificate_upwards_and_leaves_the_root_out() -> None:
    middle = below(ROOT, common_name="Middle")
    issuing = below(middle, common_name="Lowest")
    certificate = sign_leaf(leaf(), issuing)
    chain = certificates_in(chain_pem(certificate, issuing))
    assert chain == [certificate, issuing.certificate, middle.certificate]
    assert all(certifies(upper, lower) for lower, upper in pairwise(chain))


def test_under_a_root_the_root_follows_so_that_there_are_two() -> None:
    certificate = sign_leaf(leaf(), ROOT)
    assert certificates_in(chain_pem(certificate, ROOT)) == [certificate, ROOT.certificate]


def test_a_ca_whose_root_is_not_known_is_followed_by_what_is_known() -> None:
    issuing = replace(ISSUING, issuers=())
    certificate = sign_leaf(leaf(), issuing)
    assert certificates_in(chain_pem(certificate, issuing)) == [certificate, issuing.certificate]


@pytest.mark.requirement("M126", "M152")
def test_a_chain_is_pem_and_nothing_else() -> None:
    pem = chain_pem(sign_leaf(leaf(), ISSUING), ISSUING)
    lines = pem.splitlines()
    assert pem.endswith("-----END CERTIFICATE-----\n")
    assert "\n\n" not in pem
    assert [line for line in lines if line.startswith("-")] == [
        "-----BEGIN CERTIFICATE-----",
        "-----END CERTIFICATE-----",
    ] * 2
    assert all(len(line) <= 64 for line in lines)


@pytest.mark.requirement("SEC59")
def test_a_signer_does_not_show_its_key() -> None:
    assert "key" not in repr(ROOT).lower().replace("authority_key", "")
    assert Signer(ROOT.certificate, ROOT.key) == ROOT


def test_a_certificate_of_the_same_name_that_another_key_signed_is_no_root() -> None:
    impostor = root(with_key=key(which="impostor"))
    assert is_root(ROOT.certificate)
    assert not is_root(ISSUING.certificate)
    assert not certifies(impostor.certificate, ROOT.certificate)
    assert not certifies(ISSUING.certificate, ROOT.certificate)


def ca_without_identifier(public_key: Any) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Old")])
    builder = x509.CertificateBuilder().issuer_name(name).subject_name(name).serial_number(1)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + DAY)
    return sign(builder.public_key(public_key), key())


def test_the_identifier_of_a_ca_that_states_none_is_computed() -> None:
    identifier = authority_key_identifier(ca_without_identifier(key().public_key()))
    assert identifier == x509.AuthorityKeyIdentifier.from_issuer_public_key(key().public_key())


def test_a_ca_with_a_key_of_another_kind_cannot_be_named() -> None:
    with pytest.raises(ValueError, match="neither RSA"):
        authority_key_identifier(ca_without_identifier(OTHER_KIND))


@pytest.mark.requirement("SEC35")
def test_serial_numbers_follow_from_order_and_request() -> None:
    first = serial_number(uid="u", name="n", digest="d")
    assert first == serial_number(uid="u", name="n", digest="d")
    others = [
        serial_number(uid="v", name="n", digest="d"),
        serial_number(uid="u", name="m", digest="d"),
        serial_number(uid="u", name="n", digest="e"),
        serial_number(uid="un", name="", digest="d"),
    ]
    assert len({first, *others}) == 5


@pytest.mark.requirement("SEC31")
@given(st.text(), st.text(), st.text())
def test_serial_numbers_are_positive_and_fit(uid: str, name: str, digest: str) -> None:
    assert serial_number(uid=uid, name=name, digest=digest).bit_length() == 127


@pytest.mark.requirement("SEC31")
@given(st.binary(min_size=16, max_size=16))
def test_random_serial_numbers_fit_too(material: bytes) -> None:
    asked: list[int] = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return material

    assert random_serial(entropy).bit_length() == 127
    assert asked == [16]


BACKDATE = timedelta(seconds=60)
CA_END = NOW + 100 * DAY


def dates(
    duration: timedelta = 30 * DAY,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    ca_not_after: datetime | None = CA_END,
    base: datetime = NOW,
) -> tuple[datetime, datetime]:
    return validity(
        base,
        duration,
        requested_not_before=not_before,
        requested_not_after=not_after,
        ca_not_after=ca_not_after,
        backdate=BACKDATE,
    )


def test_a_lifetime_is_the_duration_from_shortly_before_the_base() -> None:
    assert dates() == (NOW - BACKDATE, NOW - BACKDATE + 30 * DAY)


def test_a_lifetime_is_cut_where_the_cas_ends() -> None:
    assert dates(1000 * DAY) == (NOW - BACKDATE, CA_END)
    assert dates(1000 * DAY, ca_not_after=None) == (NOW - BACKDATE, NOW - BACKDATE + 1000 * DAY)


def test_requested_dates_are_honoured() -> None:
    assert dates(not_before=NOW + DAY) == (NOW + DAY, NOW + 31 * DAY)
    assert dates(not_after=NOW + DAY) == (NOW - BACKDATE, NOW + DAY)
    assert dates(not_before=NOW - DAY, not_after=CA_END) == (NOW - DAY, CA_END)


@pytest.mark.requirement("M108", "SEC31")
def test_a_requested_end_beyond_the_cas_is_refused_and_not_cut() -> None:
    with pytest.raises(ValueError, match="2027-03-03T12:00:01Z is after the end of the CA"):
        dates(not_after=CA_END + timedelta(seconds=1))


@pytest.mark.requirement("SEC31")
@pytest.mark.parametrize(
    ("not_before", "not_after"),
    [(NOW + DAY, NOW + DAY), (NOW + DAY, NOW), (None, NOW - DAY), (CA_END, None), (CA_END + DAY, None)],
)
def test_nothing_is_issued_without_a_lifetime(not_before: datetime | None, not_after: datetime | None) -> None:
    with pytest.raises(ValueError, match="before it begins"):
        dates(not_before=not_before, not_after=not_after)


@pytest.mark.requirement("SEC31", "SEC59")
def test_nothing_is_issued_under_a_ca_that_has_ended() -> None:
    with pytest.raises(ValueError, match="before it begins"):
        dates(ca_not_after=NOW - DAY)


def test_dates_are_whole_seconds() -> None:
    base = NOW.replace(microsecond=999_999)
    assert all(each.microsecond == 0 for each in dates(base=base))
    assert all(each.microsecond == 0 for each in dates(not_before=base, not_after=base + DAY))


moments = st.datetimes(datetime(1960, 1, 1), datetime(9999, 12, 31)).map(lambda each: each.replace(tzinfo=UTC))  # noqa: DTZ001


@given(
    moments,
    st.timedeltas(timedelta(seconds=-10), timedelta(days=200_000)),
    st.none() | moments,
    st.none() | moments,
    st.none() | moments,
)
def test_dates_are_in_order_and_within_the_ca(
    base: datetime,
    duration: timedelta,
    not_before: datetime | None,
    not_after: datetime | None,
    ca_not_after: datetime | None,
) -> None:
    try:
        begin, end = dates(duration, not_before, not_after, ca_not_after, base)
    except ValueError:
        return
    assert begin < end
    assert end > base
    assert ca_not_after is None or end <= ca_not_after
    assert not_after is not None or end - begin <= duration


def test_signing_is_cheap() -> None:
    template = leaf(dns_name("www.example.com"))
    assert least_time(lambda: chain_pem(sign_leaf(template, ISSUING), ISSUING), times=20) < 0.002


def test_a_certificate_carries_the_key_of_its_template() -> None:
    certificate = sign_leaf(leaf(), ISSUING)
    presented = certificate.public_key()
    assert public_key_der(presented) == public_key_der(key().public_key())  # type: ignore[arg-type]
