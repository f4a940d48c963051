"""What informers keep: no more than what is in force, and nothing that lets a reduced object grant something."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kms.resources.authorities import FormerKey
from kms.resources.compile import compile_narrowing, compile_policy
from kms.resources.kept import FORMER_KEYS, format_former_keys, parse_former_keys
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, ISSUERS, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import ObjectMeta
from kms.resources.retained import SOLVERS_TOO_LARGE, is_reduced, retained
from kms.resources.secret_names import COMPONENT, MANAGED_BY, OWNER

NAMES = [f"{number:03}.{'x' * 20}.example" for number in range(500)]
AT = "2026-11-23T12:00:00Z"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def stated(type_: str, status: str, reason: str) -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": AT}


def made(kind: Kind[Any], spec: dict[str, Any], *conditions: dict[str, str], observed: int = 3, **status: Any) -> Any:
    metadata = {"name": "x", "namespace": "team", "generation": 3}
    text = {"dnsNames": ""} if kind is POLICIES else {}
    state = {"observedGeneration": observed, "conditions": list(conditions), **text, **status}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": state}, kind.model)


POLICY = {"dnsNames": {"allowed": NAMES, "denied": NAMES}}
CREDENTIAL = {"profileRef": {"name": "web"}, "names": {"dnsNames": {"allowed": NAMES}}}
PROFILE = {"issuerRef": {"name": "i"}, "policyRef": {"name": "p"}, "enrollment": {"acme": {"website": "https://x"}}}


def size(object_: Any) -> int:
    return len(msgspec.json.encode(object_))


@pytest.mark.requirement("SEC72")
@pytest.mark.parametrize(
    ("kind", "spec", "condition"),
    [
        (POLICIES, POLICY, stated("InUse", "False", "NotReferenced")),
        (CREDENTIALS, CREDENTIAL, stated("Ready", "False", "CredentialLimitReached")),
        (CREDENTIALS, CREDENTIAL, stated("Ready", "False", "ProfileNotFound")),
        (PROFILES, {**PROFILE, "description": "d" * 500}, stated("Ready", "False", "ProfileLimitReached")),
        (
            AUTHORITIES,
            {"internal": {"subject": {"commonName": "x"}}, "crossCertificates": ["c" * 16_000]},
            stated("Ready", "False", "SecretLimitReached"),
        ),
    ],
)
def test_what_is_not_in_force_is_kept_by_its_identity(
    kind: Kind[Any], spec: dict[str, Any], condition: dict[str, str]
) -> None:
    whole = made(kind, spec, condition)
    assert is_reduced(whole)
    kept = retained(whole)
    assert size(kept) < min(size(whole), 700)
    assert (kept.metadata, kept.status) == (whole.metadata, whole.status)
    newer = made(kind, spec, condition, observed=2)
    assert retained(newer) == newer, "the operator has not seen this version yet"


@pytest.mark.parametrize(
    ("kind", "spec", "conditions", "status"),
    [
        (POLICIES, POLICY, [stated("Ready", "True", "Accepted")], {}),
        (POLICIES, POLICY, [stated("InUse", "True", "Referenced")], {"dnsNames": "text"}),
        (POLICIES, POLICY, [stated("InUse", "False", "NotReferenced")], {"dnsNames": None}),
        (CREDENTIALS, CREDENTIAL, [stated("Ready", "True", "Issued")], {"keyID": "k"}),
        (CREDENTIALS, CREDENTIAL, [stated("Ready", "False", "Suspended")], {"keyID": "k"}),
        (CREDENTIALS, CREDENTIAL, [stated("Ready", "False", "NamespaceNotAllowed")], {"accounts": 1}),
        (CREDENTIALS, CREDENTIAL, [], {}),
        (PROFILES, PROFILE, [stated("Ready", "False", "IssuerNotReady")], {}),
    ],
)
def test_what_is_in_force_is_kept_whole(
    kind: Kind[Any], spec: dict[str, Any], conditions: list[dict[str, str]], status: dict[str, Any]
) -> None:
    whole = made(kind, spec, *conditions, **status)
    assert retained(whole) == whole


@pytest.mark.requirement("SEC72")
def test_what_is_reduced_allows_no_name() -> None:
    policy = retained(made(POLICIES, {"dnsNames": {"allowed": ["**"]}}, stated("InUse", "False", "NotReferenced")))
    compiled = compile_policy(policy)
    assert (compiled.dns_names, compiled.ip_addresses) == (None, None)
    credential = retained(made(CREDENTIALS, CREDENTIAL, stated("Ready", "False", "ProfileNotFound")))
    narrowing = compile_narrowing(credential.spec.names, "x")
    assert narrowing.dns_names is not None
    assert narrowing.ip_addresses is not None
    assert credential.spec.names.dns_names.allowed == credential.spec.names.ip_addresses.allowed == ()


@pytest.mark.requirement("SEC72")
def test_labels_and_annotations_of_others_are_not_kept() -> None:
    labels = {MANAGED_BY: "kms-acme", COMPONENT: "eab", "team": "a"}
    annotations = {OWNER: "o" * 100_000, "note": "n" * 100_000}
    policy = made(POLICIES, POLICY)
    marked = msgspec.structs.replace(policy, metadata=ObjectMeta(name="x", labels=labels, annotations=annotations))
    kept = retained(marked)
    assert kept.metadata.labels == {MANAGED_BY: "kms-acme", COMPONENT: "eab"}
    assert kept.metadata.annotations == {OWNER: "o" * 1024}


@pytest.mark.requirement("SEC72")
def test_a_large_secret_of_a_tenant_is_kept_without_its_data() -> None:
    secret = SECRETS.model(metadata=ObjectMeta(namespace="team", name="x"), data={"any": b"x" * 20_000})
    assert retained(secret, release="kms-acme").data == {}
    assert retained(secret, release="team") == secret


@pytest.mark.requirement("SEC72")
def test_objects_without_a_schema_of_ours_are_limited() -> None:
    solvers = [{"dns01": {"webhook": "w" * 70_000}}]
    section = {"certManager": {"issuers": {"name": "x"}, "solvers": solvers}}
    kept = retained(made(PROFILES, {**PROFILE, "enrollment": {"acme": section}}))
    assert kept.cert_manager.solvers == SOLVERS_TOO_LARGE
    issuer = ISSUERS.model(metadata=ObjectMeta(name="x"), spec={"any": "x" * 70_000})
    assert retained(issuer).spec == {}


@pytest.mark.requirement("SEC79")
def test_all_former_keys_of_a_ca_are_kept_and_none_that_a_tenant_writes() -> None:
    former = [FormerKey(subject_key_id=f"{number:040x}", not_after=NOW) for number in range(500)]
    annotations = {FORMER_KEYS: format_former_keys(former)}
    secret = SECRETS.model(metadata=ObjectMeta(namespace="kms-acme", name="x", annotations=annotations))
    assert tuple(parse_former_keys(retained(secret, release="kms-acme").metadata)) == tuple(former)
    assert retained(secret, release="elsewhere").metadata.annotations == {}
