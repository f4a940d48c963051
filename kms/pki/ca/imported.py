"""Imported CAs: PEM is parsed and checked before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from cryptography import x509

from kms.pki.ca.chain_file import read_chain
from kms.pki.ca.errors import InvalidAuthority
from kms.pki.ca.internal import path_length, remaining_path_length
from kms.pki.certificate import Signer, certifies, is_root
from kms.pki.extensions import UnreadableCertificate, find_extension
from kms.pki.keys import PrivateKey, PublicKey, load_private_key, weakness
from kms.pki.quoting import quoted
from kms.pki.stand_in import absent

MAXIMUM_CERTIFICATE_FILE = 64 * 1024
MAXIMUM_CHAIN = 4
"""The CA and those above it; with the end entity's certificate the five that cert-manager accepts."""


def load_signer(certificate_pem: bytes, key_pem: bytes) -> Signer:
    """The CA of this certificate, followed by those above it, and this private key.

    For a pair that has been checked before: it only checks that both can be parsed and belong together. Raises
    InvalidAuthority with the reasons InvalidSecret and KeyMismatch; no message quotes a key.
    """
    certificates = _certificates(certificate_pem)
    key = _key(key_pem)
    _check_key(certificates, key)
    return Signer(certificates[0], key, tuple(certificates[1:]))


def load_remote_signer(certificate_pem: bytes) -> Signer:
    """The CA of this certificate, whose key is elsewhere: the key of the result is only compared.

    Raises InvalidAuthority with the reason InvalidSecret.
    """
    first, *others = _certificates(certificate_pem)
    public_key = first.public_key()
    if not isinstance(public_key, PublicKey):
        raise InvalidAuthority("InvalidSecret", "The key of the CA's certificate is neither RSA nor ECDSA nor Ed25519.")
    return Signer(first, absent(public_key), tuple(others))


def check_imported(certificate_pem: bytes, key_pem: bytes, *, now: datetime) -> Signer:
    """The CA in a kubernetes.io/tls Secret, if it can be used at `now`.

    Raises InvalidAuthority with a message that names the fix, and the reason InvalidSecret, KeyMismatch, WeakKey,
    NotACertificateAuthority, NotYetValid, Expired, InvalidChain or PathLengthExceeded.
    """
    certificates = _certificates(certificate_pem)
    key = _key(key_pem)
    _check_key(certificates, key)
    if reason := weakness(key.public_key()):
        raise InvalidAuthority("WeakKey", f"The CA's key must not be used: {reason}. Use a CA with another key.")
    for certificate in certificates:
        check_is_authority(certificate)
        check_dates(certificate, now)
    _check_order(certificates)
    signer = Signer(certificates[0], key, tuple(certificates[1:]))
    _check_path_lengths(signer)
    return signer


def _certificates(pem: bytes) -> list[x509.Certificate]:
    if not pem.strip():
        raise InvalidAuthority("InvalidSecret", "tls.crt is missing or empty; put the CA's certificate there, in PEM.")
    if len(pem) > MAXIMUM_CERTIFICATE_FILE:
        raise InvalidAuthority("InvalidSecret", f"tls.crt is larger than {MAXIMUM_CERTIFICATE_FILE} bytes.")
    try:
        certificates = read_chain(pem)
    except UnreadableCertificate as error:
        raise InvalidAuthority(
            "InvalidSecret",
            f"tls.crt cannot be read: {error}; it must hold X.509 certificates in PEM, the CA's own first.",
        ) from None
    if len(certificates) > MAXIMUM_CHAIN:
        raise InvalidAuthority(
            "InvalidChain",
            f"tls.crt holds {len(certificates)} certificates; clients take no chain with more than {MAXIMUM_CHAIN}.",
        )
    return certificates


def _key(pem: bytes) -> PrivateKey:
    if not pem.strip():
        raise InvalidAuthority("InvalidSecret", "tls.key is missing or empty; put the CA's private key there, in PEM.")
    try:
        return load_private_key(pem)
    except ValueError as error:
        raise InvalidAuthority("InvalidSecret", f"tls.key cannot be used: {error}.") from None


