"""CAs behind cert-manager's API, with cert-manager's real controllers and its real webhook, and without pods.

The requests are made with the rights of the server's role alone.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from e2e.cluster import Cluster as ControlPlane
from kms.cluster.client import Cluster
from kms.cluster.codec import encode
from kms.cluster.errors import NotFound
from kms.issuers.cert_manager import CertManagerIssuer, request_of
from kms.issuers.protocol import (
    Answer,
    Denied,
    Failed,
    Pending,
    Refused,
    RemoteIssuer,
    Returned,
    Submission,
    request_name,
)
from kms.issuers.request_objects import RequestObjects
from kms.issuers.signer import SignerIssuer
from kms.pki.ca import Asked, InvalidAuthority, certificate_request, read_answer
from kms.pki.csr import parse_request
from kms.pki.keys import private_key_pem
from kms.pki.names import dns_name
from kms.pki.returned import Expected, check_returned
from kms.pki.verbatim import requested_usages
from kms.resources.authorities import (
    AuthoritySpec,
    CertificateAuthority,
    CertManagerAuthority,
    ExternalAuthority,
    IssuerRef,
    SignerAuthority,
)
from kms.resources.certmanager import CertificateRequest, CertificateRequestStatus, RequestCondition
from kms.resources.kinds import CERTIFICATE_REQUESTS, SIGNING_REQUESTS
from kms.resources.meta import ObjectMeta
from kms.resources.signing_requests import CertificateSigningRequest
from kms_operator.questions import CertifyAuthority
from kms_operator.subordinates import SubordinateCertificates, request_for
from tests.support import operated, pki
from tests.support.certmanager_programs import running_cert_manager
from tests.support.eventually import becomes
from tests.support.requests import POLICY, USAGES, harmless
from tests.support.scripted_issuer import FOREIGN_CA, certified_as

pytestmark = pytest.mark.node

NAME = "www.example.com"
FOREIGN = IssuerRef(name="corporate", kind="CorporateIssuer", group="ca.example.com")
OWN = IssuerRef(name="corporate")


CORPORATE_ISSUERS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"corporateissuers.{FOREIGN.group}"},
    "spec": {
        "group": FOREIGN.group,
        "names": {"kind": FOREIGN.kind, "plural": "corporateissuers"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


@pytest.fixture(scope="module")
def plane(
    clusters: Callable[..., AbstractContextManager[ControlPlane]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane with cert-manager and a CA issuer in namespace `pki`."""
    with clusters() as started, running_cert_manager(started, tmp_path_factory.mktemp("cert-manager")):
        started.kubectl("create", "namespace", "pki")
        signer = FOREIGN_CA
        data = {
            "tls.crt": signer.certificate.public_bytes(Encoding.PEM).decode(),
            "tls.key": private_key_pem(signer.key).decode(),
            "ca.crt": signer.issuers[0].public_bytes(Encoding.PEM).decode(),
        }
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "corporate"}, "type": "kubernetes.io/tls"}
        issuer = {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Issuer",
            "metadata": {"name": "corporate"},
            "spec": {"ca": {"secretName": "corporate"}},
        }
        rules = [
            {
                "apiGroups": ["cert-manager.io"],
                "resources": ["certificaterequests"],
                "verbs": ["create", "get", "list", "watch", "delete"],
            }
        ]
        _apply(started, {**secret, "stringData": data}, issuer, *_role("server", rules), CORPORATE_ISSUERS)
        started.kubectl("create", "serviceaccount", "server", "--namespace=pki")
        started.kubectl("wait", "--namespace=pki", "--for=condition=Ready", "--timeout=60s", "issuer/corporate")
        yield started


def _apply(plane: ControlPlane, *manifests: dict[str, Any]) -> None:
    documents = "\n---\n".join(map(json.dumps, manifests))
    plane.kubectl("apply", "--server-side", "--namespace=pki", "--filename=-", stdin=documents)


def _role(name: str, rules: list[dict[str, Any]], *, kind: str = "Role") -> list[dict[str, Any]]:
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": kind, "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "server", "namespace": "pki"}],
        },
    ]


