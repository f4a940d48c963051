"""The eight kinds on a real API server after they were created: what may change, what kubectl shows and waits for."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import CommandFailed
from kms.resources.authorities import CertificateAuthority, ExternalAuthority
from kms.resources.columns import list_text
from kms.resources.kinds import ACCOUNTS, AUTHORITIES, CREDENTIALS, ORDERS, POLICIES, PROFILES, Kind
from kms.resources.meta import condition
from kms.resources.policies import CertificatePolicy, PolicySpec
from kms.resources.profiles import CertificateProfile
from tests.support.crds import CONFIGURATION, KINDS, definition
from tests.support.eventually import eventually
from tests.support.manifests import manifest

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
SINCE = "2026-11-23T12:00:00Z"
UNTIL = "2027-02-21T12:00:00Z"
NAME_OF_AN_ORDER = 32
"""Characters."""
PROVED: dict[str, Any] = {
    "identifier": {"type": "dns", "value": "shop.apps.example.com"},
    "state": "valid",
    "expires": UNTIL,
    "challenges": [{"type": "http-01", "state": "valid", "validated": SINCE}],
}
ISSUED = {
    "state": "valid",
    "certificate": PEM,
    "serialNumber": "0a1b",
    "notAfter": UNTIL,
    "authorizations": [PROVED],
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "Issued", "message": "issued", "lastTransitionTime": SINCE}
    ],
}


def create(cluster: Cluster, namespace: str, kind: Kind[Any], changes: dict[str, Any] | None = None) -> Any:
    """Create the object `example` and return what the API server made of it."""
    body = json.dumps(manifest(kind, changes))
    return json.loads(cluster.kubectl("create", "-n", namespace, "-o", "json", "-f", "-", stdin=body))


def patch(cluster: Cluster, namespace: str, kind: Kind[Any], change: dict[str, Any]) -> str:
    """Merge a change into the spec or the status of `example`; returns what kubectl says, good or bad."""
    subresource = ("--subresource=status",) if "status" in change else ()
    return cluster.kubectl(
        *("patch", kind.plural, "example", "-n", namespace, "--type=merge", "-p", json.dumps(change), *subresource),
        check=False,
    )


def set_rules(cluster: Cluster, document: Any) -> None:
    """Apply a definition of CertificatePolicy."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=json.dumps(document))


@pytest.mark.requirement("SEC72")
def test_a_policy_that_was_created_before_the_limits_keeps_working(installed: Cluster, namespace: str) -> None:
    current = definition(POLICIES)
    names = [f"{number:03}.{'x' * 60}.{'y' * 60}.example" for number in range(200)]
    status = {"observedGeneration": 1, "conditions": ISSUED["conditions"]}
    before = json.loads(json.dumps(current))
    spec = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    allowed = spec["properties"]["dnsNames"]["properties"]["allowed"]
    del allowed["x-kubernetes-validations"]
    set_rules(installed, before)
    try:
        eventually(lambda: not refused(installed, namespace, names), seconds=30)
    finally:
        set_rules(installed, current)
    eventually(lambda: refused(installed, namespace, names, "--dry-run=server"), seconds=30)
    assert "patched" in patch(installed, namespace, POLICIES, {"status": status})
    assert "patched" in patch(installed, namespace, POLICIES, {"spec": {"maximumNames": 5}})
    longer = {"spec": {"dnsNames": {"allowed": [*names, "another.example"]}}}
    assert "must have at most 16384 characters in all" in patch(installed, namespace, POLICIES, longer)
    assert "patched" in patch(installed, namespace, POLICIES, {"spec": {"dnsNames": {"allowed": names[:100]}}})


def refused(cluster: Cluster, namespace: str, names: list[str], *options: str) -> bool:
    """Whether the policy `example` with these names, or another one with --dry-run, is refused for their length."""
    body = json.loads(json.dumps(manifest(POLICIES, {"dnsNames.allowed": names})))
    body["metadata"]["name"] = "another" if options else "example"
    answer = cluster.kubectl("create", "-n", namespace, "-f", "-", *options, stdin=json.dumps(body), check=False)
    return "characters in all" in answer


# Defaults


