"""Profiles for use: each CertificateProfile with its compiled policy and its CA."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from acme_server.compiled_profile import NOT_READY as _NOT_READY
from acme_server.compiled_profile import choose, combine, compile_profile
from acme_server.model import OrderProfile, Profile
from acme_server.problems import NotFound, ProblemType, Refused, Unavailable
from kms.cluster.informer import Informer
from kms.contract import READY, may_enroll, may_offer
from kms.pki.quoting import quoted
from kms.resources.authorities import AuthoritySpec, CertificateAuthority
from kms.resources.compile import compile_policy
from kms.resources.meta import ObjectMeta, is_true, key_of
from kms.resources.orders import ACMEOrder
from kms.resources.policies import CertificatePolicy, PolicySpec
from kms.resources.profiles import AcmeEnrollment, CertificateProfile
from kms.resources.retained import is_reduced

_COLD = 2
"""Retry-After while the caches are being filled, in seconds."""
_NONE = timedelta(0)
_Parts = tuple[CertificateProfile, CertificatePolicy, CertificateAuthority]


class NotReady(Unavailable):
    """A person has to repair the profile, its policy or its CA. The operator reports why."""


class Profiles:
    """Finds profiles by the names in a URL. Compiles each once for every version of its parts."""

    def __init__(
        self,
        *,
        profiles: Informer[CertificateProfile],
        policies: Informer[CertificatePolicy],
        authorities: Informer[CertificateAuthority],
    ) -> None:
        self._profiles = profiles
        self._policies = policies
        self._authorities = authorities
        self._awaited: tuple[Informer[Any], ...] = profiles, policies, authorities
        """The informers that may not have listed everything yet."""
        self._compiled: dict[tuple[str, str], tuple[_Parts, Profile]] = {}

    def of(self, namespace: str, name: str) -> Profile:
        """The profile of that name, ready to issue.

        Raises NotFound if there is no such profile or ACME clients do not enroll with it, and Unavailable
        where it may work in a moment or after a repair: cert-manager takes any 4xx as final.
        """
        for each in self._awaited:
            if not each.synced.is_set():
                raise Unavailable("The server is still reading its configuration.", _COLD)
        self._awaited = ()
        profile = self._find(namespace, name)
        if profile is None:
            raise NotFound(f"There is no profile {namespace}/{name} with ACME enrollment.")
        return profile

    def of_any(self, namespace: str, name: str) -> Profile:
        """The profile of that name, ready to issue or not: what clients read, give back and revoke needs no CA.

        One that is not ready is `dormant`, allows no name, and binds accounts as if it were not open. Raises as `of`
        does, also for a profile beyond the limit of its namespace, which has no accounts.
        """
        try:
            return self.of(namespace, name)
        except NotReady:
            resource = self._profiles.get(namespace, name)
            if resource is None or resource.spec.enrollment.acme is None or is_reduced(resource):
                raise
            return _dormant(resource, self._authorities.get(namespace, resource.issuer_name))

    def ready(self, *, most: int) -> tuple[list[Profile], int]:
        """The first profiles, by namespace and name, that clients can use, and how many more resources there are."""
        resources = sorted(self._profiles.values(), key=key_of)
        found: list[Profile] = []
        for position, each in enumerate(resources):
            if len(found) == most:
                return found, len(resources) - position
            try:
                found.append(self.of(*key_of(each)))
            except (NotFound, Unavailable):
                continue
        return found, 0

    def choose(self, profile: Profile, name: str | None) -> OrderProfile:
        """The profile of a new order with this `profile` member (draft-ietf-acme-profiles, section 4).

        Without a name, or with an empty one as certbot sends it, this is the directory's own profile, by its name in
        the directory if it has one. Raises Refused (invalidProfile) if the directory does not offer the name, and
        Unavailable if the profile behind it needs repair.
        """
        return choose(profile, name, lambda other: self._find(profile.namespace, other))

    def of_order(self, profile: Profile, order: ACMEOrder) -> Profile:
        """The profile by which the order's certificate is issued.

        What the order says is not enough: the directory must offer that profile now, by the name that the order has.
        Raises Refused (invalidProfile) if it does not or the profile is gone, and Unavailable if it is not ready.
        """
        contents = order.spec.contents_ref
        if contents is None:
            return profile
        name = quoted(order.spec.profile or contents.name)
        offered = (each.profile_ref for each in profile.acme.profiles if each.name == order.spec.profile)
        if contents not in offered:
            raise Refused(
                ProblemType.INVALID_PROFILE, f"The directory does not offer the profile {name} of the order any more."
            )
        combined = self._combine(profile, contents.name)
        if combined is None:
            raise Refused(ProblemType.INVALID_PROFILE, f"The profile {name} of the order no longer exists.")
        return combined

    def authority(self, profile: Profile, order: ACMEOrder) -> CertificateAuthority:
        """The CA that now issues for orders like this one."""
        contents = order.spec.contents_ref
        other = None if contents is None else self._profiles.get(profile.namespace, contents.name)
        if other is None:
            return profile.authority
        return self._authorities.get(profile.namespace, other.issuer_name) or profile.authority

    def order_profiles(self, profile: Profile) -> Mapping[str, str]:
        """The names that the directory offers for new orders, each with its description."""
        descriptions = {}
        for entry in profile.acme.profiles:
            try:
                other = self._find(profile.namespace, entry.profile_ref.name)
                if other is not None and may_offer(profile.acme, other.policy):
                    descriptions[entry.name] = entry.description or other.resource.spec.description or entry.name
            except Unavailable:
                continue  # a profile that does not work is not offered
        return descriptions

    def _combine(self, profile: Profile, name: str) -> Profile | None:
        """The profile with the policy, CA and certificate contents of another one of its namespace.

        None: the other one does not exist. Raises Unavailable if it is not ready.
        """
        other = self._find(profile.namespace, name)
        return None if other is None else combine(profile, other)

    def _find(self, namespace: str, name: str) -> Profile | None:
        resource = self._profiles.get(namespace, name)
        if resource is None or resource.spec.enrollment.acme is None:
            self._compiled.pop((namespace, name), None)
            self._require_readable(namespace, name)
            if self._profiles.outage_seconds():
                raise Unavailable("The server cannot read its configuration at the moment.", _COLD)
            return None
        policy = self._policies.get(namespace, resource.spec.policy_ref.name)
        authority = self._authorities.get(namespace, resource.issuer_name)
        known = self._compiled.get((namespace, name))
        # Another version of a part is another object, and what is asked for with every request must be cheap.
        if known is None or known[0][0] is not resource or known[0][1] is not policy or known[0][2] is not authority:
            parts = _require_ready(resource, policy, authority)
            known = self._compiled[namespace, name] = parts, _compile(*parts, resource.spec.enrollment.acme)
        return known[1]

    def enrollment(self, namespace: str, name: str) -> AcmeEnrollment | None:
        """How ACME clients enroll with the profile, ready or not; None: there is no such profile.

        Raises Unavailable if the profile cannot be read.
        """
        resource = self._profiles.get(namespace, name)
        if resource is None:
            self._require_readable(namespace, name)
        return None if resource is None else resource.spec.enrollment.acme

    def _require_readable(self, namespace: str, name: str) -> None:
        """Raise Unavailable if the profile exists and does not fit its model; the operator reports it."""
        if self._profiles.unreadable(namespace, name) is not None:
            raise Unavailable(f"Profile {namespace}/{name} cannot be read.", _NOT_READY)


def _require_ready(
    resource: CertificateProfile, policy: CertificatePolicy | None, authority: CertificateAuthority | None
) -> _Parts:
    """The parts of a profile, if clients can use it. Raises NotReady."""
    namespace, name = resource.metadata.namespace, resource.metadata.name
    if not is_true(resource.status.conditions, READY) or not may_enroll(resource):
        raise not_ready(namespace, name)
    if policy is None or authority is None:
        raise NotReady(
            f"Profile {namespace}/{name} refers to a policy or CA that is missing or unreadable.", _NOT_READY
        )
    if is_reduced(policy):
        # The operator has not seen yet that the profile uses it.
        raise NotReady(f"Profile {namespace}/{name} is not ready.", _COLD)
    return resource, policy, authority


def _compile(
    resource: CertificateProfile, policy: CertificatePolicy, authority: CertificateAuthority, acme: AcmeEnrollment
) -> Profile:
    try:
        return compile_profile(resource, policy, authority, acme)
    except ValueError as error:
        # The operator reports the error on the resource; clients only learn that a person has to act.
        raise not_ready(resource.metadata.namespace, resource.metadata.name) from error


def not_ready(namespace: str, name: str) -> NotReady:
    """The refusal of what a profile cannot do that is not ready."""
    return NotReady(f"Profile {namespace}/{name} is not ready.", _NOT_READY)


def _dormant(resource: CertificateProfile, authority: CertificateAuthority | None) -> Profile:
    """The profile as far as it can be used: without names, durations and, if there is none, without a CA."""
    acme, namespace = resource.spec.enrollment.acme or AcmeEnrollment(), resource.metadata.namespace
    if not may_enroll(resource):
        acme = replace(acme, external_account_binding="Required", ownership_validation="Required")
    nothing = CertificatePolicy(
        metadata=ObjectMeta(namespace=namespace, name=resource.spec.policy_ref.name), spec=PolicySpec()
    )
    nobody = CertificateAuthority(
        metadata=ObjectMeta(namespace=namespace, name=resource.issuer_name), spec=AuthoritySpec()
    )
    return Profile(
        resource=resource,
        policy=compile_policy(nothing),
        authority=authority or nobody,
        acme=acme,
        duration=_NONE,
        order_lifetime=_NONE,
        authorization_lifetime=_NONE,
        dormant=True,
    )