@asynccontextmanager
async def asking(
    plane: ControlPlane, ref: IssuerRef = OWN, **external: Any
) -> AsyncIterator[tuple[CertManagerIssuer, RequestObjects[CertificateRequest]]]:
    """An issuer with the rights of the server, and its watch."""
    client = await Cluster.connect(kubeconfig=str(plane.kubeconfig_for("server", "pki")))
    spec = ExternalAuthority(cert_manager=CertManagerAuthority(issuer_ref=ref), **external)
    authority = CertificateAuthority(
        metadata=ObjectMeta(namespace="pki", name="ca", uid="uid"), spec=AuthoritySpec(external=spec)
    )
    requests: RequestObjects[CertificateRequest] = RequestObjects(
        client, CERTIFICATE_REQUESTS, on_change=lambda _: None
    )
    requests.watch({"pki"})
    try:
        yield CertManagerIssuer(authority, requests, client), requests
    finally:
        await requests.close()
        await client.close()


def submission(der: bytes | None = None, **changes: Any) -> Submission:
    uid = secrets.token_hex(8)
    request = pki.csr(NAME, common_name=NAME) if der is None else der
    asked = Submission(
        name=request_name(uid=uid, digest=uid, attempt=1),
        order=("pki", "order"),
        order_uid=uid,
        attempt=1,
        request=request,
        usages=("digital signature", "server auth"),
        duration=timedelta(hours=720),
    )
    return dataclasses.replace(asked, **changes)


async def answer(issuer: RemoteIssuer, asked: Submission) -> Answer:
    """The first answer that is not Pending."""
    found: list[Answer] = []

    async def is_final() -> bool:
        found.append(await issuer.look(asked))
        return not isinstance(found[-1], Pending)

    await becomes(is_final)
    return found[-1]


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Cluster]:
    client = await Cluster.connect(kubeconfig=str(plane.kubeconfig))
    yield client
    await client.close()


@pytest.mark.requirement("X17", "X23", "X37", "SEC29")
async def test_a_ca_issuer_signs_what_is_asked(plane: ControlPlane, admin: Cluster) -> None:
    async with asking(plane) as (issuer, _):
        asked = submission()
        await issuer.begin(asked)
        returned = await answer(issuer, asked)
        assert isinstance(returned, Returned)
        now = datetime.now(UTC)
        request = parse_request(asked.request)
        expected = Expected(
            request=request,
            names=frozenset({dns_name(NAME)}),
            usages=frozenset(asked.usages),
            subject={},
            policy=POLICY,
            duration=asked.duration,
            accepted=now,
        )
        checked = check_returned(returned.pem, expected, anchors=FOREIGN_CA.issuers[-1:], now=now)
        assert (len(checked.issuers), checked.shortened) == (2, False)
        stored = await admin.get(CERTIFICATE_REQUESTS, "pki", asked.name)
        assert stored.spec.username == "system:serviceaccount:pki:server"
        await issuer.begin(asked)  # another replica
        assert await issuer.look(asked) == returned
        await issuer.forget(asked)
        with pytest.raises(NotFound):
            await admin.get(CERTIFICATE_REQUESTS, "pki", asked.name)


@pytest.mark.requirement("X37")
async def test_a_request_that_differs_from_its_usages_is_refused_for_good(plane: ControlPlane) -> None:
    async with asking(plane) as (issuer, _):
        extensions = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
        asked = submission(pki.csr(NAME, extensions=extensions))
        await issuer.begin(asked)
        found = await issuer.look(asked)
        assert isinstance(found, Refused), found
        assert "denied the request" in found.message, found