def test_the_api_server_fills_in_what_the_models_assume(installed: Cluster, namespace: str) -> None:
    authority = msgspec.convert(create(installed, namespace, AUTHORITIES), CertificateAuthority, strict=False)
    policy = create(installed, namespace, POLICIES, {"dnsNames": None})
    profile = create(installed, namespace, PROFILES)
    assert authority.spec.internal is not None
    assert authority.spec.internal.duration == "87600h"
    assert msgspec.convert(policy, CertificatePolicy, strict=False).spec == PolicySpec()
    assert policy["spec"]["subject"] == {"commonName": {"allowed": ["**"]}, "otherAttributes": "LeaveOut"}
    acme = profile["spec"]["enrollment"]["acme"]
    assert acme["externalAccountBinding"] == "Required"
    assert acme["allowedNamespaces"] == {"from": "Same"}
    assert msgspec.convert(profile, CertificateProfile, strict=False).spec.certificate.duration == "720h"


def test_the_api_server_fills_in_what_the_model_of_an_external_ca_assumes(installed: Cluster, namespace: str) -> None:
    login = {"kubernetes": {"role": "r", "serviceAccountRef": {"name": "sa"}}}
    for spec in (
        {"certManager": {"issuerRef": {"name": "corporate"}}, "trustAnchors": [PEM]},
        {"vault": {"server": "https://vault.example.com", "path": "pki/sign/web", "auth": login}},
    ):
        created = create(installed, namespace, AUTHORITIES, {"internal": None, "external": spec})
        assumed = msgspec.convert(spec, ExternalAuthority, strict=False)
        assert msgspec.convert(created["spec"]["external"], ExternalAuthority, strict=False) == assumed
        installed.kubectl("delete", AUTHORITIES.plural, "example", "-n", namespace)


@pytest.mark.parametrize("kind", CONFIGURATION, ids=lambda kind: kind.plural)
def test_without_the_operator_nothing_is_ready_and_it_shows(
    installed: Cluster, namespace: str, kind: Kind[Any]
) -> None:
    create(installed, namespace, kind)
    read = json.loads(installed.kubectl("get", kind.plural, "example", "-n", namespace, "-o", "json"))
    seeded = condition(msgspec.convert(read, kind.model, strict=False).status.conditions, "Ready")
    assert seeded is not None
    assert (seeded.status, seeded.reason, seeded.message) == ("Unknown", "Pending", "Waiting for the operator")


@pytest.mark.requirement("SEC57")
def test_a_status_in_a_manifest_is_ignored(installed: Cluster, namespace: str) -> None:
    forged = {**manifest(ORDERS), "status": ISSUED}
    created = installed.kubectl("create", "-n", namespace, "-o", "json", "-f", "-", stdin=json.dumps(forged))
    assert json.loads(created)["status"] == {"state": "pending"}


# What may change


IMMUTABLE: list[tuple[Kind[Any], dict[str, Any], str]] = [
    (AUTHORITIES, {"internal": {"privateKey": {"size": 256}}}, "internal.privateKey: Forbidden: the key of a CA"),
    (
        AUTHORITIES,
        {"internal": {"subject": {"commonName": "X"}}},
        "internal.subject: Forbidden: the subject of a CA",
    ),
    (
        AUTHORITIES,
        {"internal": {"issuerRef": {"name": "root"}}},
        "internal.issuerRef: Forbidden: the issuer of a CA",
    ),
    (AUTHORITIES, {"internal": None, "imported": {"secretRef": {"name": "x"}}}, "spec: Forbidden: the type of a CA"),
    (ACCOUNTS, {"thumbprint": "y" * 43}, "spec: Forbidden: the spec of an account"),
    (ACCOUNTS, {"profileRef": {"name": "other"}}, "spec: Forbidden: the spec of an account"),
]


@pytest.mark.requirement("M58")
@pytest.mark.parametrize(
    ("kind", "change", "refusal"), IMMUTABLE, ids=[f"{kind.plural}-{'-'.join(change)}" for kind, change, _ in IMMUTABLE]
)
def test_what_is_set_once_cannot_be_changed(
    installed: Cluster, namespace: str, kind: Kind[Any], change: dict[str, Any], refusal: str
) -> None:
    create(installed, namespace, kind)
    assert f"{refusal} cannot be changed" in patch(installed, namespace, kind, {"spec": change})


def test_the_refusal_says_what_to_do_instead(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, AUTHORITIES)
    said = patch(installed, namespace, AUTHORITIES, {"spec": {"internal": {"subject": {"commonName": "Other CA"}}}})
    assert "create another CertificateAuthority and let profiles refer to that" in said


