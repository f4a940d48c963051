"""Contents and dates of a returned end entity's certificate, compared with what was asked for."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from kms.pki.certificate import name_in
from kms.pki.extensions import find_extension
from kms.pki.names import InvalidName, Name, common_name_of
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.quoting import quoted
from kms.pki.returned.base import SKEW, Expected, Rejected
from kms.pki.returned.form import has_weak_signature
from kms.pki.structure import TBSCertificate, request_info, tbs_certificate
from kms.pki.subject_policy import unchanged_violation
from kms.pki.subjects import COMMON_NAME, attribute_name
from kms.pki.usages import EXTENDED_KEY_USAGES, usage_of_purpose

_BACKDATED: Final = timedelta(hours=24)
_SHORTEST: Final = timedelta(minutes=10)
_SHORTEST_SHARE: Final = 10
_SERIAL_OCTETS: Final = 20
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
"""Extensions that TLS clients process, so that they may be critical."""


def check_contents(leaf: x509.Certificate, expected: Expected) -> None:
    """Raise Rejected unless the certificate has the key, names, subject and usages that were asked for."""
    try:
        tbs = tbs_certificate(leaf)
    except PARSER_ERRORS:
        raise Rejected(
            "Unreadable", "The certificate is not of version 3, has unique identifiers or no extensions."
        ) from None
    if bytes(tbs.public_key.data) != bytes(request_info(expected.request.der).public_key.data):
        raise Rejected("KeyMismatch", "The certificate has another key than the request.")
    _check_names(leaf, expected.names)
    _check_subject(leaf, expected)
    _check_end_entity(leaf)
    _check_purposes(leaf, expected.usages)
    _check_critical(leaf)
    if has_weak_signature(leaf):
        raise Rejected("WeakSignature", "The certificate is signed with something other than SHA-2, SHA-3 or EdDSA.")
    _check_serial_number(tbs)


def check_dates(leaf: x509.Certificate, expected: Expected, *, now: datetime) -> None:
    """Raise Rejected (InvalidDates) unless the certificate is valid now, and for as long as the policy allows."""
    not_before, not_after = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    least = max(_SHORTEST, expected.duration / _SHORTEST_SHARE)
    checks = (
        (not_before <= now + SKEW, f"begins at {not_before:%Y-%m-%dT%H:%M:%SZ}, in the future"),
        (
            not_before >= expected.accepted - _BACKDATED,
            f"begins at {not_before:%Y-%m-%dT%H:%M:%SZ}, more than 24 hours before the request",
        ),
        (not_after - now > least, f"ends at {not_after:%Y-%m-%dT%H:%M:%SZ}, less than {least} from now"),
        (
            not_after - now <= expected.policy.maximum_duration + SKEW,
            f"ends at {not_after:%Y-%m-%dT%H:%M:%SZ}, later than spec.maximumDuration of the policy allows",
        ),
    )
    for holds, message in checks:
        if not holds:
            raise Rejected("InvalidDates", f"The certificate {message}.")


def is_shortened(leaf: x509.Certificate, expected: Expected) -> bool:
    """Whether the CA shortened the lifetime that was asked for."""
    return leaf.not_valid_after_utc - leaf.not_valid_before_utc < expected.duration - SKEW


def _check_names(leaf: x509.Certificate, ordered: frozenset[Name]) -> None:
    alternatives = find_extension(leaf, x509.SubjectAlternativeName)
    if alternatives is None:
        raise Rejected("NameMismatch", "The certificate has no subjectAltName.")
    names = frozenset(map(_name, alternatives))
    if missing := sorted(ordered - names):
        raise Rejected("NameMismatch", f"The certificate lacks {missing[0]} of the order.")
    if others := sorted(names - ordered):
        raise Rejected("NameMismatch", f"The certificate has {others[0]}, which is not in the order.")


def _name(general_name: x509.GeneralName) -> Name:
    try:
        name = name_in(general_name)
    except InvalidName as error:
        raise Rejected("NameMismatch", f"The certificate has a name that is not accepted: {error}") from None
    if name is None:
        kind = type(general_name).__name__
        raise Rejected("NameMismatch", f"The certificate has a name of another type than DNS and IP address: {kind}.")
    return name


def _check_subject(leaf: x509.Certificate, expected: Expected) -> None:
    attributes: dict[str, tuple[str, ...]] = {}
    for each in leaf.subject:
        name, value = attribute_name(each.oid.dotted_string), each.value
        attributes[name] = (*attributes.get(name, ()), value if isinstance(value, str) else value.hex())
    common_names = attributes.pop(COMMON_NAME, ())
    if len(common_names) > 1 or not expected.names.issuperset(map(common_name_of, common_names)):
        raise Rejected("NameMismatch", "The common name of the certificate is not one of the names of the order.")
    for attribute, values in expected.subject.items():
        if attributes.pop(attribute, ()) != values:
            raise Rejected(
                "SubjectMismatch",
                f"{attribute} in the subject of the certificate is not what the profile sets:"
                f" {', '.join(map(quoted, values))}.",
            )
    policy = expected.policy
    for attribute, values in attributes.items():
        for value in values:
            if violation := unchanged_violation(attribute, value, expected.names, policy.subject, policy.name):
                raise Rejected("SubjectMismatch", f"The certificate has a subject that is not accepted: {violation}.")


def _check_end_entity(leaf: x509.Certificate) -> None:
    constraints, usage = find_extension(leaf, x509.BasicConstraints), find_extension(leaf, x509.KeyUsage)
    if constraints is not None and constraints.ca:
        raise Rejected("NotAnEndEntity", "The certificate is one of a CA (basicConstraints).")
    if usage is not None and (usage.key_cert_sign or usage.crl_sign):
        raise Rejected("NotAnEndEntity", "The certificate has the key usage of a CA (keyUsage).")


def _check_purposes(leaf: x509.Certificate, usages: Collection[str]) -> None:
    purposes = find_extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None:
        raise Rejected("UsageMismatch", "The certificate has no extendedKeyUsage, so it is for every purpose.")
    allowed = {EXTENDED_KEY_USAGES[each] for each in usages if each in EXTENDED_KEY_USAGES}
    for each in purposes:
        if each not in allowed:
            raise Rejected(
                "UsageMismatch",
                f"The certificate has usage {usage_of_purpose(each.dotted_string)}, which the profile does not ask for"
                " (spec.certificate.usages).",
            )


def _check_critical(leaf: x509.Certificate) -> None:
    for each in leaf.extensions:
        if each.oid == ExtensionOID.PRECERT_POISON or (each.critical and each.oid not in _UNDERSTOOD):
            raise Rejected(
                "UnknownCriticalExtension",
                f"The certificate has extension {each.oid.dotted_string}, with which clients refuse it.",
            )


def _check_serial_number(tbs: TBSCertificate) -> None:
    octets = bytes(tbs.serial_number.data)
    if not 0 < len(octets) <= _SERIAL_OCTETS or int.from_bytes(octets, "big", signed=True) <= 0:
        raise Rejected("InvalidSerialNumber", "The serial number is not positive, or has more than 20 octets.")
