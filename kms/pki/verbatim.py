"""Certificate requests that another CA gets unchanged: what they may contain.

An internal CA takes the names and the key of a request and nothing else. Other CAs copy more, each in its own way: the
subject, the usages, extensions that they do not know. The client has signed the request, so nothing can be removed from
it: what must not be in the certificate must not be in the request.

Only strict DER is accepted, because programs differ in how they read anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1

from kms.pki.certificate import name_in
from kms.pki.csr import CertificateRequest
from kms.pki.names import Name
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.policy import Policy, Violation
from kms.pki.quoting import quoted
from kms.pki.structure import CertificationRequestInfo, SubjectAttribute, request_info
from kms.pki.subject_policy import unchanged_violation
from kms.pki.subjects import COMMON_NAME
from kms.pki.usages import EXTENDED_KEY_USAGES, KEY_USAGES, bits_in, supported_usages

MAXIMUM_ATTRIBUTES: Final = 16
"""Attributes of a subject."""

_EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
_MICROSOFT_EXTENSION_REQUEST: Final = "1.3.6.1.4.1.311.2.1.14"
_TEXTS: Final = frozenset({b"\x0c", b"\x13"})
"""UTF8String and PrintableString, the texts of new certificates (RFC 5280, 4.1.2.4)."""


def verbatim_violations(
    request: CertificateRequest,
    *,
    usages: Collection[str],
    subject: Mapping[str, tuple[str, ...]],
    policy: Policy,
    purposes_apart: bool = False,
) -> tuple[Violation, ...]:
    """Why this request must not go to a CA that gets it unchanged; empty if it may.

    `usages` and `subject` are those of the profile. The request may ask for some of these usages; an attribute that the
    profile sets is absent or has exactly those values. The names were compared with those of the order before.
    `purposes_apart`: the CA takes the purposes (extendedKeyUsage) from somewhere else where the request has none.
    """
    try:
        structure = request_info(request.der)
        parsed = x509.load_der_x509_csr(request.der)
    except PARSER_ERRORS:
        return (_not_strict("structure"),)
    # Which extensions a CA reads is certain only if there is one list of them, so the rest comes first.
    found = (
        *_against_attributes(structure),
        *_against_form(structure.subject),
        *_against_subject(request, subject, policy),
    )
    if not found:
        try:
            found = tuple(_against_extensions(parsed.extensions, request, usages, purposes_apart=purposes_apart))
        except x509.DuplicateExtension as error:
            found = (f"the certificate request has extension {error.oid.dotted_string} twice",)
        except PARSER_ERRORS:
            return (_not_strict("list of extensions"),)
    return tuple(map(Violation, found))


def requested_usages(
    request: CertificateRequest, usages: Sequence[str], *, purposes_apart: bool = False
) -> tuple[str, ...]:
    """The usages to ask a CA for, by the profile's words: those of the profile that the key supports.

    If the request has keyUsage or extendedKeyUsage, they are exactly what it says, in its order: cert-manager refuses a
    request that differs from what it is asked for. With `purposes_apart`, those of the profile are added where it has
    keyUsage alone. The request has no verbatim_violations with these `usages`.
    """
    supported = supported_usages(usages, request.key_algorithm)
    words = {_meaning(each): each for each in reversed(supported)}
    asked: list[str] = []
    for extension in x509.load_der_x509_csr(request.der).extensions:
        match extension.value:
            case x509.KeyUsage() as usage:
                asked = [*(words[each] for each in sorted(bits_in(usage))), *asked]
            case x509.ExtendedKeyUsage() as purposes:
                asked += (words[each] for each in purposes)
            case _:
                continue
    if asked and purposes_apart and not any(each in EXTENDED_KEY_USAGES for each in asked):
        asked += (each for each in supported if words[_meaning(each)] == each and each in EXTENDED_KEY_USAGES)
    return tuple(asked or (each for each in supported if words[_meaning(each)] == each))


def _meaning(usage: str) -> str | x509.ObjectIdentifier:
    """What the word stands for: some usages have two words."""
    return KEY_USAGES.get(usage) or EXTENDED_KEY_USAGES[usage]


def _not_strict(part: str) -> Violation:
    return Violation(
        f"the {part} of the certificate request is not strict DER (X.690); this CA gets requests unchanged, so make it"
        " with another client"
    )


def _against_attributes(structure: CertificationRequestInfo) -> Iterator[str]:
    """Other attributes than extensionRequest are left alone: no CA copies them."""
    types = [each.type.dotted_string for each in structure.attributes.as_list()]
    if types.count(_EXTENSION_REQUEST) > 1:
        yield "the certificate request has more than one list of extensions (attribute extensionRequest)"
    if _MICROSOFT_EXTENSION_REQUEST in types:
        yield (
            f"the certificate request has Microsoft's list of extensions (attribute {_MICROSOFT_EXTENSION_REQUEST}),"
            f" which only some CAs read; use extensionRequest ({_EXTENSION_REQUEST})"
        )


def _against_form(subject: Sequence[asn1.SetOf[SubjectAttribute]]) -> Iterator[str]:
    parts = [each.as_list() for each in subject]
    if any(len(each) != 1 for each in parts):
        yield "the subject of the certificate request has a part that is not one attribute (a multi-valued RDN)"
    if len(parts) > MAXIMUM_ATTRIBUTES:
        yield f"the subject of the certificate request has more than {MAXIMUM_ATTRIBUTES} attributes"
    for each in chain.from_iterable(parts):
        if each.value.tag_bytes not in _TEXTS or not each.value.data:
            yield (
                f"the value of {each.type.dotted_string} in the subject of the certificate request is empty or neither"
                " UTF8String nor PrintableString"
            )


def _against_subject(
    request: CertificateRequest, subject: Mapping[str, tuple[str, ...]], policy: Policy
) -> Iterator[str]:
    common_names = () if request.common_name is None else (request.common_name,)
    for attribute, values in {COMMON_NAME: common_names, **request.subject}.items():
        if attribute not in subject:
            for value in values:
                if found := unchanged_violation(attribute, value, request.names, policy.subject, policy.name):
                    yield found
        elif values != subject[attribute]:
            yield (
                f"{attribute} in the subject must be absent or exactly what the profile sets"
                f" (spec.certificate.subject.{attribute}): {', '.join(map(quoted, subject[attribute]))}"
            )


def _against_extensions(
    extensions: x509.Extensions, request: CertificateRequest, usages: Collection[str], *, purposes_apart: bool
) -> Iterator[str]:
    has_names = has_purposes = False
    supported = supported_usages(usages, request.key_algorithm)
    for extension in extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as alternatives:
                has_names = True
                yield from _against_names(request.names - {name_in(each) for each in alternatives})
            case x509.KeyUsage() as usage:
                yield from _against_bits(bits_in(usage), supported)
            case x509.ExtendedKeyUsage() as purposes:
                has_purposes = True
                yield from _against_purposes(list(purposes), supported)
            case x509.BasicConstraints(ca=False) | x509.SubjectKeyIdentifier():
                continue
            case x509.TLSFeature():
                yield (
                    "the certificate request asks for OCSP must-staple (1.3.6.1.5.5.7.1.24), which the CA could copy;"
                    " make it without"
                )
            case _:
                yield (
                    f"the certificate request has extension {extension.oid.dotted_string}, which the CA could copy;"
                    " make it without"
                )
    if not has_names:
        yield from _against_names(request.names)
    if not (has_purposes or purposes_apart) and any(each.oid == x509.KeyUsage.oid for each in extensions):
        yield (
            "the certificate request has keyUsage without extendedKeyUsage, so the CA would issue a certificate for"
            " every purpose; use both or none (a Certificate of cert-manager: usages digital signature and server auth)"
        )


def _against_names(missing: Collection[Name]) -> Iterator[str]:
    """A CA that copies subjectAltName would leave out the names that are in the common name only."""
    for each in sorted(missing):
        yield f"{each} is in the common name of the certificate request only; use subjectAltName too"


def _against_bits(bits: Collection[str], usages: Collection[str]) -> Iterator[str]:
    if not bits:
        yield "the certificate request has keyUsage without any usage (RFC 5280, 4.2.1.3)"
    allowed = {KEY_USAGES[each] for each in usages if each in KEY_USAGES}
    for each in sorted(set(bits) - allowed):
        yield (
            f"the certificate request asks for key usage {each.replace('_', ' ')}, which the profile"
            " (spec.certificate.usages) or the kind of key does not allow"
        )


def _against_purposes(purposes: Sequence[x509.ObjectIdentifier], usages: Collection[str]) -> Iterator[str]:
    allowed = {EXTENDED_KEY_USAGES[each] for each in usages if each in EXTENDED_KEY_USAGES and each != "any"}
    for each in dict.fromkeys(purposes):
        if each not in allowed:
            yield (
                f"the certificate request asks for extended key usage {each.dotted_string}, which the profile does not"
                " allow (spec.certificate.usages)"
            )
        if purposes.count(each) > 1:
            yield f"the certificate request asks for extended key usage {each.dotted_string} twice"