def test_the_issuer_of_an_intermediate_can_neither_be_changed_nor_be_taken_away(
    installed: Cluster, namespace: str
) -> None:
    create(installed, namespace, AUTHORITIES, {"internal.issuerRef": {"name": "root"}})
    for issuer in ({"name": "other"}, None):
        said = patch(installed, namespace, AUTHORITIES, {"spec": {"internal": {"issuerRef": issuer}}})
        assert "spec.internal.issuerRef: Forbidden: the issuer of a CA cannot be changed" in said


def test_a_ca_by_request_stays_one_and_its_certificate_may_change(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, AUTHORITIES, {"internal.signedBy": "Request"})
    for certificate in (PEM, PEM * 2, None):
        assert "patched" in patch(
            installed, namespace, AUTHORITIES, {"spec": {"internal": {"certificate": certificate}}}
        )
    said = patch(installed, namespace, AUTHORITIES, {"spec": {"internal": {"signedBy": None}}})
    assert "spec.internal.signedBy: Forbidden: who signs a CA cannot be changed" in said


def test_the_duration_and_the_constraints_of_a_ca_may_change(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, AUTHORITIES)
    change = {"internal": {"duration": "8760h", "nameConstraints": {"permitted": {"dnsDomains": ["example.com"]}}}}
    assert "patched" in patch(installed, namespace, AUTHORITIES, {"spec": change})


TRANSIT: dict[str, Any] = {
    "server": "https://openbao.example.com:8200",
    "key": "ca",
    "auth": {"tokenSecretRef": {"name": "t", "key": "t"}},
}
PKCS11: dict[str, Any] = {
    "module": "/opt/hsm/lib.so",
    "token": "kms",
    "key": "ca",
    "pinSecretRef": {"name": "hsm", "key": "pin"},
}


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("kind", ["transit", "pkcs11"])
def test_which_key_a_ca_has_in_a_key_store_cannot_be_changed(installed: Cluster, namespace: str, kind: str) -> None:
    stores = {"transit": TRANSIT, "pkcs11": PKCS11}
    create(installed, namespace, AUTHORITIES, {"internal.keyStore": {kind: stores[kind]}})
    (other,) = stores.keys() - {kind}
    refused: list[tuple[Any, str]] = [
        (None, "spec.internal.keyStore: Forbidden: where the key of a CA is cannot be changed"),
        ({kind: None, other: stores[other]}, "spec.internal.keyStore: Forbidden: the kind of a key store"),
        ({kind: {"key": "other"}}, f"spec.internal.keyStore.{kind}: Forbidden: "),
    ]
    allowed: list[Any] = [{"module": "/opt/other.so"}, {"pinSecretRef": {"name": "other"}}]
    if kind == "transit":
        refused += [
            ({kind: {each: value}}, f"spec.internal.keyStore.{kind}: Forbidden: ")
            for each, value in (("mountPath", "other"), ("namespace", "team-a"), ("keyVersion", 2))
        ]
        allowed = [{"server": "https://bao.example.com"}, {"caBundle": PEM}]
    for change, refusal in refused:
        assert refusal in patch(installed, namespace, AUTHORITIES, {"spec": {"internal": {"keyStore": change}}})
    for change in allowed:
        said = patch(installed, namespace, AUTHORITIES, {"spec": {"internal": {"keyStore": {kind: change}}}})
        assert "patched" in said


EXTERNAL: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"certManager": {"issuerRef": {"name": "corporate"}}, "trustAnchors": [PEM]},
        {"certManager": {"issuerRef": {"name": "other"}}},
        "spec.external.certManager.issuerRef: Forbidden: the issuer of an external CA cannot be changed",
    ),
    (
        {"certManager": {"issuerRef": {"name": "corporate"}}, "trustAnchors": [PEM]},
        {"certManager": None, "signer": {"name": "example.com/web"}},
        "spec.external: Forbidden: the type of a CA cannot be changed",
    ),
    (
        {"signer": {"name": "example.com/web"}, "trustAnchors": [PEM]},
        {"signer": {"name": "example.com/other"}},
        "spec.external.signer.name: Forbidden: the signer of an external CA cannot be changed",
    ),
    (
        {
            "vault": {
                "server": "https://vault.example.com",
                "path": "pki/sign/web",
                "auth": {"tokenSecretRef": {"name": "t", "key": "t"}},
            }
        },
        {"vault": {"path": "other/sign/web"}},
        "spec.external.vault.path: Forbidden: the mount and the issuer of an external CA cannot be changed",
    ),
]