@pytest.mark.requirement("X37", "X41")
async def test_issuers_of_other_groups_wait_for_an_approval(plane: ControlPlane, admin: Cluster) -> None:
    async with asking(plane, FOREIGN) as (issuer, _), asking(plane, FOREIGN, approval="Automatic") as (own, _):
        waits, automatic = submission(), submission()
        await issuer.begin(waits)
        await own.begin(automatic)
        found = await issuer.look(waits)
        assert isinstance(found, Pending)
        assert found.reason == "WaitingForApproval"
        found = await own.look(automatic)
        assert isinstance(found, Pending)
        assert (found.reason, "may not approve" in found.message) == ("WaitingForApproval", True)
        signers = f"corporateissuers.{FOREIGN.group}/pki.corporate"
        _apply(
            plane,
            *_role(
                "approver",
                [
                    {
                        "apiGroups": ["cert-manager.io"],
                        "resources": ["certificaterequests/status"],
                        "verbs": ["update"],
                    },
                    {
                        "apiGroups": ["cert-manager.io"],
                        "resources": ["signers"],
                        "resourceNames": [signers, f"corporateissuers.{FOREIGN.group}/*"],
                        "verbs": ["approve"],
                    },
                ],
                kind="ClusterRole",
            ),
        )

        async def is_approved() -> bool:
            await own.look(automatic)
            stored = await admin.get(CERTIFICATE_REQUESTS, "pki", automatic.name)
            return stored.condition("Approved") is not None

        await becomes(is_approved)
        assert isinstance(await issuer.look(waits), Pending), "by default, nobody approves here"
        for asked in (waits, automatic):
            await reconcile(admin, asked)
        assert isinstance(await answer(own, automatic), Returned)
        await decide(admin, waits, "Denied")
        assert isinstance(await answer(issuer, waits), Denied)


async def reconcile(admin: Cluster, asked: Submission) -> None:
    """An issuer of another group: signs what is approved."""
    request = await admin.get(CERTIFICATE_REQUESTS, "pki", asked.name)
    approved = request.condition("Approved")
    if request.spec.issuer_ref.group != FOREIGN.group or approved is None or approved.status != "True":
        return
    ready = _condition("Ready", "Issued")
    status: CertificateRequestStatus = replace(
        request.status,
        conditions=(*(request.status.conditions or ()), ready),
        certificate=certified_as(asked).pem,
    )
    await admin.replace_status(CERTIFICATE_REQUESTS, replace(request, status=status))


async def decide(admin: Cluster, asked: Submission, decision: str) -> None:
    """Approve or deny as an administrator."""
    request = await admin.get(CERTIFICATE_REQUESTS, "pki", asked.name)
    conditions = (*(request.status.conditions or ()), _condition(decision, "Policy"))
    status: CertificateRequestStatus = replace(request.status, conditions=conditions)
    await admin.replace_status(CERTIFICATE_REQUESTS, replace(request, status=status))


def _condition(type_: str, reason: str) -> RequestCondition:
    time = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return RequestCondition(type=type_, status="True", reason=reason, message="by a test", last_transition_time=time)


@pytest.mark.requirement("X37")
async def test_an_issuer_that_is_missing_makes_the_order_wait(plane: ControlPlane) -> None:
    async with asking(plane, IssuerRef(name="missing")) as (issuer, _):
        asked = submission()
        await issuer.begin(asked)

        async def is_told() -> bool:
            found = await issuer.look(asked)
            assert isinstance(found, Pending)
            return found.reason == "WaitingForIssuer" and "missing" in found.message

        await becomes(is_told)


@pytest.mark.requirement("X37")
async def test_a_self_signed_issuer_fails_for_want_of_a_key(plane: ControlPlane) -> None:
    issuer_spec = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "self"}}
    _apply(plane, {**issuer_spec, "spec": {"selfSigned": {}}})
    plane.kubectl("wait", "--namespace=pki", "--for=condition=Ready", "--timeout=60s", "issuer/self")
    async with asking(plane, IssuerRef(name="self")) as (issuer, _):
        asked = submission()
        await issuer.begin(asked)
        assert isinstance(await answer(issuer, asked), Failed)


