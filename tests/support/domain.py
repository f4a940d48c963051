"""The services of the ACME server on a fake API server, with one profile and without the HTTP edge."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, get_args

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.accounts.eab_credentials import UID_INDEX, Binding, by_uid
from acme_server.audit.stream import AuditStream, no_stream
from acme_server.certificates.deleted_authorities import OWNER_INDEX, by_owner
from acme_server.external import External
from acme_server.jose.jwk import AccountKey
from acme_server.jose.signatures import Verifier, Verify
from acme_server.metrics import Metrics
from acme_server.model import Caller, KeyHolder, Profile, RequestedIdentifier
from acme_server.notifications.delivery import Pace as NotificationPace
from acme_server.notifications.delivery import Post
from acme_server.orders import transitions
from acme_server.orders.external_issuance import Pace
from acme_server.orders.issuance_waiting import Schedule
from acme_server.orders.policy import Objection
from acme_server.payloads import NewAccount, NewOrder
from acme_server.problems import ProblemType
from acme_server.settings import ServerSettings, ValidationSettings
from acme_server.urls import URLs
from acme_server.validation.attempt import ValidationFailed, ValidationTiming
from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.client import LookupFailed, Records
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.wiring import Configuration, Environment, Services, Validation
from kms.cluster.client import Cluster
from kms.cluster.codec import WatchEvent
from kms.cluster.informer import Informer
from kms.contract import OPEN_ENROLLMENT
from kms.issuers import KeyStores
from kms.issuers.remote import RemoteIssuers
from kms.pki.ca import subject_key_id
from kms.pki.crl import KEY_COMPROMISE
from kms.pki.keys import PublicKey, fingerprint, private_key_pem
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import (
    AuthoritySpec,
    AuthorityStatus,
    CertificateAuthority,
    CertManagerAuthority,
    ExternalAuthority,
    IssuerRef,
    SignerAuthority,
    VaultAuth,
    VaultAuthority,
)
from kms.resources.core import Namespace, Secret
from kms.resources.credentials import CredentialSpec, EABCredential
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, NAMESPACES, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import Condition, LocalRef, NamespacedRef, ObjectMeta, Resource, Unreadable
from kms.resources.orders import ACMEOrder, AuthorityType, ChallengeType, Identifier
from kms.resources.policies import CertificatePolicy, DNSNameRules, PolicySpec
from kms.resources.profiles import (
    AcmeEnrollment,
    CertificateContents,
    CertificateProfile,
    ClientNamespaces,
    Enrollment,
    ProfileSpec,
    ProfileStatus,
)
from kms.resources.secret_names import (
    EAB_SECRET,
    KEY_ID,
    OWNER,
    OWNER_UID,
    TLS_CERTIFICATE,
    TLS_PRIVATE_KEY,
    signing_key_name,
    verification_key_name,
)
from tests.support import pki
from tests.support.acme import EXTERNAL_URL
from tests.support.acmeorders import certified
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.scripted_issuer import ANCHOR, ScriptedIssuer

T = TypeVar("T", bound=Resource)

NAMESPACE = "pki"
RELEASE = "kms-acme"
PROFILE = "web"
KEY_ID_1 = "key-1"
MAC = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
QUICK = ValidationTiming(idle=0.05, hold=0.2, poll=0.2, retry_delays=(0.01, 0.01), retry_for=5.0)


class Clock:
    """The current time plus the offset of a test."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0) + self.ahead