@pytest.mark.requirement("X1")
@pytest.mark.parametrize(("spec", "change", "refusal"), EXTERNAL, ids=["issuer", "type", "signer", "path"])
def test_who_signs_for_an_external_ca_cannot_be_changed(
    installed: Cluster, namespace: str, spec: dict[str, Any], change: dict[str, Any], refusal: str
) -> None:
    create(installed, namespace, AUTHORITIES, {"internal": None, "external": spec})
    said = patch(installed, namespace, AUTHORITIES, {"spec": {"external": change}})
    assert refusal in said
    assert "create another CertificateAuthority and let profiles refer to that" in said
    becomes_internal = {"external": None, "internal": {"subject": {"commonName": "Example CA"}}}
    said = patch(installed, namespace, AUTHORITIES, {"spec": becomes_internal})
    assert "spec: Forbidden: the type of a CA cannot be changed between internal, imported and external" in said


@pytest.mark.requirement("X1")
def test_the_role_of_vault_and_the_trust_anchors_may_change(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, AUTHORITIES, {"internal": None, "external": EXTERNAL[3][0]})
    change = {"vault": {"path": "pki/sign/other", "server": "https://other.example.com"}, "trustAnchors": [PEM]}
    assert "patched" in patch(installed, namespace, AUTHORITIES, {"spec": {"external": change}})


@pytest.mark.requirement("M70")
def test_a_deactivated_account_stays_so(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, ACCOUNTS)
    assert "patched" in patch(
        installed, namespace, ACCOUNTS, {"status": {"state": "valid", "contact": ["mailto:a@b.c"]}}
    )
    for allowed in ("suspended", "valid", "suspended", "deactivated"):
        assert "patched" in patch(installed, namespace, ACCOUNTS, {"status": {"state": allowed}})
    for state in ("valid", "suspended", "revoked", None):
        said = patch(installed, namespace, ACCOUNTS, {"status": {"state": state}})
        assert "status.state: Forbidden: a deactivated or revoked account never becomes valid again" in said


@pytest.mark.requirement("SEC77")
def test_an_account_never_forgets_what_its_credential_said(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, ACCOUNTS)
    record = {"state": "Deleted", "uid": "u", "changedAt": SINCE, "suspended": True}
    assert "patched" in patch(installed, namespace, ACCOUNTS, {"status": {"state": "valid", "credential": record}})
    said = patch(installed, namespace, ACCOUNTS, {"status": {"credential": None}})
    assert "status.credential: Forbidden: status.credential cannot be removed" in said
    assert "patched" in patch(installed, namespace, ACCOUNTS, {"status": {"credential": {"suspended": False}}})


@pytest.mark.requirement("SEC23")
def test_an_account_remembers_every_key_that_it_has_had(installed: Cluster, namespace: str) -> None:
    first, second, third = "x" * 43, "y" * 43, "z" * 43

    def keyed(thumbprint: str, *former: str) -> str:
        key = {"jwk": "{}", "thumbprint": thumbprint, "changedAt": SINCE}
        return patch(installed, namespace, ACCOUNTS, {"status": {"key": key, "formerKeys": list(former)}})

    create(installed, namespace, ACCOUNTS)
    patch(installed, namespace, ACCOUNTS, {"status": {"state": "valid"}})
    assert "patched" in keyed(second, first)
    said = keyed(third, first)
    assert "status.key: Forbidden: the thumbprint of a key that is replaced must be added to" in said
    said = keyed(third, second)
    assert "status.formerKeys: Forbidden: a replaced key cannot be removed from status.formerKeys" in said
    said = patch(installed, namespace, ACCOUNTS, {"status": {"key": None}})
    assert "status.key: Forbidden: status.key cannot be removed" in said
    assert "patched" in keyed(third, first, second)
    assert "patched" in keyed(first, first, second, third)


def test_an_alias_has_no_status(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, ACCOUNTS, {"aliasOf": {"name": "somebody"}})
    said = patch(installed, namespace, ACCOUNTS, {"status": {"state": "valid"}})
    assert "status: Forbidden: an alias has no status" in said


# What kubectl shows


