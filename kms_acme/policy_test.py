"""Would this request be granted? Decided by the functions that the server runs, over objects from anywhere. Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from acme_server.accounts.client_namespaces import NamespaceRules
from acme_server.accounts.credential_records import opening_objection, require_entitled
from acme_server.accounts.eab_credentials import invalid_key
from acme_server.compiled_profile import choose, compile_profile
from acme_server.model import OrderProfile, Profile, RequestedIdentifier
from acme_server.orders import admission
from acme_server.orders.admission import Entitlement
from acme_server.orders.identifiers import identifier_of
from acme_server.orders.policy import Objection, admit_request, challenges_for, no_objection, parse_csr
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.contract import READY, may_enroll
from kms.pki.ca import AuthorityTemplate, self_signed
from kms.pki.certificate import certificate_pem
from kms.pki.constraints import Constraints, constraints_of
from kms.pki.keys import generate_key
from kms.pki.names import Name
from kms.pki.pattern_sets import Value
from kms.pki.policy import Narrowing
from kms.resources.authorities import CertificateAuthority
from kms.resources.client_namespaces import clients_of
from kms.resources.compile import InvalidRules, compile_constraints, compile_narrowing
from kms.resources.credentials import EABCredential
from kms.resources.meta import Key, LocalRef, ObjectMeta, condition
from kms.resources.orders import ACMEOrder, OrderSpec
from kms_acme.configuration import Configuration
from kms_acme.nearest import no_such
from kms_acme.remedies import remedies

_ANY = datetime(2026, 1, 1, tzinfo=UTC)
"""Dates of a certificate that is made for its name constraints alone."""


class Undecided(Exception):
    """The configuration decides nothing: something is missing, invalid or not ready. The message says what."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a certificate by a client of a profile.

    `credential` is that of its account; None: it has none, or one without rules of its own. Without `names`, the names
    are those of `csr` (DER or PEM). `order_profile` is the profile that the client chooses in the directory.
    """

    profile: Key
    names: tuple[str, ...] = ()
    credential: Key | None = None
    csr: bytes | None = None
    duration: timedelta | None = None
    order_profile: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server would answer: a refusal, or None. `profile` is the one that certificates come from."""

    request: Request
    profile: Profile
    names: tuple[Name, ...]
    challenges: tuple[str, ...] | None
    refused: Refused | None = None

    @property
    def is_granted(self) -> bool:
        """Whether the certificate would be issued, once all names are proven."""
        return self.refused is None

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it is refused, one sentence for each problem."""
        if self.refused is None:
            return ()
        named = tuple(each.detail.rstrip(".") for each in self.refused.subproblems)
        return named or (self.refused.detail.rstrip("."),)


def identifiers_of(names: Iterable[str]) -> tuple[RequestedIdentifier, ...]:
    """The identifiers that clients send for these names: addresses are of type ip."""
    return tuple(RequestedIdentifier(type="ip" if _is_address(each) else "dns", value=each) for each in names)


def evaluate(
    configuration: Configuration, request: Request, *, now: datetime, objection: Objection = no_objection
) -> Verdict:
    """The answer of a server with this configuration. Raises Undecided.

    What only a running server knows is left out: proofs, CAA records, quotas, and keys of revoked certificates.
    """
    directory = find_profile(configuration, request.profile)
    credential = _credential(configuration, request)
    trusted = credential is not None and not directory.acme.validates_ownership
    challenges = None if trusted else directory.acme.challenges
    verdict = Verdict(request, directory, (), challenges)
    try:
        narrowing, granted = _entitle(configuration, directory, credential, now=now)
        chosen = choose(
            directory, request.order_profile, lambda name: _other(configuration, (directory.namespace, name))
        )
        if credential is not None:
            key = (credential.metadata.namespace, credential.metadata.name)
            require_entitled(credential.spec.profiles, request.order_profile, credential=key)
        verdict = replace(verdict, profile=chosen.profile)
        entitlement = Entitlement(directory, narrowing, granted, challenges, objection)
        names = _admit(request, chosen, entitlement, now=now)
    except Refused as refused:
        return replace(verdict, refused=refused)
    except Unavailable as error:
        raise Undecided(error.detail) from None
    return replace(verdict, names=names)


def _admit(request: Request, chosen: OrderProfile, entitlement: Entitlement, *, now: datetime) -> tuple[Name, ...]:
    wanted = identifiers_of(request.names)
    if not wanted and request.csr is not None:
        names = sorted(parse_csr(der_of(request.csr)).names)
        wanted = tuple(RequestedIdentifier(type=each.type, value=each.value) for each in names)
    not_after = now + request.duration if request.duration is not None else None
    admitted = admission.admit(wanted, None, not_after, chosen=chosen, entitlement=entitlement, now=now)
    if request.csr is not None:
        order = ACMEOrder(
            metadata=ObjectMeta(),
            spec=OrderSpec(
                account_ref=LocalRef(name=""),
                profile_ref=LocalRef(name=chosen.profile.name),
                identifiers=tuple(map(identifier_of, admitted)),
                expires=now,
            ),
        )
        parsed = parse_csr(der_of(request.csr))
        admit_request(parsed, order, chosen.profile, entitlement.narrowing, entitlement.granted)
    return admitted


def _entitle(
    configuration: Configuration,
    directory: Profile,
    credential: EABCredential | None,
    *,
    now: datetime,
) -> tuple[Narrowing | None, Narrowing | None]:
    """How the credential and the profile narrow the names. Raises Refused if the credential opens no account."""
    rules = NamespaceRules(configuration.namespaces.get)
    if credential is None:
        return None, rules.narrowing(None, directory.key, directory.acme)
    name = f"{credential.metadata.namespace}/{credential.metadata.name}"
    if credential.profile_key != directory.key:
        raise Undecided(
            f"EABCredential {name} is for profile {'/'.join(credential.profile_key)}, not {'/'.join(directory.key)}"
        )
    if why := opening_objection(credential, now=now):
        raise invalid_key(why)
    clients = clients_of(credential, profile_namespace=directory.namespace)
    rules.admit(clients, directory.key, directory.acme)
    try:
        narrowing = compile_narrowing(credential.spec.names, name) if credential.spec.names is not None else None
    except InvalidRules as error:
        raise Undecided(f"EABCredential {name}: {error}") from None
    return narrowing, rules.narrowing(clients, directory.key, directory.acme)


def _credential(configuration: Configuration, request: Request) -> EABCredential | None:
    if request.credential is None:
        return None
    found = configuration.credentials.get(request.credential)
    if found is None:
        raise Undecided(_missing(configuration, "EABCredential", request.credential))
    return found


def find_profile(configuration: Configuration, key: Key) -> Profile:
    """The compiled profile of this namespace and name. Raises Undecided."""
    name, resource = "/".join(key), configuration.profiles.get(key)
    if resource is None:
        raise Undecided(_missing(configuration, "CertificateProfile", key))
    acme = resource.spec.enrollment.acme
    if acme is None:
        raise Undecided(f"CertificateProfile {name} has no enrollment.acme")
    if not configuration.offline:
        ready = condition(resource.status.conditions, READY)
        if ready is None or ready.status != "True":
            why = f": {ready.message}" if ready is not None else ", because the operator has not looked at it"
            raise Undecided(f"CertificateProfile {name} is not Ready{why}")
        if not may_enroll(resource):
            raise Undecided(f"CertificateProfile {name} is open, and its namespace may not have one (OpenEnrollment)")
    policy_key, authority_key = (key[0], resource.spec.policy_ref.name), (key[0], resource.issuer_name)
    policy, authority = configuration.policies.get(policy_key), configuration.authorities.get(authority_key)
    if policy is None:
        raise Undecided(_missing(configuration, "CertificatePolicy", policy_key))
    if authority is None:
        raise Undecided(_missing(configuration, "CertificateAuthority", authority_key))
    constraints = tuple(_constraints(configuration, authority)) if configuration.offline else None
    try:
        profile = compile_profile(resource, policy, authority, acme)
    except InvalidRules as error:
        raise Undecided(f"CertificatePolicy {'/'.join(policy_key)}: {error}") from None
    except ValueError as error:
        raise Undecided(f"CertificateProfile {name}: {error}") from None
    return profile if constraints is None else replace(profile, constraints=constraints)


def _other(configuration: Configuration, key: Key) -> Profile | None:
    return find_profile(configuration, key) if key in configuration.profiles else None


def _missing(configuration: Configuration, kind: str, key: Key) -> str:
    name = "/".join(key)
    if why := configuration.unreadable.get((kind, *key)):
        return f"{kind} {name} cannot be read: {why}"
    known: Mapping[str, Iterable[Key]] = {
        "CertificateProfile": configuration.profiles,
        "CertificatePolicy": configuration.policies,
        "CertificateAuthority": configuration.authorities,
        "EABCredential": configuration.credentials,
    }
    return no_such(kind, key, known.get(kind, ()))


def _constraints(configuration: Configuration, authority: CertificateAuthority) -> Iterator[Constraints]:
    """The constraints of CAs that have no certificate yet, as the operator will make it. Raises Undecided."""
    namespace, seen = authority.metadata.namespace, set()
    current: CertificateAuthority | None = authority
    while current is not None and current.metadata.name not in seen:
        seen.add(current.metadata.name)
        internal = current.spec.internal
        if internal is None:
            return
        try:
            template = AuthorityTemplate(
                common_name=internal.subject.common_name,
                serial=1,
                not_before=_ANY,
                not_after=_ANY + timedelta(days=1),
                constraints=compile_constraints(internal.name_constraints),
            )
        except InvalidRules as error:
            raise Undecided(f"{current.title}: {error}") from None
        if template.constraints is not None:
            certificate = self_signed(template, generate_key("ECDSA", 256))
            yield from constraints_of(certificate_pem(certificate), authority=current.title)
        above = internal.issuer_ref
        current = configuration.authorities.get((namespace, above.name)) if above is not None else None


def der_of(csr: bytes) -> bytes:
    """The certificate request in DER, which may be in PEM. Raises Refused (badCSR)."""
    if b"-----BEGIN" not in csr:
        return csr
    body = csr.partition(b"-----BEGIN")[2].partition(b"-----\n")[2].partition(b"-----END")[0]
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise Refused(ProblemType.BAD_CSR, "The certificate request is not PEM.") from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def sentences(verdict: Verdict) -> Iterator[str]:
    """The verdict for people: the answer, the rule for each name, and what would help."""
    asked = ", ".join(each.value for each in verdict.names) or ", ".join(verdict.request.names) or "the request"
    if verdict.refused is not None:
        yield f"refused ({verdict.refused.type}): {asked}"
        for problem in verdict.problems:
            yield f"  {problem}"
        for command in remedies(verdict.refused, credential=verdict.request.credential):
            yield f"  To change that: {command}"
        return
    yield f"granted: {asked}"
    for name in verdict.names:
        yield f"  {name} is allowed by {allowing_rule(verdict.profile, name)}; {_proof(verdict, name)}"
    profile = verdict.profile
    yield (
        f"  The certificate is signed by CA {profile.namespace}/{profile.resource.issuer_name} and lasts"
        f" {_hours(verdict.request.duration or profile.duration)}."
    )


def allowing_rule(profile: Profile, name: Name) -> str:
    """The rule of the policy that allows the name: `policy pki/web (spec.dnsNames.allowed: "*.example.com")`."""
    policy = profile.policy
    pattern: object = None
    if name.type == "ip" and policy.ip_addresses is not None:
        pattern = policy.ip_addresses.allowed.find(ipaddress.ip_address(name.value))
    elif name.type == "dns" and policy.dns_names is not None:
        pattern = policy.dns_names.allowed.find(Value.of(name.base))
    section = "dnsNames" if name.type == "dns" else "ipAddresses"
    return f'policy {policy.name} (spec.{section}.allowed: "{pattern}")'


def _proof(verdict: Verdict, name: Name) -> str:
    if verdict.challenges is None:
        return "it needs no proof (ownershipValidation: Skipped)"
    offered = challenges_for(name, verdict.profile.acme.challenges)
    return f"the client proves it with {' or '.join(offered)}"


def _hours(duration: timedelta) -> str:
    return f"{duration.total_seconds() / 3600:g}h"
