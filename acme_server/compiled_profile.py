"""Profiles with their policy and their CA, compiled and combined. Pure: `kms-acme policy test` does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as replace_fields
from datetime import datetime

from msgspec.structs import replace

from acme_server.model import OrderProfile, Profile
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.contract import may_offer, objection_to_skipping
from kms.pki.certificate import chain_end
from kms.pki.constraints import Constraints, constraints_of
from kms.pki.policy import contents_violations
from kms.pki.quoting import quoted
from kms.resources.authorities import CertificateAuthority
from kms.resources.compile import compile_policy
from kms.resources.durations import parse_duration
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import AcmeEnrollment, CertificateProfile

NOT_READY = 10
"""Retry-After while a profile needs repair by a person, in seconds."""


def compile_profile(
    resource: CertificateProfile, policy: CertificatePolicy, authority: CertificateAuthority, acme: AcmeEnrollment
) -> Profile:
    """The profile for use. Raises ValueError that says what is wrong with its rules; InvalidRules is one of them."""
    profile = Profile(
        resource=resource,
        policy=compile_policy(policy),
        authority=authority,
        acme=acme,
        duration=parse_duration(resource.spec.certificate.duration),
        order_lifetime=parse_duration(acme.order_lifetime),
        authorization_lifetime=parse_duration(acme.authorization_lifetime),
        constraints=_constraints(authority),
        chain_end=_chain_end(authority),
    )
    # Ready says that they fit; but the operator may have seen an older version of the policy.
    if violations := contents_violations(resource.spec.certificate.usages, profile.duration, profile.policy):
        raise ValueError(f"the profile's certificates do not fit its policy: {violations[0].message}")
    if objection := objection_to_skipping(acme, profile.policy):
        raise ValueError(objection)
    return profile


def _constraints(authority: CertificateAuthority) -> tuple[Constraints, ...]:
    """The constraints of the published chain; a CA without a chain does not issue yet. Raises ValueError."""
    chain = authority.status.chain or authority.status.certificate
    return constraints_of(chain, authority=authority.title) if chain else ()


def _chain_end(authority: CertificateAuthority) -> datetime | None:
    chain = authority.status.chain
    return chain_end(chain) if chain else None


def combine(directory: Profile, other: Profile) -> Profile:
    """The directory's profile with the policy, CA and certificate contents of another one of its namespace.

    Raises Unavailable if the directory must not offer the other one.
    """
    if not may_offer(directory.acme, other.policy):
        raise Unavailable(f"Profile {other.name} cannot be used without validation.", NOT_READY)
    spec = replace(
        directory.resource.spec,
        issuer_ref=other.resource.spec.issuer_ref,
        policy_ref=other.resource.spec.policy_ref,
        certificate=other.resource.spec.certificate,
    )
    return replace_fields(
        directory,
        resource=replace(directory.resource, spec=spec),
        policy=other.policy,
        authority=other.authority,
        duration=other.duration,
        constraints=other.constraints,
        chain_end=other.chain_end,
    )


def choose(directory: Profile, name: str | None, find: Callable[[str], Profile | None]) -> OrderProfile:
    """The profile of a new order with this `profile` member (draft-ietf-acme-profiles, section 4).

    `find` returns the profile of a name in the namespace, None if there is none. Without a name, or with an empty one
    as certbot sends it, this is the directory's own profile, by its name in the directory if it has one. Raises Refused
    (invalidProfile) if the directory does not offer the name, and Unavailable if the profile behind it needs repair.
    """
    entries = {each.name: each.profile_ref for each in directory.acme.profiles}
    if not name:
        own = (entry for entry, ref in entries.items() if ref.name == directory.name)
        return OrderProfile(directory, next(own, None))
    if name not in entries:
        offered = ", ".join(sorted(entries)) or "none"
        raise Refused(
            ProblemType.INVALID_PROFILE,
            f"The directory offers no profile {quoted(name)}; it offers {offered}.",
        )
    other = find(entries[name].name)
    if other is None:
        raise Unavailable(f"Profile {quoted(name)} is not ready.", NOT_READY)
    return OrderProfile(combine(directory, other), name, entries[name])
