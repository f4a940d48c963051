"""CAs that are certified by request: a CA elsewhere, such as an offline root, signs a request (PKCS #10) for their key.

What it answers is a claim: it is checked before it is used. The check needs the public key alone, so that the command
line can make it, too, before anything is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from kms.pki.ca.chain_file import read_chain
from kms.pki.ca.errors import InvalidAuthority
from kms.pki.ca.imported import MAXIMUM_CHAIN, check_dates, check_is_authority
from kms.pki.ca.internal import NameConstraints, path_length_below, requested_extensions
from kms.pki.ca.limits import missing_limits
from kms.pki.certificate import certifies, is_root, signature_hash
from kms.pki.extensions import UnreadableCertificate
from kms.pki.keys import PrivateKey, PublicKey, fingerprint, key_algorithm
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.quoting import quoted
from kms.pki.subjects import subject_name

_WEAK: Final = frozenset({"md5", "sha1"})

Chain = tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a CA asks to be certified as. `subject` is by attribute, without the common name.

    `path_length` None: no limit of its own.
    """

    common_name: str
    subject: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    path_length: int | None = None
    constraints: NameConstraints | None = None

    @property
    def name(self) -> x509.Name:
        """The distinguished name. Raises ValueError if X.509 cannot express it."""
        return subject_name(self.common_name, self.subject)


