"""Small resources for tests of the operator, and the arguments of its pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from kms.pki.ca import chain_to_root_pem
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.keys import private_key_pem
from kms.resources.authorities import CertificateAuthority
from kms.resources.certmanager import Issuer
from kms.resources.core import Namespace, Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import ACCOUNTS, CLUSTER_ISSUERS, ISSUERS, Kind
from kms.resources.meta import Condition, Key, ObjectMeta, OwnerReference, Resource, Unreadable, condition, key_of
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import COMPONENT, MANAGED_BY, SERVING_AUTHORITY
from kms_operator.cache import Cache
from kms_operator.indexes import AccountSummary, Unavailability
from kms_operator.kinds import OPTIONAL_KINDS, WATCHED_KINDS
from kms_operator.observation import Observed
from kms_operator.plan import Manifest, Plan
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Snapshot

T = TypeVar("T")
R = TypeVar("R", bound=Resource)

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
RELEASE = "kms-acme"
SETTINGS = OperatorSettings(external_url="https://acme.example.com", namespace=RELEASE)


def entropy(seed: str = "") -> Callable[[int], bytes]:
    """Deterministic entropy: other bytes at each call, the same in each run."""
    calls = 0

    def draw(count: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_128(f"{seed}{calls}".encode()).digest(count)

    return draw


def metadata(name: str, namespace: str = "pki", *, version: int = 1, generation: int = 1, **more: Any) -> ObjectMeta:
    return ObjectMeta(
        name=name,
        namespace=namespace,
        uid=more.pop("uid", f"uid-{namespace}-{name}"),
        resource_version=str(version),
        generation=generation,
        creation_timestamp=more.pop("created", NOW - DAY),
        **more,
    )


def _resource(model: type[T], meta: ObjectMeta, spec: Mapping[str, Any], status: Mapping[str, Any] | None = None) -> T:
    plain = {"metadata": msgspec.to_builtins(meta), "spec": spec, "status": status or {}}
    return msgspec.convert(plain, model)


def ready_status(reason: str = "Issued", status: str = "True") -> dict[str, Any]:
    at = "2026-11-22T12:00:00Z"
    stated = {"type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": at}
    return {"conditions": [stated]}


def authority(
    name: str = "issuing",
    *,
    internal: Mapping[str, Any] | None = None,
    imported: str | None = None,
    external: Mapping[str, Any] | None = None,
    trust: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **more: Any,
) -> CertificateAuthority:
    if imported is not None:
        spec: dict[str, Any] = {"imported": {"secretRef": {"name": imported}}}
    elif external is not None:
        spec = {"external": external}
    else:
        key = {"algorithm": "ECDSA", "size": 256}
        spec = {"internal": {"subject": {"commonName": f"Test {name}"}, "privateKey": key, **(internal or {})}}
    if trust is not None:
        spec["trust"] = trust
    return _resource(CertificateAuthority, metadata(name, **more), spec, status)


def policy(name: str = "web", *, status: Mapping[str, Any] | None = None, **spec: Any) -> CertificatePolicy:
    return _resource(
        CertificatePolicy,
        metadata(name, uid=f"policy-{name}"),
        {"dnsNames": {"allowed": ["*.apps.example.com"]}, **spec},
        status,
    )


def profile(
    name: str = "web",
    *,
    acme: Mapping[str, Any] | None = None,
    certificate: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    enrolls: bool = True,
    **more: Any,
) -> CertificateProfile:
    spec = {
        "issuerRef": {"name": "issuing"},
        "policyRef": {"name": "web"},
        "certificate": certificate or {},
        "enrollment": {"acme": acme or {}} if enrolls else {},
    }
    return _resource(CertificateProfile, metadata(name, **{"uid": f"profile-{name}", **more}), spec, status)


def credential(
    name: str = "web",
    namespace: str = "pki",
    *,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **more: Any,
) -> EABCredential:
    full = {"profileRef": {"name": "web", "namespace": "pki"}, **(spec or {})}
    return _resource(EABCredential, metadata(name, namespace, **more), full, status)


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(metadata=ObjectMeta(name=name, resource_version="1", labels=labels))


def secret(
    name: str,
    namespace: str = "pki",
    *,
    data: Mapping[str, bytes] | None = None,
    labels: Mapping[str, str] | None = None,
    owner_uids: Iterable[str] = (),
    version: int = 1,
    type_: str = "Opaque",
) -> Secret:
    owners = tuple(OwnerReference(api_version="v1", kind="Any", name="any", uid=each) for each in owner_uids)
    meta = metadata(name, namespace, version=version, labels=dict(labels or {}), owner_references=owners)
    return Secret(metadata=meta, data=dict(data or {}), type=type_)


SERVING = secret(
    SETTINGS.serving_authority,
    RELEASE,
    data={"tls.crt": b"the serving CA"},
    labels={MANAGED_BY: "kms-acme", COMPONENT: SERVING_AUTHORITY},
)
"""The Secret with the CA of the server's own certificate."""


