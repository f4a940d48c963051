"""The cluster of docs/command-line.md: the samples as an operator leaves them, and what clients did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from acme_server.model import ChallengeId, Failed, Valid
from acme_server.orders import transitions
from kms.issuers import Issued
from kms.resources.accounts import AccountSpec, AccountStatus, ACMEAccount, CredentialBinding
from kms.resources.authorities import AuthorityStatus
from kms.resources.core import Lease, LeaseSpec, Secret
from kms.resources.kinds import ACCOUNTS, AUTHORITIES, CREDENTIALS, LEASES, ORDERS, POLICIES, PROFILES, SECRETS
from kms.resources.meta import Condition, LocalRef, ObjectMeta
from kms.resources.orders import ACCOUNT, ACMEOrder, Identifier, OrderSpec, StoredProblem, with_authorizations
from kms.resources.profiles import ProfileStatus
from kms_acme.doctor.examination import wanted_definitions
from kms_acme.doctor.snapshot import DEFINITIONS, Definition
from kms_acme.install import manifests
from kms_acme.manifests import read_manifests
from tests.support.apiserver import FakeApiServer

SAMPLES = Path(__file__).parents[2] / "deploy" / "samples"
AT = datetime(2026, 11, 30, 9, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DIRECTORY = "https://acme.example.com/acme/pki/web/directory"
KID, KEY = "6x3kq2v7m4hdnyp5tzbwrcsf", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
PEM = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ0E=\n-----END CERTIFICATE-----\n"
SHOP, FAILED, OLD = (
    "mfrggzdfmztwq2lknnwg23tpobyxe43u",
    "nbswy3dpeb3w64tmmqqho33snrscc4tt",
    "ob2xg2ltnf2gk3tuorsxg5dtnf2gk43u",
)
CLIENT = "gezdgnbvgy3tqojqgezdgnbvgy3tqojq"
READY = (Condition(type="Ready", status="True", reason="Ready", message="", last_transition_time=AT),)


def fill(api: FakeApiServer) -> None:
    """Put the objects into an API server."""
    api.store.clock = lambda: AT
    samples = read_manifests(SAMPLES, namespace="default")
    for authority in samples.authorities.values():
        api.put(
            AUTHORITIES,
            replace(
                authority,
                status=AuthorityStatus(conditions=READY, subject_key_id="ab" * 20, not_after=AT.replace(year=2126)),
            ),
        )
    for policy in samples.policies.values():
        api.put(POLICIES, replace(policy, status=replace(policy.status, conditions=READY)))
    for profile in samples.profiles.values():
        api.put(PROFILES, replace(profile, status=ProfileStatus(conditions=READY, directory_url=DIRECTORY)))
    for credential in samples.credentials.values():
        status = replace(credential.status, key_id=KID, secret_name="web-eab", accounts=1, conditions=READY)
        api.put(CREDENTIALS, replace(credential, status=status))
    for definition in _definitions():
        api.put(DEFINITIONS, definition)
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for name in ("kms-acme-operator", "kms-acme-server"):
        spec = LeaseSpec(holder_identity="kms-acme-0", lease_duration_seconds=15, renew_time=renewed)
        api.put(LEASES, Lease(metadata=ObjectMeta(namespace="kms-acme", name=name), spec=spec))
    data = {"directory-url": DIRECTORY, "ca.crt": PEM, "kid": KID, "secret": KEY}
    for name, members in (("web-eab", data), ("web-acme", {each: data[each] for each in ("directory-url", "ca.crt")})):
        encoded = {key: value.encode() for key, value in members.items()}
        api.put(SECRETS, Secret(metadata=ObjectMeta(namespace="pki", name=name), data=encoded))
    api.put(ACCOUNTS, _account())
    api.put(ORDERS, _certified(SHOP, "5f3a910c", "shop.apps.example.com", days=36_500))
    api.put(ORDERS, _certified(OLD, "10d0", "old.apps.example.com", days=-1))
    api.put(ORDERS, _failed())


@cache
def _definitions() -> tuple[Definition, ...]:
    """The kinds of this checkout. Reading them takes a second."""
    return wanted_definitions(manifests())


def _account() -> ACMEAccount:
    return ACMEAccount(
        metadata=ObjectMeta(namespace="pki", name=CLIENT),
        spec=AccountSpec(
            profile_ref=LocalRef(name="web"),
            key='{"crv":"P-256","kty":"EC","x":"eA","y":"eQ"}',
            thumbprint="t" * 43,
            external_account=CredentialBinding(name="web", namespace="pki", uid="uid", key_id=KID),
        ),
        status=AccountStatus(state="valid", contact=("mailto:shop@example.com",)),
    )


def _ordered(name: str, *names: str) -> ACMEOrder:
    return with_authorizations(
        ACMEOrder(
            metadata=ObjectMeta(namespace="pki", name=name, labels={ACCOUNT: CLIENT}, creation_timestamp=AT),
            spec=OrderSpec(
                account_ref=LocalRef(name=CLIENT),
                profile_ref=LocalRef(name="web"),
                identifiers=tuple(Identifier(type="dns", value=each) for each in names),
                names=", ".join(names),
                expires=AT + timedelta(days=1),
                challenges=("http-01",),
                token_key="k" * 43,
            ),
        )
    )


def _certified(name: str, serial: str, dns_name: str, *, days: int) -> ACMEOrder:
    order = _ordered(name, dns_name)
    outcomes = {ChallengeId(0, "http-01"): Valid(AT + SECOND)}
    proven = transitions.validated(order, outcomes, lifetime=timedelta(days=1), now=AT + SECOND)
    issued = Issued(
        chain=PEM,
        serial_number=serial,
        authority_key_id="ab" * 20,
        public_key_digest=f"{serial:0>64}",
        not_before=AT - timedelta(days=30),
        not_after=AT + timedelta(days=days),
    )
    return transitions.issued(proven, "d" * 64, issued, now=AT + 2 * SECOND)


def _failed() -> ACMEOrder:
    detail = "Connecting to 10.1.2.3 port 80 failed: connection refused (5 attempts)"
    outcome = Failed(StoredProblem(type="connection", detail=detail))
    order = _ordered(FAILED, "api.apps.example.com")
    return transitions.validated(
        order, {ChallengeId(0, "http-01"): outcome}, lifetime=timedelta(days=1), now=AT + 31 * SECOND
    )