def certificate_request(asked: Asked, key: PrivateKey) -> str:
    """The certificate request in PEM (RFC 2986): the same bytes each time, as far as the key signs deterministically.

    It asks for basicConstraints with CA:TRUE, keyCertSign and cRLSign, the subject key identifier, and the name
    constraints. Raises ValueError for what no request can express.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(asked.name)
    for value, critical in requested_extensions(key.public_key(), asked.path_length, asked.constraints):
        builder = builder.add_extension(value, critical)
    if isinstance(key, Ed25519PrivateKey):
        request = builder.sign(key, None)
    else:
        deterministic = True if isinstance(key, EllipticCurvePrivateKey) else None
        request = builder.sign(key, signature_hash(key), ecdsa_deterministic=deterministic)
    return request.public_bytes(Encoding.PEM).decode("ascii")


def is_request_for(pem: str | None, asked: Asked, public_key: PublicKey) -> bool:
    """Whether `pem` is a request as `certificate_request` makes it for that key, be it signed in another way."""
    try:
        request = x509.load_pem_x509_csr((pem or "").encode())
        return (
            request.public_key() == public_key
            and request.subject == asked.name
            and [(each.value, each.critical) for each in request.extensions]
            == requested_extensions(public_key, asked.path_length, asked.constraints)
            and request.is_signature_valid
        )
    except PARSER_ERRORS:
        return False


def request_key(pem: str | bytes) -> tuple[x509.Name, PublicKey] | None:
    """The subject and the key of a certificate request in PEM; None if it cannot be read."""
    try:
        request = x509.load_pem_x509_csr(pem.encode() if isinstance(pem, str) else pem)
        subject, key = request.subject, request.public_key()
    except PARSER_ERRORS:
        return None
    return (subject, key) if isinstance(key, PublicKey) else None


def read_answer(pem: str) -> Chain:
    """The certificates in `pem`, whose size the caller has limited, at least one.

    Raises InvalidAuthority (InvalidCertificate).
    """
    try:
        return tuple(read_chain(pem.encode()))
    except UnreadableCertificate as error:
        raise InvalidAuthority(
            "InvalidCertificate",
            f"it cannot be read: {error}; it must hold X.509 certificates in PEM, the CA's own first",
        ) from None


def check_answer(chain: Sequence[x509.Certificate], asked: Asked, public_key: PublicKey, *, now: datetime) -> None:
    """Check that the chain is what a CA with this key and `asked` can sign with at `now`.

    Raises InvalidAuthority with a message without field and full stop. The reason is KeyMismatch, SubjectMismatch,
    NotACertificateAuthority, NotYetValid, Expired, ChainBroken, WeakSignature, PathLengthExceeded, or
    ConstraintsMissing where the chain lacks a limit that was asked for.
    """
    check_installed(chain, asked.name, public_key, now=now)
    if missing := next(missing_limits(chain, asked.path_length, asked.constraints), None):
        raise InvalidAuthority("ConstraintsMissing", missing)


def check_installed(
    chain: Sequence[x509.Certificate], subject: x509.Name, public_key: PublicKey, *, now: datetime
) -> None:
    """Check what makes a chain unusable, whatever was asked for. Raises InvalidAuthority as `check_answer`."""
    _check_key(chain, public_key)
    if chain[0].subject != subject:
        raise InvalidAuthority(
            "SubjectMismatch",
            f"it is for {_subject(chain[0])}, but the CA is called {quoted(subject.rfc4514_string())}; have the subject"
            " of the request certified unchanged",
        )
    if len(chain) > MAXIMUM_CHAIN:
        raise InvalidAuthority(
            "ChainBroken", f"it holds {len(chain)} certificates; clients take no chain with more than {MAXIMUM_CHAIN}"
        )
    for each in chain:
        _check_alone(each, now)
    # Clients do not verify what a root says about itself, so its own signature may be an old one.
    weak = next((each for each in chain if each.issuer != each.subject and _has_weak_signature(each)), None)
    if weak is not None:
        raise InvalidAuthority(
            "WeakSignature",
            f"{_subject(weak)} is signed with SHA-1 or MD5, which clients refuse; have it signed with SHA-256",
        )
    for lower, upper in pairwise(chain):
        if not certifies(upper, lower):
            raise InvalidAuthority("ChainBroken", _describe_gap(lower, upper, chain))
    remaining = path_length_below(chain)
    if remaining is not None and remaining < 0:
        raise InvalidAuthority(
            "PathLengthExceeded",
            f"a path length above {_subject(chain[0])} does not allow it, so clients would refuse every certificate;"
            " have it signed by a CA that may have others below it",
        )


def complete_chain(chain: Chain, known: Iterable[x509.Certificate]) -> Chain:
    """The chain, continued with those `known` certificates that have issued it, as far as clients take that many."""
    completed, candidates = list(chain), tuple(known)
    while len(completed) < MAXIMUM_CHAIN and not is_root(completed[-1]):
        above = (each for each in candidates if each not in completed and certifies(each, completed[-1]))
        if (found := next(above, None)) is None:
            break
        completed.append(found)
    return tuple(completed)


def renewal_due(chain: Sequence[x509.Certificate]) -> datetime:
    """When a new certificate is due: after two thirds of the time until the first of the chain ends."""
    begin = chain[0].not_valid_before_utc
    return begin + (min(each.not_valid_after_utc for each in chain) - begin) * 2 / 3


def _check_key(chain: Sequence[x509.Certificate], public_key: PublicKey) -> None:
    first, *others = chain
    if first.public_key() == public_key:
        return
    if any(each.public_key() == public_key for each in others):
        raise InvalidAuthority(
            "KeyMismatch",
            f"the certificate for the CA's key is not the first, which is {_subject(first)}; put the CA's own"
            " certificate first, then the one above it, and so on",
        )
    found = first.public_key()
    raise InvalidAuthority(
        "KeyMismatch",
        f"the first certificate, {_subject(first)}, is for {_describe_key(found)}, and the CA's key is"
        f" {_describe_key(public_key)}; have the present status.request signed",
    )


def _describe_key(key: object) -> str:
    name = key_algorithm(key) or "another key"
    return f"{name} {fingerprint(key)[:16]}" if isinstance(key, PublicKey) else name


def _check_alone(certificate: x509.Certificate, now: datetime) -> None:
    try:
        check_is_authority(certificate)
        check_dates(certificate, now)
    except InvalidAuthority as error:
        words = {
            "NotACertificateAuthority": (
                f"{_subject(certificate)} does not let its key sign certificates; it needs basicConstraints with"
                " CA:TRUE and, if it has a keyUsage, keyCertSign"
            ),
            "NotYetValid": (
                f"{_subject(certificate)} is valid only from {_time(certificate.not_valid_before_utc)} on; wait, or"
                " check the clocks"
            ),
            "Expired": (
                f"{_subject(certificate)} ended at {_time(certificate.not_valid_after_utc)}; have it renewed under the"
                " same key"
            ),
        }
        raise InvalidAuthority(error.reason, words[error.reason]) from None


def _describe_gap(lower: x509.Certificate, upper: x509.Certificate, chain: Sequence[x509.Certificate]) -> str:
    gap = f"{_subject(lower)} is not issued by {_subject(upper)}, which follows it"
    issuer = next((each for each in chain if each is not lower and certifies(each, lower)), None)
    if issuer is not None:
        return f"{gap}; put {_subject(issuer)} there: each certificate must be followed by its issuer"
    if is_root(lower):
        return f"{gap}; it is a root, so no certificate may follow it"
    return f"{gap}; put the certificate of its issuer there, {quoted(lower.issuer.rfc4514_string())}"


def _has_weak_signature(certificate: x509.Certificate) -> bool:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    return algorithm is not None and algorithm.name in _WEAK


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _subject(certificate: x509.Certificate) -> str:
    return quoted(certificate.subject.rfc4514_string())
