"""Profiles as the server works with them: the CertificateProfile with its policy compiled and its CA at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from datetime import timedelta
from typing import Protocol, TypeVar

from msgspec.structs import replace

from acme_server.problems import ProblemType, Refused, Unavailable
from kms.contract import READY, may_offer, objection_to_skipping
from kms.pki.constraints import Constraints, constraints_of
from kms.pki.policy import Policy, contents_violations
from kms.pki.quoting import quoted
from kms.resources.authorities import CertificateAuthority
from kms.resources.compile import InvalidRules, compiled_policy
from kms.resources.durations import parse_duration
from kms.resources.meta import LocalRef, is_true
from kms.resources.orders import ACMEOrder
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import AcmeEnrollment, CertificateProfile

T_co = TypeVar("T_co", covariant=True)

_COLD = 2
"""Seconds until a cache that is being filled is worth asking again."""
_NOT_READY = 10
"""Seconds until a profile that somebody has to repair is worth asking again."""


class Source(Protocol[T_co]):
    """Objects of one kind as an informer holds them."""

    @property
    def synced(self) -> asyncio.Event:
        """Set once the objects that exist have been seen."""
        ...

    def get(self, namespace: str, name: str) -> T_co | None:
        """The object of that name as it was seen last."""
        ...

    def values(self) -> Collection[T_co]:
        """All objects as they were seen last."""
        ...

    def interrupted(self) -> float:
        """Seconds for which changes have not been heard of; 0: they are."""
        ...


@dataclass(frozen=True, slots=True)
class Profile:
    """One ACME directory: what may be asked for, who signs it, and how clients enroll."""

    resource: CertificateProfile
    policy: Policy
    authority: CertificateAuthority
    acme: AcmeEnrollment
    duration: timedelta
    order_lifetime: timedelta
    authorization_lifetime: timedelta
    constraints: tuple[Constraints, ...] = ()
    """The nameConstraints of the CA and of those above it."""

    @property
    def namespace(self) -> str:
        """Where the profile lives, and with it its accounts and orders."""
        return self.resource.metadata.namespace

    @property
    def name(self) -> str:
        """The name of the CertificateProfile."""
        return self.resource.metadata.name

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an order is made with: `profile` as its certificate will follow it, and by which name it was lent.

    `name` and `contents` are what the order keeps; both None where the directory's profile is meant, unnamed.
    """

    profile: Profile
    name: str | None = None
    contents: LocalRef | None = None