def pair(signer: Signer) -> dict[str, bytes]:
    """The contents of a kubernetes.io/tls Secret."""
    return {"tls.crt": chain_to_root_pem(signer).encode(), "tls.key": private_key_pem(signer.key)}


def certificate_chain(signer: Signer) -> str:
    """The chain of a CA in PEM, up to the root."""
    return chain_to_root_pem(signer)


def published(signer: Signer, **more: Any) -> dict[str, Any]:
    """The status of an issued CA."""
    return {
        **ready_status(),
        "certificate": certificate_pem(signer.certificate),
        "chain": chain_to_root_pem(signer),
        **more,
    }


def stored(written: R, *, version: int = 7) -> R:
    """A written object as the API server returns it."""
    meta = msgspec.structs.replace(written.metadata, resource_version=str(version), uid=f"uid-{written.metadata.name}")
    return msgspec.structs.replace(written, metadata=meta)  # type: ignore[type-var]


def cache_of(*resources: Any, accounts: Mapping[Key, int] | None = None) -> Cache:
    """A cache with these resources, `accounts` open accounts per credential, and all optional kinds available."""
    cache = Cache(release=RELEASE)
    cache.unavailable.clear()
    for (plural, _), each in {(_kind_of(each).plural, key_of(each)): each for each in resources}.items():
        assert cache.put(_kind_of(each), each), plural
    for credential, count in (accounts or {}).items():
        for number in range(count):
            cache.put(ACCOUNTS, AccountSummary(metadata(f"{credential[1]}-{number}"), credential, is_open=True))
    return cache


def snapshot_of(
    *resources: Any,
    settings: OperatorSettings = SETTINGS,
    accounts: Mapping[Key, int] | None = None,
    unavailable: Mapping[str, Unavailability] | None = None,
    served: Mapping[str, Kind[Any]] | None = None,
    absent: Iterable[tuple[str, tuple[str, str]]] = (),
    unreadable: Iterable[tuple[Kind[Any], Unreadable]] = (),
    observations: Mapping[str, Observed] | None = None,
) -> Snapshot:
    """A snapshot with these resources; `absent` are known not to exist, and `unreadable` do not fit their models."""
    cache = cache_of(*resources, accounts=accounts)
    cache.unavailable.update(unavailable or {})
    cache.served.update(served or {})
    for kind, each in unreadable:
        cache.put_unreadable(kind, each)
    return Snapshot(settings, cache, dict.fromkeys(absent), observations=observations or {})


def unread(one: Resource, field: str = "spec.expiresAt") -> Unreadable:
    """The object, as far as it is known once its field cannot be read."""
    return Unreadable(one.metadata, field, "Invalid RFC3339 encoded datetime")


def _kind_of(resource: Any) -> Kind[Any]:
    if isinstance(resource, Issuer):
        return ISSUERS if resource.metadata.namespace else CLUSTER_ISSUERS
    return next(kind for kind in (*WATCHED_KINDS, *OPTIONAL_KINDS) if isinstance(resource, kind.model))


def stated(plan: Plan, type_: str = "Ready") -> Condition:
    """The condition that the plan states."""
    status: Any = plan.status
    found = condition(status.conditions, type_)
    assert found is not None
    return found


def event_reasons(plan: Plan) -> list[str]:
    """The reasons of the events."""
    return [each.reason for each in plan.events]


def objects(manifests: Iterable[Manifest], kind: Kind[Any] | None = None) -> tuple[Any, ...]:
    """The objects of the manifests: of all, or of one kind."""
    return tuple(each.object for each in manifests if kind is None or each.kind is kind)


def names(resources: Iterable[Resource]) -> list[str]:
    """namespace/name of each."""
    return [f"{each.metadata.namespace}/{each.metadata.name}" for each in resources]
