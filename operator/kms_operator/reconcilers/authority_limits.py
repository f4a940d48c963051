"""What a CA limits in the certificates of a profile: how long they last, and for which usages clients take them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509

from kms.contract import DURATION_SHORTENED, minimum_rest
from kms.pki.certificate import Signer
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.purposes import forbidden_usages
from kms.resources.authorities import CertificateAuthority
from kms.resources.durations import format_duration, parse_duration
from kms.resources.profiles import CertificateProfile
from kms_operator.plan import ConditionUpdate

AUTHORITY_ENDS = "CertificateAuthorityEnds"
AUTHORITY_ENDS_TOO_SOON = "CertificateAuthorityEndsTooSoon"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def shortening(
    profile: CertificateProfile, authority: CertificateAuthority, *, now: datetime
) -> tuple[ConditionUpdate | None, datetime | None]:
    """Return the condition that certificates end with their CA (None: they last as long as they should).

    The second value is when that changes by itself.
    """
    end = _end(authority)
    try:
        duration = parse_duration(profile.spec.certificate.duration)
    except ValueError:
        return None, None  # Ready says it
    if end is None:
        return None, None
    name = f"CertificateAuthority {authority.metadata.namespace}/{authority.metadata.name}"
    if end - now > duration:
        return None, end - duration
    if end - now > minimum_rest(duration):
        message = (
            f"certificates end with the chain of {name} at {end:{_TIME}}, before their duration of"
            f" {format_duration(duration)} is over; shorten spec.certificate.duration, or prolong the CAs of the chain:"
            " an internal one with spec.internal.duration (from its next renewal on), an imported one and one that is"
            " signed by request with a renewed certificate, an external one with a new trust anchor"
        )
        return ConditionUpdate("True", AUTHORITY_ENDS, message, DURATION_SHORTENED), end - minimum_rest(duration)
    message = (
        f"the chain of {name} ends at {end:{_TIME}}, and so soon before that the server issues no certificates; renew"
        " that CA"
    )
    return ConditionUpdate("True", AUTHORITY_ENDS_TOO_SOON, message, DURATION_SHORTENED), None


def warnings_about_usages(profile: CertificateProfile, authority: CertificateAuthority) -> tuple[str, ...]:
    """Return which usages of the profile clients do not accept below this CA."""
    forbidden = forbidden_usages(profile.spec.certificate.usages, _chain(authority))
    return tuple(
        f'usage "{usage}" (spec.certificate.usages) is not in the extendedKeyUsage of the CA {holder}, so clients'
        " refuse certificates for it; remove the usage, or use another CA"
        for usage, holder in forbidden.items()
    )


def warnings_about_authority(signer: Signer, longest: timedelta, *, now: datetime) -> tuple[str, ...]:
    """Return the flaws of an imported CA that do not stop it; `longest` is the longest duration of certificates."""
    messages = []
    if not list(signer.certificate.subject):
        messages.append(
            "the CA's certificate has an empty subject, which RFC 5280 forbids (4.1.2.6), so Java and others refuse"
            " every chain with it; have the CA certified under a name"
        )
    if longest and now + longest > signer.not_after:
        messages.append(
            f"the chain of the CA ends at {signer.not_after:{_TIME}}, within the {format_duration(longest)} that"
            " certificates last, so they are shortened; store a renewed certificate in the Secret"
        )
    return tuple(messages)


def _end(authority: CertificateAuthority) -> datetime | None:
    """The end of the first certificate of the CA's chain to expire."""
    ends = [each.not_valid_after_utc for each in _chain(authority)]
    return min(ends, default=authority.status.not_after)


def _chain(authority: CertificateAuthority) -> Sequence[x509.Certificate]:
    """The published chain; nothing if it cannot be read: the reconciler of the CA writes it anew."""
    try:
        certificates = x509.load_pem_x509_certificates((authority.status.chain or "").encode())
        # cryptography parses these parts only when they are accessed.
        return [each for each in certificates if each.extensions is not None and each.subject is not None]
    except PARSER_ERRORS:
        return ()
