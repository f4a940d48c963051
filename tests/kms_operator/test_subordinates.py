"""Certificates for internal CAs from external ones: what is asked of whom, what an answer means, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.cluster.errors import Unavailable
from kms.issuers.vault.intermediate import intermediate_path
from kms.issuers.vault.path import signing_path
from kms.pki.ca import Asked, InvalidAuthority, NameConstraints, certificate_request, check_answer, read_answer
from kms.resources.authorities import CertificateAuthority
from kms.resources.certmanager import CertificateRequest, CertificateRequestStatus, RequestCondition
from kms.resources.kinds import CERTIFICATE_REQUESTS
from kms.resources.secret_names import VAULT_TOKEN
from kms_operator.questions import CertifyAuthority
from kms_operator.subordinates import SubordinateCertificates
from tests.support import pki
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.openbao import OpenBao
from tests.support.operated import NOW, SETTINGS, authority

KEY = pki.key(which="below")
CONSTRAINTS = NameConstraints(permitted_domains=("example.com",))
ASKED = Asked("Test below", path_length=0, constraints=CONSTRAINTS)
CERT_MANAGER = {"certManager": {"issuerRef": {"name": "corporate", "kind": "ClusterIssuer"}}}
MINUTE = timedelta(minutes=1)


@dataclass
class World:
    api: FakeApiServer
    certificates: SubordinateCertificates
    credentials: dict[str, bytes] = field(default_factory=dict)
    now: datetime = NOW

    def stored(self) -> CertificateRequest:
        (key,) = self.api.store.by_key
        found = self.api.read(CERTIFICATE_REQUESTS, key.namespace, key.name)
        assert found is not None
        return found

    def says(self, *conditions: RequestCondition, certificate: bytes | None = None) -> None:
        status = CertificateRequestStatus(conditions=conditions, certificate=certificate)
        self.api.put(CERTIFICATE_REQUESTS, replace(self.stored(), status=status))

    @property
    def requests(self) -> int:
        return sum(each.plural == CERTIFICATE_REQUESTS.plural for each in self.api.requests)

    async def fails(self, question: CertifyAuthority) -> tuple[str, str]:
        with pytest.raises(InvalidAuthority) as refused:
            await self.certificates.certify(question)
        return refused.value.reason, str(refused.value)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async def credentials(*_: object) -> dict[str, bytes]:
        return made.credentials

    async with running_api() as api:
        cluster = await api.cluster()
        made = World(api, SubordinateCertificates(SETTINGS, cluster, credentials, clock=lambda: made.now))
        yield made


def question(external: Any = CERT_MANAGER, *, replaces: int = 0, generation: int = 1) -> CertifyAuthority:
    issuer: CertificateAuthority = authority("corporate", external=external, generation=generation)
    return CertifyAuthority(
        request=certificate_request(ASKED, KEY),
        issuer_version=(issuer.metadata.uid, generation),
        replaces=replaces,
        issuer=issuer,
        authority=authority("below", internal={"issuerRef": {"name": "corporate"}, "pathLength": 0}),
        duration=timedelta(hours=1000),
    )


def condition(type_: str, status: Any = "True", reason: str = "x") -> RequestCondition:
    return RequestCondition(type=type_, status=status, reason=reason, message="the issuer's\nwords")


@pytest.mark.requirement("X52")
async def test_cert_manager_is_asked_for_a_ca(world: World) -> None:
    reason, message = await world.fails(question())
    assert (reason, "is not approved" in message) == ("WaitingForApproval", True)
    stored = world.stored()
    assert (stored.spec.is_ca, stored.spec.usages, stored.spec.duration) == (True, ("cert sign", "crl sign"), "1000h")
    assert (stored.spec.issuer_ref.kind, stored.metadata.namespace) == ("ClusterIssuer", "pki")
    (owner,) = stored.metadata.owner_references
    assert (owner.kind, owner.name, owner.controller) == ("CertificateAuthority", "below", True)
    world.says(condition("Approved"))
    assert (await world.fails(question()))[0] == "WaitingForIssuer"
    world.says(condition("Approved"), condition("Ready"), certificate=b"PEM")
    assert await world.certificates.certify(question()) == b"PEM"
    before = world.requests
    assert await world.certificates.certify(question()) == b"PEM", "the reconciliation is repeated"
    assert world.requests == before
    assert not world.api.store.by_key, "the request goes when it has ended"


@pytest.mark.requirement("X52")
@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ([condition("Denied")], "Denied"),
        ([condition("InvalidRequest")], "RefusedByIssuer"),
        ([condition("Approved"), condition("Ready", "False", "Failed")], "IssuerFailed"),
    ],
)
async def test_a_request_that_has_failed_is_made_again_after_a_pause(
    world: World, conditions: list[RequestCondition], reason: str
) -> None:
    pauses = []
    for _ in range(9):
        await world.fails(question())
        world.says(*conditions)
        found, message = await world.fails(question())
        assert (found, "the issuer's words" in message) == (reason, True)
        began, before = world.now, world.requests
        while world.requests == before:
            world.now += MINUTE
            await world.fails(question())
        pauses.append((world.now - began) // MINUTE)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.requirement("X52")
async def test_what_has_changed_is_asked_at_once(world: World) -> None:
    await world.fails(question())
    world.says(condition("Denied"))
    assert (await world.fails(question()))[0] == "Denied"
    assert (await world.fails(question(generation=2)))[0] == "WaitingForApproval"
    first = world.stored().metadata.name
    world.says(condition("Approved"), condition("Ready"), certificate=b"PEM")
    assert await world.certificates.certify(question(generation=2)) == b"PEM"
    assert (await world.fails(question(generation=2, replaces=77)))[0] == "WaitingForApproval"
    assert world.stored().metadata.name != first, "a renewal is another request"


@pytest.mark.requirement("X52", "X49")
async def test_a_right_that_is_missing_is_told_with_the_command(world: World) -> None:
    world.api.fail_next("create", CERTIFICATE_REQUESTS.plural, 403)
    reason, message = await world.fails(question())
    assert reason == "Forbidden"
    assert message.endswith(
        "kubectl create rolebinding kms-acme-certify-cas -n pki --clusterrole=kms-acme-external-cert-manager"
        " --serviceaccount=kms-acme:kms-acme-operator"
    )
    world.api.fail_next("create", CERTIFICATE_REQUESTS.plural, 503)
    world.now += MINUTE
    with pytest.raises(Unavailable):
        await world.certificates.certify(question())


@pytest.mark.requirement("X52")
async def test_a_request_of_somebody_else_is_left_alone(world: World) -> None:
    await world.fails(question())
    stored = world.stored()
    world.api.put(CERTIFICATE_REQUESTS, replace(stored, spec=replace(stored.spec, request=b"another")))
    assert (await world.fails(question()))[0] == "IssuerFailed"
    assert world.stored().spec.request == b"another"


def vault(openbao: OpenBao, mount: str, *, issuer: str = "") -> dict[str, Any]:
    spec = {
        "server": openbao.url,
        "path": f"{mount}{issuer}/sign/web",
        "caBundle": openbao.ca_bundle,
        "auth": {"tokenSecretRef": {"name": "openbao", "key": "token"}},
    }
    return {"vault": spec}


@pytest.mark.requirement("X52")
@pytest.mark.parametrize("issuer", ["", "/issuer/default"])
async def test_a_real_openbao_certifies_a_ca(world: World, openbao: OpenBao, issuer: str) -> None:
    mount = openbao.issuing_ca(openbao.root_ca())
    asked = question(vault(openbao, mount, issuer=issuer))
    path = intermediate_path(signing_path(f"{mount}{issuer}/sign/web"))
    world.credentials = {VAULT_TOKEN: openbao.token(openbao.pki_policy(mount)).encode()}
    reason, message = await world.fails(asked)
    assert (reason, f'path "{path}" {{ capabilities = ["update"] }}' in message) == ("AuthenticationFailed", True)
    world.credentials = {VAULT_TOKEN: openbao.token(openbao.policy({path: ("update",)})).encode()}
    world.now += MINUTE
    chain = read_answer((await world.certificates.certify(asked)).decode())
    check_answer(chain, ASKED, KEY.public_key(), now=datetime.now(chain[0].not_valid_after_utc.tzinfo))
    assert len(chain) == 3
    assert chain[0].not_valid_after_utc - chain[0].not_valid_before_utc < timedelta(hours=1001)
    assert chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert await world.certificates.certify(asked) == b"".join(each.public_bytes(Encoding.PEM) for each in chain), (
        "nobody is asked twice"
    )
    assert openbao.certificates_of(mount) == 1


@pytest.mark.requirement("X52", "X48")
async def test_a_vault_that_does_not_answer_is_told_without_its_token(world: World) -> None:
    spec = {
        "server": "http://127.0.0.1:1",
        "path": "pki/sign/web",
        "auth": {"tokenSecretRef": {"name": "openbao", "key": "token"}},
    }
    world.credentials = {VAULT_TOKEN: b"t0k3n"}
    reason, message = await world.fails(question({"vault": spec}))
    assert (reason, "t0k3n" in f"{message}{world.certificates.__dict__!r}") == ("Unreachable", False)
    assert (await world.fails(question({"signer": {"name": "example.com/web"}}, generation=2)))[0] == "IssuerUnsuitable"