@pytest.mark.requirement("X30", "X19", "X27")
def test_the_webhook_takes_what_may_go_unchanged(plane: ControlPlane) -> None:
    found: list[bytes] = []

    @settings(max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(harmless())
    def collect(der: bytes) -> None:
        found.append(der)

    collect()
    requests = [
        request_of(submission(der, usages=requested_usages(parse_request(der), USAGES)), OWN)
        for der in dict.fromkeys(found)
    ]
    items = [json.loads(encode(CERTIFICATE_REQUESTS, each)) for each in requests]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    printed = plane.kubectl("create", "--dry-run=server", "--filename=-", stdin=listed, limit=120)
    assert printed.count("created") == len(items) >= 30


@pytest.mark.requirement("X17", "X37", "X41", "SEC29")
async def test_cert_manager_signs_as_a_signer_of_kubernetes(plane: ControlPlane, admin: Cluster) -> None:
    requests_rule = {
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests"],
        "verbs": ["create", "get", "list", "watch", "delete"],
    }
    reference = {
        "apiGroups": ["cert-manager.io"],
        "resources": ["signers"],
        "resourceNames": ["corporate"],
        "verbs": ["reference"],
    }
    _apply(plane, *_role("signer", [requests_rule], kind="ClusterRole"), *_role("reference", [reference]))
    client = await Cluster.connect(kubeconfig=str(plane.kubeconfig_for("server", "pki")))
    requests: RequestObjects[CertificateSigningRequest] = RequestObjects(
        client, SIGNING_REQUESTS, on_change=lambda _: None
    )
    requests.watch({"pki"})
    signer = SignerAuthority(name="issuers.cert-manager.io/pki.corporate")
    metadata = ObjectMeta(namespace="pki", name="ca", uid="uid")

    def issuer(approval: Literal["Wait", "Automatic"]) -> SignerIssuer:
        spec = AuthoritySpec(external=ExternalAuthority(signer=signer, approval=approval))
        return SignerIssuer(CertificateAuthority(metadata=metadata, spec=spec), requests, client)

    try:
        asked, patient, automatic = submission(), issuer("Wait"), issuer("Automatic")
        await patient.begin(asked)
        found = await patient.look(asked)
        assert isinstance(found, Pending)
        assert found.reason == "WaitingForApproval"
        found = await automatic.look(asked)
        assert isinstance(found, Pending)
        assert "may not approve" in found.message
        approve = {
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["signers"],
            "resourceNames": ["issuers.cert-manager.io/*"],
            "verbs": ["approve"],
        }
        update = {
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["certificatesigningrequests/approval"],
            "verbs": ["update"],
        }
        _apply(plane, *_role("signer-approver", [approve, update], kind="ClusterRole"))
        returned = await answer(automatic, asked)
        assert isinstance(returned, Returned)
        assert (await admin.get(SIGNING_REQUESTS, "", asked.name)).spec.username == "system:serviceaccount:pki:server"
        leaf = x509.load_pem_x509_certificates(returned.pem)[0]
        assert leaf.issuer == FOREIGN_CA.certificate.subject
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= asked.duration + timedelta(minutes=10)
        await patient.forget(asked)
        denied = submission()
        await patient.begin(denied)
        plane.kubectl("certificate", "deny", denied.name)
        assert isinstance(await answer(patient, denied), Denied)
    finally:
        await requests.close()
        await client.close()


@pytest.mark.requirement("X52")
async def test_a_ca_issuer_certifies_a_ca(plane: ControlPlane, admin: Cluster) -> None:
    async def no_credentials(*_: object) -> dict[str, bytes]:
        raise AssertionError("cert-manager asks for none")

    asked, key = Asked("Issuing CA", path_length=0), pki.key(which="below")
    external = {"certManager": {"issuerRef": {"name": OWN.name}}}
    question = CertifyAuthority(
        request=certificate_request(asked, key),
        issuer_version=("uid", 1),
        replaces=0,
        issuer=operated.authority("corporate", external=external),
        authority=operated.authority("below", internal={"issuerRef": {"name": "corporate"}, "pathLength": 0}),
        duration=timedelta(hours=1000),
    )
    certificates = SubordinateCertificates(operated.SETTINGS, admin, no_credentials)
    found: list[bytes] = []

    async def is_certified() -> bool:
        try:
            found.append(await certificates.certify(question))
        except InvalidAuthority as error:
            if error.reason not in {"WaitingForApproval", "WaitingForIssuer"}:
                raise
        return bool(found)

    await becomes(is_certified)
    chain = read_answer(found[0].decode())
    assert (chain[0].public_key(), chain[0].issuer) == (key.public_key(), FOREIGN_CA.certificate.subject)
    constraints = chain[0].extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value.ca, constraints.critical) == (True, True)
    request = request_for(question, OWN)
    with pytest.raises(NotFound):
        await admin.get(CERTIFICATE_REQUESTS, "pki", request.metadata.name)