class Informed(Informer[T]):
    """An informer whose objects the test sets."""

    def __init__(self, cluster: Cluster, kind: Kind[T], **options: Any) -> None:
        super().__init__(cluster, kind, **options)
        self.synced.set()
        self.silence = 0.0
        self._newest = 1_000_000

    def put(self, object_: T) -> T:  # type: ignore[override]  # tests go on with what was stored
        stored = self._versioned(object_)
        super().put(stored)
        return stored

    def remove(self, namespace: str, name: str) -> None:
        if (known := self.get(namespace, name)) is not None:
            gone = self._versioned(known)
            self.receive(None, WatchEvent("DELETED", gone, gone.metadata.resource_version))

    def spoil(self, namespace: str, name: str) -> None:
        """As if a newer version of the object had come that does not fit its model."""
        known = self.get(namespace, name)
        assert known is not None
        metadata = self._versioned(known).metadata
        unreadable = Unreadable(metadata, "spec.x", "Invalid RFC3339 encoded datetime")
        self.receive(None, WatchEvent("MODIFIED", None, metadata.resource_version, unreadable))

    def is_current(self) -> bool:
        return self.synced.is_set() and not self.silence

    def outage_seconds(self) -> float:
        return self.silence

    def _versioned(self, object_: T) -> T:
        self._newest += 1
        metadata = msgspec.structs.replace(object_.metadata, resource_version=str(self._newest))
        return msgspec.structs.replace(object_, metadata=metadata)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Key(AccountKey):
    """An account key with a given JWK and thumbprint."""

    public_key: Verifier = field(default_factory=lambda: pki.key(which="account").public_key())
    jwk: str = '{"kty":"EC"}'
    thumbprint: str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
    verifiers: Mapping[str, Verify] = field(default_factory=dict)


@dataclass
class Validator:
    """A validator with a scripted result and delay; records its calls."""

    seconds: float = 0.0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    failures: dict[str, list[ValidationFailed | None] | ValidationFailed] = field(default_factory=dict)
    gate: asyncio.Event | None = None

    async def __call__(self, identifier: Identifier, token: str, key_authorization: str) -> None:
        self.asked.append((identifier.value, token, key_authorization))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(self.seconds)
        failure = self.failures.get(identifier.value)
        if isinstance(failure, list):
            failure = failure.pop(0) if failure else None
        if failure is not None:
            raise failure


def wrong(detail: str = "the answer is wrong", *, temporary: bool = False) -> ValidationFailed:
    return ValidationFailed(ProblemType.UNAUTHORIZED, detail, temporary=temporary)


def counted(metrics: Metrics, name: str) -> dict[str | tuple[str, ...], int]:
    """How often the metric `kms_acme_<name>` has counted, by the value of its label (of several: a tuple of them)."""
    counts: dict[str | tuple[str, ...], int] = {}
    for family in metrics.registry.collect():
        for sample in family.samples if family.name == f"kms_acme_{name}" else ():
            if sample.name.endswith(("_total", "_count")):
                values = tuple(sample.labels.values())
                counts[values if len(values) > 1 else values[0]] = int(sample.value)
    return counts


