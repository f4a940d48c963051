"""The contents of a certificate. They follow from order, CSR and profile, so every repetition gives the same.

Names come from the order, the key from the CSR, usages and lifetime from the profile. The subject comes from
the profile; an attribute that the profile leaves open comes from the CSR if the policy certifies it. Extensions of
the CSR, except its names, select nothing. What the CSR asks for beyond that is left out, and the order says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime

from acme_server.model import Profile
from acme_server.orders.identifiers import names_of
from acme_server.orders.lifetimes import BACKDATE, SKEW
from acme_server.urls import URLs
from kms.pki.certificate import LeafTemplate, serial_number, validity
from kms.pki.csr import CertificateRequest
from kms.pki.quoting import quoted
from kms.pki.subject_policy import granted_subject
from kms.pki.subjects import COMMON_NAME, LIMITS
from kms.pki.usages import canonical_usages
from kms.resources.compile import subject_attributes
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder

MAXIMUM_LEFT_OUT = 1_024
"""Octets in which an order says what was left out of its certificate."""
_OVERHEAD = 4


def template(
    order: ACMEOrder,
    request: CertificateRequest,
    profile: Profile,
    *,
    base: datetime,
    ca_not_after: datetime,
    urls: URLs,
) -> LeafTemplate:
    """What the issuer is to sign. `base` is the time that validity is counted from (lifetimes.base_time).

    The URLs of the CA's list and certificate come from the configuration, never from a request.

    Raises ValueError with a message for people if the CA ends before the requested certificate begins or ends, or if
    the policy now allows a shorter validity only.
    """
    contents = profile.resource.spec.certificate
    not_before, not_after = _dates(order, profile, base=base, ca_not_after=ca_not_after)
    meta, authority, key_id = order.metadata, key_of(profile.authority), profile.authority.status.subject_key_id
    granted = granted_subject(request, profile.policy.subject)
    return LeafTemplate(
        public_key=request.public_key,
        names=names_of(order.spec.identifiers),
        common_name=_common_name(order, granted.common_name, profile),
        subject={**granted.attributes, **subject_attributes(contents.subject)},
        usages=frozenset(contents.usages),
        serial=serial_number(uid=meta.uid, name=meta.name, digest=request.digest),
        not_before=not_before,
        not_after=not_after,
        crl_url=urls.revocation_list(*authority, key_id),
        ca_url=urls.ca_certificate(*authority, key_id),
    )


def _dates(order: ACMEOrder, profile: Profile, *, base: datetime, ca_not_after: datetime) -> tuple[datetime, datetime]:
    """The dates of the certificate: requested ones or defaults, within the longest validity that the policy allows."""
    not_before, not_after = validity(
        base,
        profile.duration,
        requested_not_before=order.spec.not_before,
        requested_not_after=order.spec.not_after,
        ca_not_after=ca_not_after,
        backdate=BACKDATE,
    )
    longest = profile.policy.maximum_duration
    if order.spec.not_before is None:
        # A client with a fast clock that requested the longest lifetime gets its notAfter, and a later notBefore.
        not_before = max(not_before, min(not_after - longest, base + SKEW))
    if not_after - not_before > longest:
        raise ValueError(f"policy {profile.policy.name} allows a shorter validity only (spec.maximumDuration)")
    return not_before, not_after


def _common_name(order: ACMEOrder, requested: str | None, profile: Profile) -> str | None:
    match profile.resource.spec.certificate.common_name:
        case "FirstName":
            # Addresses belong in the SAN only.
            names = (each.value for each in order.spec.identifiers if each.type == "dns")
            return next((each for each in names if len(each) <= LIMITS[COMMON_NAME]), None)
        case "Requested":
            return requested
        case "None":
            return None


def left_out(request: CertificateRequest, leaf: LeafTemplate) -> tuple[str, ...]:
    """What the CSR asks for and the certificate does not contain, in words for people: at most MAXIMUM_LEFT_OUT octets.

    A key usage that the profile certifies and the key does not support is none of it. Nor are attributes of the CSR
    that are not about the certificate: one of them is a password.
    """
    usages = canonical_usages(leaf.usages)
    found = [
        *_values_left_out(COMMON_NAME, filter(None, (request.common_name,)), (leaf.common_name,)),
        *(
            each
            for attribute, values in request.subject.items()
            for each in _values_left_out(attribute, values, leaf.subject.get(attribute, ()))
        ),
        *(f"usage {each}" for each in request.usages if each not in usages),
        *(f"extension {each}" for each in request.extensions),
    ]
    return tuple(_shorten(found))


def _shorten(texts: Sequence[str]) -> Iterator[str]:
    """The first of the texts, as many as an order stores, and how many there are beside these."""
    octets = 0
    for position, text in enumerate(texts):
        octets += len(text.encode()) + _OVERHEAD
        if octets > MAXIMUM_LEFT_OUT:
            yield f"and {len(texts) - position} more"
            return
        yield text


def _values_left_out(attribute: str, values: Iterable[str], certified: Collection[str | None]) -> Iterator[str]:
    return (f"{attribute} {quoted(value)}" for value in values if value not in certified)