READY = {"type": "Ready", "status": "True", "reason": "Issued", "message": "issued", "lastTransitionTime": SINCE}
WARNED = {"type": "Warnings", "status": "True", "reason": "Flaw", "message": "a flaw", "lastTransitionTime": SINCE}
TABLE: list[tuple[Kind[Any], dict[str, Any], dict[str, Any], list[str]]] = [
    (
        AUTHORITIES,
        {},
        {"conditions": [READY], "type": "Root", "subject": "CN=Example CA", "notAfter": UNTIL},
        ["READY=True", "REASON=Issued", "TYPE=Root", "SUBJECT=CN=Example CA", f"EXPIRES={UNTIL}", "WARNINGS="],
    ),
    (
        AUTHORITIES,
        {"internal": None, "external": EXTERNAL[1][0]},
        {
            "conditions": [{**READY, "status": "False", "reason": "IssuerNotReady"}],
            "type": "CertManager",
            "subject": "CN=Root",
            "notAfter": UNTIL,
        },
        [
            "READY=False",
            "REASON=IssuerNotReady",
            "TYPE=CertManager",
            "SUBJECT=CN=Root",
            f"EXPIRES={UNTIL}",
            "WARNINGS=",
        ],
    ),
    (
        POLICIES,
        {"dnsNames.allowed": ["*.a.test", "b.test"]},
        {"conditions": [READY, WARNED], "dnsNames": "*.a.test, b.test"},
        ["READY=True", "REASON=Issued", "DNS=*.a.test, b.test", "WARNINGS=True"],
    ),
    (
        PROFILES,
        {"description": "for web servers"},
        {"conditions": [READY, WARNED], "directoryURL": "https://acme.test/directory"},
        [
            *("READY=True", "REASON=Issued", "CA=issuing", "POLICY=web", "EAB=Required"),
            *("DIRECTORY=https://acme.test/directory", "DESCRIPTION=for web servers", "WARNINGS=True"),
        ],
    ),
    (
        CREDENTIALS,
        {"expiresAt": UNTIL, "profileRef.namespace": "pki"},
        {"conditions": [READY, WARNED], "keyID": "k1", "secretName": "web-eab", "accounts": 2},
        [
            *("READY=True", "REASON=Issued", "PROFILE=web", "PROFILENAMESPACE=pki"),
            *("KID=k1", "SECRET=web-eab", "ACCOUNTS=2", f"EXPIRES={UNTIL}", "WARNINGS=True"),
        ],
    ),
    (
        ACCOUNTS,
        {"externalAccount": {"name": "web", "namespace": "pki", "uid": "u", "keyID": "k1"}},
        {
            "state": "suspended",
            "contact": ["mailto:a@example.com", "mailto:b@example.com"],
            "contactText": "a@example.com, b@example.com",
            "credential": {"state": "Deleted", "uid": "u", "changedAt": SINCE, "suspended": True},
        },
        [
            *("STATE=suspended", "PROFILE=web", "EAB=web", "EABNAMESPACE=pki", "CREDENTIAL=Deleted"),
            *("CONTACT=a@example.com, b@example.com", "ALIASOF="),
        ],
    ),
    (
        ORDERS,
        {"names": "shop.apps.example.com, 10.0.0.1", "clientNamespace": "team-a"},
        ISSUED,
        [
            *(
                "STATE=valid",
                "NAMES=shop.apps.example.com, 10.0.0.1",
                "PROFILE=web",
                "REASON=Issued",
                f"EXPIRES={UNTIL}",
            ),
            *("ACCOUNT=somebody", "CLIENT=team-a", "SERIAL=0a1b"),
        ],
    ),
]


@pytest.mark.parametrize(
    "row", TABLE, ids=[f"{kind.plural}-{status.get('type', '')}".rstrip("-") for kind, _, status, _ in TABLE]
)
def test_kubectl_get_shows_what_matters(
    installed: Cluster, namespace: str, row: tuple[Kind[Any], dict[str, Any], dict[str, Any], list[str]]
) -> None:
    kind, changes, status, expected = row
    create(installed, namespace, kind, changes)
    assert "patched" in patch(installed, namespace, kind, {"status": status})
    head, line = installed.kubectl("get", kind.plural, "example", "-n", namespace, "-o", "wide").splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    cells = [line[start:end].strip() for start, end in pairwise([*starts, None])]
    shown = dict(zip(head.split(), cells, strict=True))
    assert (shown.pop("NAME"), bool(shown.pop("AGE"))) == ("example", True)
    assert [f"{name}={cell}" for name, cell in shown.items()] == expected


