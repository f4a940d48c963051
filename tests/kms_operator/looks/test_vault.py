"""CAs of Vault as the operator looks at them: credentials, logins, and what to do where something is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from kms.issuers.vault.credentials import Credentials
from kms.issuers.vault.observation import Observation as Found
from kms.pki.ca import chain_to_root_pem
from kms.resources.authorities import (
    AppRoleAuth,
    AuthoritySpec,
    CertificateAuthority,
    ExternalAuthority,
    KubernetesAuth,
    VaultAuth,
    VaultAuthority,
)
from kms.resources.core import Secret
from kms.resources.kinds import SECRETS
from kms.resources.meta import LocalRef, ObjectMeta
from kms_operator.looks.vault import VaultCredentials, VaultLook
from kms_operator.observation import Observation
from kms_operator.settings import OperatorSettings
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.openbao import SECRET_ID, TOKEN_AUTH, JWTAuth, OpenBao
from tests.support.pki import root

SETTINGS = OperatorSettings(external_url="https://acme.test", namespace="kms-acme")
APP_ROLE = VaultAuth(app_role=AppRoleAuth(role_id="role-1", secret_ref=SECRET_ID))


def service_account(mount: str = "kubernetes", *audiences: str) -> VaultAuth:
    account = LocalRef(name="kms-issuer")
    return VaultAuth(
        kubernetes=KubernetesAuth(role="kms", mount_path=mount, service_account_ref=account, audiences=audiences)
    )


def authority(auth: VaultAuth, *anchors: str, vault: VaultAuthority | None = None) -> CertificateAuthority:
    vault = vault or VaultAuthority(server="https://vault.test:8200", auth=auth, path="pki/sign/web")
    return CertificateAuthority(
        metadata=ObjectMeta(namespace="pki", name="corporate", uid="uid-1", generation=1),
        spec=AuthoritySpec(external=ExternalAuthority(vault=vault, trust_anchors=anchors)),
    )


@dataclass
class Situation:
    """An operator with a clock of its own, and a Vault that is asked by no network."""

    api: FakeApiServer
    look: VaultLook
    found: Found = field(default_factory=lambda: Found("Observed", "signs", chain_to_root_pem(root())))
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    logins: list[Credentials] = field(default_factory=list)
    audiences: list[list[str]] = field(default_factory=list)

    def store(self, value: bytes, *, name: str = "openbao", key: str = "token") -> None:
        self.api.put(SECRETS, Secret(metadata=ObjectMeta(namespace="pki", name=name), data={key: value}))


@pytest.fixture
async def situation() -> AsyncIterator[Situation]:
    async def observe(_: VaultAuthority, credentials: Credentials) -> Found:
        made.logins.append(credentials)
        return made.found

    async with running_api() as api:
        credentials = VaultCredentials(SETTINGS, await api.cluster(), clock=lambda: made.now)
        made = Situation(api, VaultLook(credentials, clock=lambda: made.now, observe=observe))
        api.mutate = lambda seen, body: (
            made.audiences.append(body["spec"]["audiences"]) if seen.subresource == "token" else None
        )
        yield made


@pytest.mark.requirement("X5")
@pytest.mark.parametrize(
    ("auth", "message"),
    [
        (TOKEN_AUTH, "kubectl create secret generic openbao -n pki --from-file=token=FILE"),
        (APP_ROLE, "kubectl create secret generic openbao-approle -n pki --from-file=secret-id=FILE"),
    ],
    ids=["token", "approle"],
)
async def test_a_missing_secret_is_told_with_the_command_that_makes_it(
    situation: Situation, auth: VaultAuth, message: str
) -> None:
    found = await situation.look(authority(auth), None)
    assert (found.status, found.reason) == ("False", "SecretNotFound")
    assert found.message.endswith(message)
    situation.store(b"", name="openbao-approle" if auth is APP_ROLE else "openbao", key="other")
    found = await situation.look(authority(auth), None)
    assert (found.reason, "has no key" in found.message) == ("SecretNotFound", True)
    assert situation.logins == []


@pytest.mark.requirement("X48")
async def test_a_value_that_is_no_token_is_not_quoted(situation: Situation) -> None:
    situation.store(b"two s3cr3t words")
    found = await situation.look(authority(TOKEN_AUTH), None)
    assert found.reason == "SecretNotFound"
    assert "s3cr3t" not in f"{found!r}{found.message}"


@pytest.mark.requirement("X5")
async def test_what_the_server_gets_is_as_the_secret_is_now(situation: Situation) -> None:
    situation.store(b"first\n")
    found = await situation.look(authority(TOKEN_AUTH), None)
    assert (found.status, found.credentials) == ("True", {"token": b"first\n"})
    situation.store(b"second")
    found = await situation.look(authority(TOKEN_AUTH), found)
    assert found.credentials == {"token": b"second"}
    assert situation.logins == [Credentials(token="first"), Credentials(token="second")]
    situation.store(b"id", name="openbao-approle", key="secret-id")
    found = await situation.look(authority(APP_ROLE), None)
    assert found.credentials == {"role-id": b"role-1", "secret-id": b"id"}


@pytest.mark.requirement("X7")
async def test_it_logs_in_every_five_minutes_and_each_time_while_something_is_wrong(situation: Situation) -> None:
    situation.store(b"token")
    last: Observation | None = None
    for minute in range(10):
        last = await situation.look(authority(TOKEN_AUTH), last)
        situation.now += timedelta(minutes=1)
        assert len(situation.logins) == 1 + minute // 5
    situation.found = Found("Sealed", "it is sealed")
    for _ in range(3):
        last = await situation.look(authority(TOKEN_AUTH), last)
        assert (last.status, last.reason) == ("False", "Sealed")
        assert last.credentials == {"token": b"token"}, "the server may reach what the operator does not"
        situation.now += timedelta(minutes=1)
    assert len(situation.logins) == 5
    await situation.look(authority(TOKEN_AUTH), None)
    assert len(situation.logins) == 6, "a change of the specification is looked at at once"


@pytest.mark.requirement("X6")
async def test_a_service_accounts_token_is_replaced_after_a_third(situation: Situation) -> None:
    asked = authority(service_account("kubernetes", "vault"))
    last = await situation.look(asked, None)
    assert last.credentials == {"jwt": b"kms-issuer-1"}
    assert situation.audiences == [["kms-acme://pki/corporate", "https://vault.test:8200", "vault"]]
    situation.now += timedelta(minutes=19)
    last = await situation.look(asked, last)
    assert last.credentials == {"jwt": b"kms-issuer-1"}
    situation.now += timedelta(minutes=2)
    last = await situation.look(asked, last)
    assert last.credentials == {"jwt": b"kms-issuer-2"}


@pytest.mark.requirement("X6")
async def test_a_token_that_the_operator_may_not_request_is_told_with_the_command(situation: Situation) -> None:
    situation.api.fail_next(
        "create",
        "serviceaccounts",
        403,
        message='User "system:serviceaccount:acme:acme-operator" cannot create resource "serviceaccounts/token"',
    )
    found = await situation.look(authority(service_account()), None)
    assert (found.status, found.reason) == ("False", "TokenForbidden")
    assert found.message == (
        "the operator may not request tokens of ServiceAccount kms-issuer; allow it with: kubectl create role"
        " kms-issuer-token -n pki --verb=create --resource=serviceaccounts/token --resource-name=kms-issuer && kubectl"
        " create rolebinding kms-issuer-token -n pki --role=kms-issuer-token --serviceaccount=acme:acme-operator"
    )
    situation.api.fail_next("create", "serviceaccounts", 404)
    found = await situation.look(authority(service_account()), None)
    assert found.message.endswith("kubectl create serviceaccount kms-issuer -n pki")
    situation.api.fail_next("create", "serviceaccounts", 422)
    found = await situation.look(authority(service_account()), None)
    assert found.reason == "TokenForbidden"


@pytest.mark.requirement("X8")
async def test_the_chain_leads_to_the_configured_anchors(situation: Situation) -> None:
    situation.store(b"token")
    own, other = root(), root(common_name="Other")
    found = await situation.look(authority(TOKEN_AUTH, chain_to_root_pem(own)), None)
    assert (found.status, found.chain) == ("True", chain_to_root_pem(own))
    for anchor in (chain_to_root_pem(other), "no PEM"):
        found = await situation.look(authority(TOKEN_AUTH, anchor), None)
        assert (found.status, found.reason) == ("False", "InvalidTrustAnchors")
        assert found.chain == ""


@pytest.mark.requirement("X6", "X7", "X8")
async def test_a_service_account_logs_in_to_a_real_openbao(openbao: OpenBao) -> None:
    issuing = openbao.issuing_ca(openbao.root_ca())
    login: JWTAuth = openbao.jwt_auth(
        openbao.pki_policy(issuing),
        bound_audiences=["kms-acme://pki/corporate"],
        bound_subject="system:serviceaccount:pki:issuer",
    )
    asked = authority(TOKEN_AUTH, vault=openbao.authority(f"{issuing}/sign/web", service_account(login.mount)))
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    async with running_api() as api:
        look = VaultLook(VaultCredentials(SETTINGS, await api.cluster()))
        jwt = login.token("kms-acme://pki/another")
        api.token_answer = {"status": {"token": jwt, "expirationTimestamp": expires}}
        found = await look(asked, None)
        assert (found.status, found.reason) == ("False", "AuthenticationFailed")
        assert jwt not in found.message
        jwt = login.token("kms-acme://pki/corporate")
        api.token_answer = {"status": {"token": jwt, "expirationTimestamp": expires}}
        look = VaultLook(VaultCredentials(SETTINGS, await api.cluster()))
        found = await look(asked, found)
    assert (found.status, found.reason, found.credentials) == ("True", "Observed", {"jwt": jwt.encode()})
    assert len(x509.load_pem_x509_certificates(found.chain.encode())) == 2