@dataclass
class ScriptedCAA:
    """Scripted CAA lookups; records its calls. A failure raises LookupFailed with this text."""

    properties: dict[str, list[Property] | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def caa(self, name: str) -> Records[Property]:
        self.asked.append(name)
        if self.gate is not None:
            await self.gate.wait()
        found = self.properties.get(name, [])
        if isinstance(found, str):
            raise LookupFailed(found)
        return Records(bool(found), tuple(found))


@dataclass
class World:
    """A server without its HTTP edge, and its cluster. `another()` is a second server."""

    api: FakeApiServer
    cluster: Cluster
    clock: Clock = field(default_factory=Clock)
    validator: Validator = field(default_factory=Validator)
    records: ScriptedCAA = field(default_factory=ScriptedCAA)
    metrics: Metrics = field(default_factory=Metrics)
    key_stores: KeyStores = field(default_factory=KeyStores.build)
    audit: AuditStream = field(default_factory=no_stream)
    list_profiles: bool = False
    profiles: Informed[CertificateProfile] = field(init=False)
    policies: Informed[CertificatePolicy] = field(init=False)
    authorities: Informed[CertificateAuthority] = field(init=False)
    credentials: Informed[EABCredential] = field(init=False)
    secrets: Informed[Secret] = field(init=False)
    namespaces: Informed[Namespace] = field(init=False)
    sole_writer: bool = True
    offered: tuple[ChallengeType, ...] = ("http-01",)
    """The supported challenge types, all validated by `validator`."""
    objection: Objection = AddressFilter(ValidationSettings()).objection
    timing: ValidationTiming = QUICK
    post: Post | None = None
    replica: str = "server-0"
    orders_page: int = 100
    issuer: ScriptedIssuer | None = None
    """The CA of the profile, if it is external."""
    asks: bool = False
    """Whether external CAs are asked as in production, with `pace` and `schedule`; then there is no `issuer`."""
    pace: Pace = field(default_factory=lambda: Pace(inline=0.1, look=0.05, later=0.05))
    schedule: Schedule = field(default_factory=Schedule)
    profile_watchers: list[Callable[[CertificateProfile, bool], None]] = field(default_factory=list)
    """Called with each change of a profile."""
    services: Services = field(init=False)

    def __post_init__(self) -> None:
        self.api.store.clock = self.clock
        self.profiles = Informed(self.cluster, PROFILES, on_change=self._on_profile)
        self.policies = Informed(self.cluster, POLICIES)
        self.authorities = Informed(self.cluster, AUTHORITIES)
        self.credentials = Informed(
            self.cluster, CREDENTIALS, indexes={UID_INDEX: by_uid}, on_change=self._on_credential
        )
        self.secrets = Informed(self.cluster, SECRETS, indexes={OWNER_INDEX: by_owner})
        self.namespaces = Informed(self.cluster, NAMESPACES)

    def _on_profile(self, profile: CertificateProfile, deleted: bool) -> None:
        for each in self.profile_watchers:
            each(profile, deleted)

    def _on_credential(self, credential: EABCredential, deleted: bool) -> None:
        self.services.record_keeper.notice(credential, deleted)

    def start(self) -> None:
        """Start or restart the server with empty caches."""
        self.services = Services.build(
            self.cluster,
            ServerSettings(EXTERNAL_URL, RELEASE),
            urls=URLs(EXTERNAL_URL),
            configuration=Configuration(
                profiles=self.profiles,
                policies=self.policies,
                authorities=self.authorities,
                credentials=self.credentials,
                secrets=self.secrets,
                labels_of=self.labels_of,
            ),
            validation=Validation(
                validators=dict.fromkeys(self.offered, self.validator),
                lookup_caa=self.records.caa,
                objection=self.objection,
                timing=self.timing,
                post=self.post,
            ),
            environment=Environment(
                replica=self.replica,
                is_sole_writer=lambda: self.sole_writer,
                clock=self.clock,
                metrics=self.metrics,
                key_stores=self.key_stores,
                audit=self.audit,
            ),
            external=self._external(),
            orders_page=self.orders_page,
            notification_pace=NotificationPace(every=0.02, look=0.05, save=0.05, shortest=0.05, longest=0.2),
        )
        # Without watches, the server would wait for a list of the records for ever.
        self.services.state.record_index.mark_complete()
        # Nor would it admit anything. Of accounts and orders, other replicas may have written more.
        self.services.state.account_index.loaded = self.services.state.order_index.loaded = True

    def _external(self) -> External | None:
        issuer = self.issuer
        if self.asks:
            return External.build(
                self.cluster,
                self.authorities,
                find_secret=self.secrets.get,
                namespace=RELEASE,
                wake=lambda _: None,
                pace=self.pace,
                schedule=self.schedule,
            )
        if issuer is None:
            return None
        issuers = RemoteIssuers(
            authorities=self.authorities.values, builders=dict.fromkeys(get_args(AuthorityType), lambda _: issuer)
        )
        return External(issuers=issuers, pace=self.pace, schedule=self.schedule)

    def labels_of(self, name: str) -> dict[str, str] | None:
        found = self.namespaces.get("", name)
        return found.metadata.labels if found is not None else None

    def put_namespace(self, name: str, **labels: str) -> None:
        self.namespaces.put(Namespace(metadata=ObjectMeta(name=name, labels=labels)))

    @property
    def profile(self) -> Profile:
        return self.services.profiles.of(NAMESPACE, PROFILE)

    def another(self, **changes: Any) -> World:
        """A second server on the same cluster, with its own caches."""
        other = World(
            api=self.api,
            cluster=self.cluster,
            clock=self.clock,
            validator=changes.pop("validator", self.validator),
            post=self.post,
            records=self.records,
            sole_writer=False,
            offered=self.offered,
            objection=self.objection,
            timing=self.timing,
            replica=changes.pop("replica", "server-1"),
            issuer=self.issuer,
            asks=self.asks,
            pace=self.pace,
            schedule=self.schedule,
        )
        for informer in ("profiles", "policies", "authorities", "credentials", "secrets", "namespaces"):
            setattr(other, informer, getattr(self, informer))
        other.start()
        return other

    def configure(
        self,
        *,
        policy: PolicySpec | None = None,
        contents: CertificateContents | None = None,
        ready: bool = True,
        description: str = "",
        **acme: Any,
    ) -> None:
        """Replace the profile, its policy and its CA. EABCredentials may be in all namespaces."""
        usual = {"external_account_binding": "Disabled", "allowed_namespaces": ClientNamespaces(from_="All")}
        self.policies.put(
            CertificatePolicy(
                metadata=ObjectMeta(namespace=NAMESPACE, name="policy", uid="policy-uid"),
                spec=policy or PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",))),
            )
        )
        condition = Condition(
            type="Ready",
            status="True" if ready else "False",
            reason="Test",
            message="",
            last_transition_time=self.clock(),
        )
        consent = msgspec.structs.replace(condition, type=OPEN_ENROLLMENT, status="True", observed_generation=0)
        self.profiles.put(
            CertificateProfile(
                metadata=ObjectMeta(namespace=NAMESPACE, name=PROFILE, uid="profile-uid"),
                spec=ProfileSpec(
                    issuer_ref=LocalRef(name="ca"),
                    policy_ref=LocalRef(name="policy"),
                    description=description,
                    certificate=contents or CertificateContents(),
                    enrollment=Enrollment(acme=AcmeEnrollment(**{**usual, **acme})),
                ),
                status=ProfileStatus(conditions=(condition, consent)),
            )
        )

    def lend(
        self, name: str, *, policy: PolicySpec | None = None, contents: CertificateContents | None = None, **meta: Any
    ) -> CertificateProfile:
        """Create a second profile with the same CA, which the first profile can offer."""
        self.policies.put(
            CertificatePolicy(
                metadata=ObjectMeta(namespace=NAMESPACE, name=f"policy-of-{name}", uid=f"policy-of-{name}"),
                spec=policy or PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",))),
            )
        )
        ready = Condition(
            type="Ready",
            status="True" if meta.pop("ready", True) else "False",
            reason="Test",
            message="",
            last_transition_time=self.clock(),
        )
        return self.profiles.put(
            CertificateProfile(
                metadata=ObjectMeta(namespace=NAMESPACE, name=name, uid=f"uid-of-{name}"),
                spec=ProfileSpec(
                    issuer_ref=LocalRef(name="ca"),
                    policy_ref=LocalRef(name=f"policy-of-{name}"),
                    description=f"the profile {name}",
                    certificate=contents or CertificateContents(),
                    enrollment=Enrollment(acme=AcmeEnrollment()),
                ),
                status=ProfileStatus(conditions=(ready,)),
            )
        )

    def install_authority(self, uid: str = "ca-uid", **dates: Any) -> x509.Certificate:
        """Install the CA of the profile with its key."""
        now = self.clock()
        signer = pki.root(not_before=now - pki.DAY, **{"not_after": now + 365 * pki.DAY, **dates})
        certificate = signer.certificate.public_bytes(Encoding.PEM)
        self.authorities.put(
            CertificateAuthority(
                metadata=ObjectMeta(namespace=NAMESPACE, name="ca", uid=uid),
                spec=AuthoritySpec(),
                status=AuthorityStatus(
                    certificate=certificate.decode(),
                    subject_key_id=subject_key_id(signer.certificate),
                    not_after=signer.not_after,
                ),
            )
        )
        self.secrets.put(
            Secret(
                metadata=ObjectMeta(
                    namespace=RELEASE,
                    name=signing_key_name(uid),
                    labels={OWNER_UID: uid},
                    annotations={OWNER: f"CertificateAuthority {NAMESPACE}/ca"},
                ),
                data={TLS_CERTIFICATE: certificate, TLS_PRIVATE_KEY: private_key_pem(signer.key)},
            )
        )
        return signer.certificate

    def install_external(self, type_: AuthorityType = "CertManager", **external: Any) -> None:
        """Replace the CA of the profile by one whose key is somebody else's; its root is scripted_issuer.ANCHOR."""
        kinds: dict[AuthorityType, dict[str, Any]] = {
            "CertManager": {"cert_manager": CertManagerAuthority(issuer_ref=IssuerRef(name="corporate"))},
            "Signer": {"signer": SignerAuthority(name="example.com/web")},
            "Vault": {"vault": VaultAuthority(server="https://bao.example.com", path="pki/sign/web", auth=VaultAuth())},
        }
        self.authorities.put(
            CertificateAuthority(
                metadata=ObjectMeta(namespace=NAMESPACE, name="ca", uid=f"{type_}-uid"),
                spec=AuthoritySpec(external=ExternalAuthority(**kinds[type_], trust_anchors=(ANCHOR,), **external)),
                status=AuthorityStatus(
                    chain=ANCHOR,
                    not_after=self.clock() + 9_000 * pki.DAY,
                    conditions=(
                        Condition(
                            type="Ready",
                            status="True",
                            reason="Observed",
                            message="",
                            last_transition_time=self.clock(),
                        ),
                    ),
                ),
            )
        )

    def remove_authority_key(self) -> None:
        self.secrets.remove(RELEASE, signing_key_name("ca-uid"))

    def put_credential(
        self,
        key_id: str = KEY_ID_1,
        *,
        cached: bool = True,
        profile: str = PROFILE,
        name: str = "cred",
        namespace: str = "team",
        **spec: Any,
    ) -> EABCredential:
        """Create a credential with its verification Secret, in the cluster and, if `cached`, in the caches."""
        credential = self.api.put(
            CREDENTIALS,
            EABCredential(
                metadata=ObjectMeta(namespace=namespace, name=name),
                spec=CredentialSpec(profile_ref=NamespacedRef(name=profile, namespace=NAMESPACE), **spec),
            ),
        )
        secret = self.api.put(
            SECRETS,
            Secret(
                metadata=ObjectMeta(
                    namespace=RELEASE,
                    name=verification_key_name(NAMESPACE, PROFILE, key_id),
                    labels={OWNER_UID: credential.metadata.uid},
                    annotations={OWNER: f"EABCredential {namespace}/{name}"},
                ),
                data={KEY_ID: key_id.encode(), EAB_SECRET: MAC.encode()},
            ),
        )
        if cached:
            self.credentials.put(credential)
            self.secrets.put(secret)
        return credential

    def change_credential(self, name: str = "cred", **spec: Any) -> EABCredential:
        """Change the spec of a credential, in the cluster and in the caches."""
        known = self.api.read(CREDENTIALS, "team", name)
        assert known is not None
        changed = self.api.put(
            CREDENTIALS, msgspec.structs.replace(known, spec=msgspec.structs.replace(known.spec, **spec))
        )
        self.credentials.put(changed)
        return changed

    def remove_credential(self, name: str = "cred") -> None:
        """Delete a credential, in the cluster and in the caches."""
        self.api.remove(CREDENTIALS, "team", name)
        self.credentials.remove("team", name)

    async def bound(self, **credential: Any) -> ACMEAccount:
        """Create an account bound to a new credential with these members in its spec."""
        return await self.account(binding=Binding(self.put_credential(**credential), KEY_ID_1))

    async def account(self, key: Key | None = None, binding: Binding | None = None) -> ACMEAccount:
        holder = KeyHolder(self.profile, key or Key())
        account, _ = await self.services.accounts.register(holder, NewAccount(terms_of_service_agreed=True), binding)
        return account

    def caller(self, account: ACMEAccount) -> Caller:
        return Caller(self.profile, account)

    async def order(self, account: ACMEAccount, *names: str, **members: Any) -> ACMEOrder:
        chosen = wanted(*names or ("www.example.com",), **members)
        return await self.services.orders.create(self.caller(account), chosen)

    async def finalized(self, account: ACMEAccount, order: ACMEOrder, der: bytes | None = None) -> ACMEOrder:
        """Finalize an order with a CSR, by default one for exactly its names."""
        names = (each.value for each in order.spec.identifiers)
        return await self.services.orders.finalize(self.caller(account), order, pki.csr(*names) if der is None else der)

    async def proven(
        self, account: ACMEAccount, *names: str, type_: ChallengeType = "http-01", **members: Any
    ) -> ACMEOrder:
        """Create an order and validate it until it is ready."""
        order = await self.order(account, *names, **members)
        reused = {each.authorization for each in order.spec.authorized}
        for position in range(len(order.spec.identifiers)):
            if position not in reused:
                await self.respond(order, position, type_)
        order = await self.services.orders.poll(order)
        while order.status.state == "pending" and self.services.worker.running_challenges(order):  # a busy machine
            order = await self.services.orders.poll(order)
        return order

    async def respond(self, order: ACMEOrder, position: int = 0, type_: str = "http-01") -> ACMEOrder:
        """The order after a response to a challenge: loaded once, as the edge does."""
        account = await self.services.state.accounts.get(order.metadata.namespace, order.spec.account_ref.name)
        assert account is not None
        caller = self.caller(account)
        order = await self.services.orders.get_with_authorization(caller, order.metadata.name, position)
        return await self.services.orders.respond(caller, order, position, type_)

    def compromise(self, key: PublicKey) -> None:
        """As if a certificate with that key had been revoked for keyCompromise."""
        order = transitions.revoked(certified(), KEY_COMPROMISE, now=self.clock())
        status = msgspec.structs.replace(order.status, public_key_digest=fingerprint(key))
        self.services.state.order_index.update(msgspec.structs.replace(order, status=status), False)

    def stored(self, order: ACMEOrder) -> ACMEOrder:
        """The stored order."""
        from kms.resources.kinds import ORDERS  # noqa: PLC0415 - beside its only use

        found = self.api.read(ORDERS, order.metadata.namespace, order.metadata.name)
        assert found is not None
        return found

    def stored_orders(self) -> list[tuple[str, str]]:
        """The (namespace, name) of all stored orders."""
        return [(key.namespace, key.name) for key in self.api.store.by_key if key.plural == "acmeorders"]

    def calls(self, since: int = 0) -> list[str]:
        """The requests to the API server in short form, such as `create acmeorders`."""
        return [f"{each.verb} {each.plural}" for each in self.api.requests[since:]]


def certificate_of(order: ACMEOrder) -> x509.Certificate:
    """The certificate of a valid order."""
    assert order.status.certificate is not None, order.status
    return x509.load_pem_x509_certificate(order.status.certificate.encode())


def wanted(*names: str, **dates: Any) -> NewOrder:
    """A newOrder payload for these names and addresses."""
    identifiers = tuple(RequestedIdentifier(type=_type_of(name), value=name) for name in names)
    return NewOrder(identifiers=identifiers, **dates)


def _type_of(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "dns"
    return "ip"


@asynccontextmanager
async def running_world(configure: Callable[[World], None] | None = None) -> AsyncIterator[World]:
    """Run a server without EAB, with a CA, for names below example.com."""
    async with running_api() as api:
        world = World(api, await api.cluster())
        world.configure()
        world.install_authority()
        if configure is not None:
            configure(world)
        world.start()
        try:
            yield world
        finally:
            await world.services.worker.drain(2)
            await world.services.issuance.drain(2)
            await world.services.external.close()