def test_a_line_stays_short_however_many_names_there_are(installed: Cluster, namespace: str) -> None:
    names = list_text([f"shop-{number}.apps.example.com" for number in range(12)])
    patterns = list_text([f"*.team-{number}.apps.example.com" for number in range(60)])
    create(installed, namespace, ORDERS, {"names": names})
    create(installed, namespace, POLICIES)
    patch(installed, namespace, ORDERS, {"status": ISSUED})
    patch(installed, namespace, POLICIES, {"status": {"conditions": [READY], "dnsNames": patterns}})
    for kind, text in ((ORDERS, names), (POLICIES, patterns)):
        line = installed.kubectl("get", kind.plural, "-n", namespace, "--no-headers").rstrip()
        assert text in line
        assert "[" not in line
        assert len(line) - len("example") + NAME_OF_AN_ORDER < 200


def test_one_category_lists_what_people_write_and_another_what_the_server_records(
    installed: Cluster, namespace: str
) -> None:
    for kind in KINDS:
        create(installed, namespace, kind)
    for category, kinds in (("kms", CONFIGURATION), ("kms-records", set(KINDS) - set(CONFIGURATION))):
        names = installed.kubectl("get", category, "-n", namespace, "-o", "name").split()
        assert sorted(names) == sorted(f"{kind.kind.lower()}.{kind.group}/example" for kind in kinds)


@pytest.mark.parametrize("short", ["kca", "kpol", "kprof", "eab", "acmeacct", "acmeord", "revrec"])
def test_the_short_names_work(installed: Cluster, namespace: str, short: str) -> None:
    assert "No resources found" in installed.kubectl("get", short, "-n", namespace, check=False)


def test_orders_and_accounts_are_found_by_what_they_belong_to(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, ORDERS)
    create(installed, namespace, CREDENTIALS)
    for kind, selector in (
        ("acmeord", "spec.profileRef.name=web,spec.accountRef.name=somebody,status.state=pending"),
        ("eab", "spec.profileRef.name=web"),
    ):
        found = installed.kubectl("get", kind, "-n", namespace, "-o", "name", "--field-selector", selector)
        assert found.endswith("/example\n")
        other = selector.replace("=web", "=other")
        assert installed.kubectl("get", kind, "-n", namespace, "-o", "name", "--field-selector", other) == ""


def test_kubectl_tells_aliases_from_accounts(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, ACCOUNTS, {"aliasOf": {"name": "somebody"}})
    head, line = installed.kubectl("get", "acmeacct", "-n", namespace).splitlines()
    assert line[head.index("ALIASOF") :].split()[0] == "somebody"
    for selector, found in (("spec.aliasOf.name=", False), ("spec.aliasOf.name=somebody", True)):
        listed = installed.kubectl("get", "acmeacct", "-n", namespace, "-o", "name", "--field-selector", selector)
        assert bool(listed) is found


def test_kubectl_waits_for_an_order(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, ORDERS)
    wait = ("wait", "-n", namespace, "--for=condition=Ready", "acmeorder/example")
    with pytest.raises(CommandFailed, match="timed out"):
        installed.kubectl(*wait, "--timeout=1s")
    patch(installed, namespace, ORDERS, {"status": ISSUED})
    assert "condition met" in installed.kubectl(*wait, "--timeout=60s")


def test_kubectl_describe_tells_why_a_challenge_failed(installed: Cluster, namespace: str) -> None:
    create(installed, namespace, ORDERS)
    error = {"type": "unauthorized", "detail": "shop.apps.example.com answered 404"}
    failed = {**PROVED, "state": "invalid", "challenges": [{"type": "http-01", "state": "invalid", "error": error}]}
    patch(installed, namespace, ORDERS, {"status": {"state": "invalid", "authorizations": [failed]}})
    assert error["detail"] in installed.kubectl("describe", "acmeorder", "example", "-n", namespace)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("certificateprofile.spec.enrollment.acme", ["externalAccountBinding", "enum: Required, Optional, Disabled"]),
        ("certificateprofile.spec.enrollment.acme.ownershipValidation", ["externalAccountBinding: Required"]),
        ("certificateauthority.spec.internal.privateKey", ["RSA takes 2048, 3072 or 4096"]),
        ("certificatepolicy.spec", ["Denied wins over allowed", "maximumDuration"]),
        ("eabcredential.spec.names", ["both must allow a name"]),
        ("acmeaccount.status.state", ["ENUM: valid suspended deactivated revoked"]),
        ("acmeorder.status.authorizations.challenges.error", ["The error, as sent to the client."]),
    ],
    ids=str,
)
def test_kubectl_explain_is_the_manual(installed: Cluster, path: str, expected: list[str]) -> None:
    explained = " ".join(installed.kubectl("explain", path).split())
    for each in expected:
        assert each in explained
    assert "<no description>" not in explained
