"""Certificates of internal CAs: roots, intermediates, and their renewal with the same key.

Renewal issues a certificate with the same key and subject, a new serial number and later dates. Certificates below name
their issuer by subject and key identifier, which do not change. So the old and the new certificate verify the same
chains, and both can be trusted while they overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from cryptography import x509

from kms.address import Network
from kms.pki.ca.errors import InvalidAuthority
from kms.pki.certificate import (
    Signer,
    authority_key_identifier,
    certificate_pem,
    certifies,
    distribution_point,
    issuer_location,
    sign,
)
from kms.pki.extensions import find_extension
from kms.pki.keys import PrivateKey, PublicKey
from kms.pki.subjects import subject_name

_LOCATIONS = x509.CRLDistributionPoints, x509.AuthorityInformationAccess
_CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """The names that certificates below a CA may carry (RFC 5280, 4.2.1.10)."""

    permitted_domains: tuple[str, ...] = ()
    permitted_networks: tuple[Network, ...] = ()
    excluded_domains: tuple[str, ...] = ()
    excluded_networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorityTemplate:
    """The contents of a CA certificate. `subject` is by attribute, without the common name.

    `path_length` limits the number of CAs below this one in a chain; None: as many as its issuer allows. `crl_url`
    locates the revocation list of its issuer, `ca_url` the certificate of that; None: the certificate does not name it.
    """

    common_name: str
    serial: int
    not_before: datetime
    not_after: datetime
    subject: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    path_length: int | None = None
    constraints: NameConstraints | None = None
    crl_url: str | None = None
    ca_url: str | None = None


def self_signed(template: AuthorityTemplate, key: PrivateKey) -> x509.Certificate:
    """The certificate of a root. Raises ValueError for a template that no certificate can express."""
    subject = subject_name(template.common_name, template.subject)
    return _certificate(
        template, key.public_key(), issuer=subject, key=key, extensions=_extensions(template, key, None)
    )


def intermediate(template: AuthorityTemplate, key: PrivateKey, signer: Signer) -> x509.Certificate:
    """The certificate of a CA with this key under `signer`.

    Raises InvalidAuthority if the signer's path length has no room for another CA, ValueError if the template
    goes beyond the signer's lifetime or cannot be expressed.
    """
    if template.not_after > signer.not_after:
        raise ValueError("a CA certificate must not outlive the CA that signs it")
    return _certificate(
        template,
        key.public_key(),
        issuer=signer.certificate.subject,
        key=signer.key,
        extensions=_extensions(template, key, signer),
    )


def matches_template(
    certificate: x509.Certificate, template: AuthorityTemplate, key: PrivateKey, signer: Signer | None
) -> bool:
    """Whether the certificate has the contents of the template, for this key, under this signer (None: self-signed).

    Serial number, dates and locations are not compared: they change with the next renewal, and `renewal_time` says when
    that is. Raises InvalidAuthority as `intermediate` does.
    """
    issuer = signer.certificate if signer else certificate
    wanted = _extensions(template, key, signer, with_locations=False)
    return (
        certificate.public_key() == key.public_key()
        and certificate.subject == subject_name(template.common_name, template.subject)
        and [(e.value, e.critical) for e in certificate.extensions if not isinstance(e.value, _LOCATIONS)] == wanted
        and certifies(issuer, certificate)
    )


def renewal_time(certificate: x509.Certificate) -> datetime:
    """The time of renewal: after two thirds of the lifetime."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * 2 / 3


def remaining_path_length(signer: Signer) -> int | None:
    """The number of CAs that may follow below `signer`, by its own certificate and those above; None: no limit."""
    return path_length_below((signer.certificate, *signer.issuers))


def path_length_below(chain: Sequence[x509.Certificate]) -> int | None:
    """The number of CAs that may follow below the first certificate of a chain; None: no limit."""
    limits = [
        limit - below for below, certificate in enumerate(chain) if (limit := path_length(certificate)) is not None
    ]
    return min(limits, default=None)


def path_length(certificate: x509.Certificate) -> int | None:
    """The pathLenConstraint of a CA certificate; None if it has none."""
    constraints = find_extension(certificate, x509.BasicConstraints)
    return None if constraints is None else constraints.path_length


def subject_key_id(certificate: x509.Certificate) -> str:
    """The subject key identifier in hexadecimal, computed where the certificate has none."""
    return (authority_key_identifier(certificate).key_identifier or b"").hex()


def chain_to_root_pem(signer: Signer) -> str:
    """The CA's certificate and all known certificates above it, the root included, in PEM."""
    return "".join(map(certificate_pem, (signer.certificate, *signer.issuers)))


def trust_anchor_pem(signer: Signer) -> str:
    """The trust anchor of the CA's certificates: the root, or the topmost certificate that is known."""
    return certificate_pem((signer.certificate, *signer.issuers)[-1])


def _certificate(
    template: AuthorityTemplate,
    public_key: PublicKey,
    *,
    issuer: x509.Name,
    key: PrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    if not template.not_before < template.not_after:
        raise ValueError("a CA certificate must not end before it begins")
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject_name(template.common_name, template.subject))
        .public_key(public_key)
        .serial_number(template.serial)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return sign(builder, key)


def _extensions(
    template: AuthorityTemplate, key: PrivateKey, signer: Signer | None, *, with_locations: bool = True
) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions of a CA certificate, in their order, and whether each is critical (RFC 5280, 4.2.1)."""
    length = _path_length_below(signer, template) if signer else template.path_length
    extensions = requested_extensions(key.public_key(), length, None)
    if signer is not None:
        extensions.append((signer.authority_key_identifier, False))
    if (constraints := _name_constraints(template.constraints)) is not None:
        extensions.append((constraints, True))
    if signer is not None and with_locations:
        if template.crl_url is not None and signer.signs_lists:
            extensions.append((distribution_point(template.crl_url), False))
        if template.ca_url is not None:
            extensions.append((issuer_location(template.ca_url), False))
    return extensions


def requested_extensions(
    public_key: PublicKey, length: int | None, constraints: NameConstraints | None
) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions of a CA certificate that do not depend on who signs it, and whether each is critical."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=length), True),
        (_CA_KEY_USAGE, True),
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
    ]
    if (subtrees := _name_constraints(constraints)) is not None:
        extensions.append((subtrees, True))
    return extensions


def _path_length_below(signer: Signer, template: AuthorityTemplate) -> int | None:
    remaining = remaining_path_length(signer)
    if remaining is None:
        return template.path_length
    if remaining < 1:
        raise InvalidAuthority(
            "PathLengthExceeded",
            f"The issuer {signer.certificate.subject.rfc4514_string()} may not have CAs below it: its path length, or"
            " that of a CA above it, is used up. Use another issuer, or one with a greater pathLength.",
        )
    return remaining - 1 if template.path_length is None else min(template.path_length, remaining - 1)


def _name_constraints(constraints: NameConstraints | None) -> x509.NameConstraints | None:
    if constraints is None:
        return None
    permitted = _subtrees(constraints.permitted_domains, constraints.permitted_networks)
    excluded = _subtrees(constraints.excluded_domains, constraints.excluded_networks)
    if not permitted and not excluded:
        return None
    return x509.NameConstraints(permitted_subtrees=permitted or None, excluded_subtrees=excluded or None)


def _subtrees(domains: Sequence[str], networks: Sequence[Network]) -> list[x509.GeneralName]:
    return [*map(x509.DNSName, domains), *map(x509.IPAddress, networks)]