class Profiles:
    """Finds profiles by the names that a URL carries; compiled once for each version of what they are made of."""

    def __init__(
        self,
        *,
        profiles: Source[CertificateProfile],
        policies: Source[CertificatePolicy],
        authorities: Source[CertificateAuthority],
    ) -> None:
        self._profiles = profiles
        self._policies = policies
        self._authorities = authorities
        self._compiled: dict[tuple[str, str], tuple[tuple[str, ...], Profile]] = {}

    def of(self, namespace: str, name: str) -> Profile:
        """The profile of that name, ready to issue.

        Raises Refused (404) where there is no such profile or ACME clients do not enroll with it, and Unavailable
        where it may work in a moment or after a repair: cert-manager takes any 4xx as final.
        """
        if not all(each.synced.is_set() for each in (self._profiles, self._policies, self._authorities)):
            raise Unavailable("The server is still reading its configuration.", _COLD)
        profile = self._find(namespace, name)
        if profile is None:
            raise Refused(
                ProblemType.MALFORMED, f"There is no profile {namespace}/{name} with ACME enrollment.", status=404
            )
        return profile

    def chosen(self, profile: Profile, name: str | None) -> Chosen:
        """What an order with this `profile` member is made with (draft-ietf-acme-profiles, section 4).

        An empty name is none: certbot sends that. Without one it is the directory's own profile, by the name under
        which the directory lists it, if it does. Raises Refused (invalidProfile) for a name that the
        directory does not offer, and Unavailable where what stands behind it needs repair.
        """
        entries = {each.name: each.profile_ref for each in profile.acme.profiles}
        if not name:
            own = (entry for entry, ref in entries.items() if ref.name == profile.name)
            return Chosen(profile, next(own, None))
        if name not in entries:
            offered = ", ".join(sorted(entries)) or "none"
            raise Refused(
                ProblemType.INVALID_PROFILE,
                f"The directory offers no profile {quoted(name)}; it offers {offered}.",
            )
        lent = self._lent(profile, entries[name].name)
        if lent is None:
            raise Unavailable(f"Profile {quoted(name)} is not ready.", _NOT_READY)
        return Chosen(lent, name, entries[name])

    def issuing(self, profile: Profile, order: ACMEOrder) -> Profile:
        """The directory's profile as the order's certificate follows it, also where its name was withdrawn.

        Raises Refused (invalidProfile) where the profile that was lent is gone, and Unavailable where it is not ready.
        """
        contents = order.spec.contents_ref
        if contents is None:
            return profile
        lent = self._lent(profile, contents.name)
        if lent is None:
            raise Refused(
                ProblemType.INVALID_PROFILE,
                f"The profile {quoted(order.spec.profile or contents.name)} of the order does not exist any more.",
            )
        return lent

    def authority(self, profile: Profile, order: ACMEOrder) -> CertificateAuthority:
        """The CA that signs for orders like this one now: that of the profile which was lent, or the directory's."""
        contents = order.spec.contents_ref
        lent = None if contents is None else self._profiles.get(profile.namespace, contents.name)
        if lent is None:
            return profile.authority
        return self._authorities.get(profile.namespace, lent.spec.issuer_ref.name) or profile.authority

    def offered(self, profile: Profile) -> Mapping[str, str]:
        """The order profiles that work now, each with a text for people."""
        texts = {}
        for entry in profile.acme.profiles:
            try:
                lent = self._find(profile.namespace, entry.profile_ref.name)
                if lent is not None and may_offer(profile.acme, lent.policy):
                    texts[entry.name] = entry.description or lent.resource.spec.description or entry.name
            except Unavailable:
                continue  # what does not work is not advertised
        return texts

    def _lent(self, profile: Profile, name: str) -> Profile | None:
        """The profile with the certificates, the policy and the CA of another one of its namespace; None: no such."""
        lent = self._find(profile.namespace, name)
        if lent is None:
            return None
        if not may_offer(profile.acme, lent.policy):
            raise Unavailable(f"Profile {name} may not be had without proof of control.", _NOT_READY)
        spec = replace(
            profile.resource.spec,
            issuer_ref=lent.resource.spec.issuer_ref,
            policy_ref=lent.resource.spec.policy_ref,
            certificate=lent.resource.spec.certificate,
        )
        return changed(
            profile,
            resource=replace(profile.resource, spec=spec),
            policy=lent.policy,
            authority=lent.authority,
            duration=lent.duration,
            constraints=lent.constraints,
        )

    def _find(self, namespace: str, name: str) -> Profile | None:
        resource = self._profiles.get(namespace, name)
        if resource is None or resource.spec.enrollment.acme is None:
            self._compiled.pop((namespace, name), None)
            if self._profiles.interrupted():
                raise Unavailable("The server has lost sight of its configuration.", _COLD)
            return None
        if not is_true(resource.status.conditions, READY):
            raise Unavailable(f"Profile {namespace}/{name} is not ready.", _NOT_READY)
        return self._current(resource, resource.spec.enrollment.acme)

    def enrollment(self, namespace: str, name: str) -> AcmeEnrollment | None:
        """How ACME clients enroll with the profile, ready or not; None: there is no such profile."""
        resource = self._profiles.get(namespace, name)
        return None if resource is None else resource.spec.enrollment.acme

    def _current(self, resource: CertificateProfile, acme: AcmeEnrollment) -> Profile:
        namespace, name = resource.metadata.namespace, resource.metadata.name
        policy = self._policies.get(namespace, resource.spec.policy_ref.name)
        authority = self._authorities.get(namespace, resource.spec.issuer_ref.name)
        if policy is None or authority is None:
            raise Unavailable(f"Profile {namespace}/{name} refers to something that does not exist.", _NOT_READY)
        versions = tuple(
            f"{each.metadata.uid}/{each.metadata.resource_version}" for each in (resource, policy, authority)
        )
        known = self._compiled.get((namespace, name))
        if known is None or known[0] != versions:
            known = self._compiled[namespace, name] = (versions, _compiled(resource, policy, authority, acme))
        return known[1]


def _compiled(
    resource: CertificateProfile, policy: CertificatePolicy, authority: CertificateAuthority, acme: AcmeEnrollment
) -> Profile:
    try:
        profile = Profile(
            resource=resource,
            policy=compiled_policy(policy),
            authority=authority,
            acme=acme,
            duration=parse_duration(resource.spec.certificate.duration),
            order_lifetime=parse_duration(acme.order_lifetime),
            authorization_lifetime=parse_duration(acme.authorization_lifetime),
            constraints=_constraints(authority),
        )
        # Ready says that they fit, but of the policy as the operator saw it last.
        if contents_violations(resource.spec.certificate.usages, profile.duration, profile.policy):
            raise ValueError("the profile's certificates do not fit its policy")  # noqa: TRY301 - one answer for all
        if objection := objection_to_skipping(acme, profile.policy):
            raise ValueError(objection)  # noqa: TRY301 - the same
    except (InvalidRules, ValueError) as error:
        # The operator reports the same on the resource; clients only learn that somebody has to act.
        raise Unavailable(
            f"Profile {resource.metadata.namespace}/{resource.metadata.name} is not ready.", _NOT_READY
        ) from error
    return profile


def _constraints(authority: CertificateAuthority) -> tuple[Constraints, ...]:
    """Those of the published chain; a CA that has none yet does not sign either. Raises ValueError."""
    chain = authority.status.chain or authority.status.certificate
    return constraints_of(chain) if chain else ()