def _check_key(certificates: Sequence[x509.Certificate], key: PrivateKey) -> None:
    public_key = key.public_key()
    first, *others = certificates
    if first.public_key() == public_key:
        return
    if any(each.public_key() == public_key for each in others):
        raise InvalidAuthority(
            "KeyMismatch",
            f"tls.key belongs to a later certificate of tls.crt, not to the first ({_subject(first)}); put the CA's own"
            " certificate first, then the one above it, and so on.",
        )
    raise InvalidAuthority(
        "KeyMismatch", f"tls.key does not belong to the certificate in tls.crt ({_subject(first)}); store the pair."
    )


def check_is_authority(certificate: x509.Certificate) -> None:
    """Raise InvalidAuthority (NotACertificateAuthority) unless the certificate lets its key sign others."""
    missing = next(missing_rights(certificate), None)
    if missing:
        raise InvalidAuthority(
            "NotACertificateAuthority",
            f"The certificate {_subject(certificate)} is not one of a CA: {missing}. Import a CA certificate.",
        )


def missing_rights(certificate: x509.Certificate) -> Iterator[str]:
    """Why the key of the certificate must not sign others, each as a clause."""
    constraints = find_extension(certificate, x509.BasicConstraints)
    if constraints is None:
        version = " (it is of version 1)" if certificate.version is x509.Version.v1 else ""
        yield f"it has no basicConstraints{version}"
    elif not constraints.ca:
        yield "its basicConstraints say CA:FALSE"
    usage = find_extension(certificate, x509.KeyUsage)
    # Without the extension every use is allowed (RFC 5280, 4.2.1.3).
    if usage is not None and not usage.key_cert_sign:
        yield "its keyUsage lacks keyCertSign"


def check_dates(certificate: x509.Certificate, now: datetime) -> None:
    """Raise InvalidAuthority (NotYetValid, Expired) unless the certificate is valid at `now`."""
    if now < certificate.not_valid_before_utc:
        raise InvalidAuthority(
            "NotYetValid",
            f"The certificate {_subject(certificate)} is valid only from {_time(certificate.not_valid_before_utc)} on;"
            " wait, or check the clock.",
        )
    if now >= certificate.not_valid_after_utc:
        raise InvalidAuthority(
            "Expired",
            f"The certificate {_subject(certificate)} ended at {_time(certificate.not_valid_after_utc)};"
            " renew it and store the new one in the Secret.",
        )


def _check_order(certificates: Sequence[x509.Certificate]) -> None:
    for lower, upper in pairwise(certificates):
        if not certifies(upper, lower):
            raise InvalidAuthority(
                "InvalidChain",
                f"tls.crt is no chain: {_subject(lower)} is not issued by {_subject(upper)}, which follows it."
                f" {_advice(lower, certificates)}",
            )


def _advice(lower: x509.Certificate, certificates: Sequence[x509.Certificate]) -> str:
    issuer = next((each for each in certificates if each is not lower and certifies(each, lower)), None)
    if issuer is not None:
        return f"Put {_subject(issuer)} there: each certificate must be followed by its issuer."
    if is_root(lower):
        return "It is a root, so no certificate may follow it; remove those after it."
    return f"Add the certificate of its issuer, {quoted(lower.issuer.rfc4514_string())}, or remove those after it."


def _check_path_lengths(signer: Signer) -> None:
    remaining = remaining_path_length(signer)
    if remaining is not None and remaining < 0:
        upper = next(
            each
            for below, each in enumerate((signer.certificate, *signer.issuers))
            if (limit := path_length(each)) is not None and limit < below
        )
        raise InvalidAuthority(
            "PathLengthExceeded",
            f"The path length of {_subject(upper)} does not allow {_subject(signer.certificate)} below it; clients"
            " would refuse every certificate. Import a CA that it allows.",
        )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _subject(certificate: x509.Certificate) -> str:
    return quoted(certificate.subject.rfc4514_string())
