"""Looking at the CA of a real OpenBao: whether it can be used, and its chain."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from msgspec.structs import replace

from kms.issuers.vault import Credentials
from kms.issuers.vault.observation import Observation, observe
from kms.pki.ca import InvalidAuthority
from kms.pki.returned import authority_chain
from kms.resources.authorities import AppRoleAuth, VaultAuth, VaultAuthority
from tests.support.openbao import SECRET_ID, TOKEN_AUTH, OpenBao


async def seen(openbao: OpenBao, path: str, token: str) -> Observation:
    return await observe(openbao.authority(path, TOKEN_AUTH), Credentials(token=token))


def chain_of(observation: Observation) -> tuple[x509.Certificate, ...]:
    assert observation.reason == "Observed", observation
    return authority_chain(observation.chain.encode(), (), now=datetime.now(UTC))


@pytest.mark.requirement("X7", "X8")
async def test_the_chain_of_an_issuing_ca_up_to_its_root(openbao: OpenBao) -> None:
    root = openbao.root_ca()
    mount = openbao.issuing_ca(root)
    observation = await seen(openbao, f"{mount}/sign/web", openbao.token(openbao.pki_policy(mount)))
    assert observation.message == f"signs by role web of {mount}"
    subjects = [each.subject.rfc4514_string() for each in chain_of(observation)]
    assert subjects == [f"CN=Issuing {mount}", f"CN=Root {root}"]


@pytest.mark.requirement("X7")
async def test_the_look_signs_nothing_and_leaves_no_token(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    policy = openbao.pki_policy(mount)
    login = openbao.app_role(policy)
    auth = VaultAuth(app_role=AppRoleAuth(role_id=login.role_id, mount_path=login.mount, secret_ref=SECRET_ID))
    authority = openbao.authority(f"{mount}/sign/web", auth)
    found = await observe(authority, Credentials(secret_id=login.secret_id))
    assert found.reason == "Observed"
    assert openbao.tokens_of(policy) == 0
    assert openbao.certificates_of(mount) == 1


@pytest.mark.requirement("X7")
async def test_the_chain_is_that_of_the_issuer_in_path_or_role(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    for name in ("second", "third"):
        openbao.write(f"{mount}/root/generate/internal", common_name=name, issuer_name=name)
    token = openbao.token(openbao.pki_policy(mount))
    openbao.role(mount, issuer_ref="third")
    (own,) = chain_of(await seen(openbao, f"{mount}/sign/web", token))
    assert own.subject.rfc4514_string() == "CN=third"
    (own,) = chain_of(await seen(openbao, f"{mount}/issuer/second/sign/web", openbao.root_token))
    assert own.subject.rfc4514_string() == "CN=second"


@pytest.mark.requirement("X7")
async def test_what_keeps_a_ca_from_being_used(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    path, token = f"{mount}/sign/web", openbao.token(openbao.pki_policy(mount))
    authority = openbao.authority(path, TOKEN_AUTH)

    async def reason(changed: VaultAuthority, token: str = token) -> tuple[str, str]:
        found = await observe(changed, Credentials(token=token))
        assert token not in found.message
        return found.reason, found.message

    found, message = await reason(authority, openbao.token(openbao.policy({"sys/mounts": ("read",)})))
    assert found == "AuthenticationFailed"
    assert message.endswith(f'add to its policy: path "{path}" {{ capabilities = ["update"] }}')
    assert (await reason(authority, "no-token"))[0] == "AuthenticationFailed"
    found, message = await reason(replace(authority, path=f"{mount}/sign/other"), openbao.root_token)
    assert (found, message.split(";")[0]) == ("RoleNotFound", f"{mount}/roles/other does not exist")
    assert (await reason(replace(authority, path="nowhere/sign/web"), openbao.root_token))[0] == "RoleNotFound"
    nobody = replace(authority, path=f"{mount}/issuer/nobody/sign/web")
    assert await reason(nobody, openbao.root_token) == (
        "RoleNotFound",
        f"the secrets engine {mount} has no issuer nobody",
    )
    assert (await reason(replace(authority, namespace="nowhere"), openbao.root_token))[0] == "RoleNotFound"
    found, message = await reason(replace(authority, ca_bundle=None))
    assert found == "Unreachable"
    assert message.endswith("; set caBundle to the CA of its certificate")
    openbao.seal()
    try:
        assert await reason(authority) == ("Sealed", f"{openbao.url} is sealed; unseal it")
    finally:
        openbao.unseal()


@pytest.mark.requirement("X7")
async def test_a_token_that_may_not_revoke_is_told_and_usable(openbao: OpenBao) -> None:
    mount = openbao.root_ca()
    token = openbao.token(openbao.policy({f"{mount}/sign/web": ("update",)}))
    found = await seen(openbao, f"{mount}/sign/web", token)
    assert found.reason == "Observed"
    assert f'may not revoke: add to its policy: path "{mount}/revoke"' in found.message


@pytest.mark.requirement("X8")
async def test_a_chain_leads_to_a_configured_anchor_or_to_a_root(openbao: OpenBao) -> None:
    now = datetime.now(UTC)
    root = openbao.root_ca()
    mount = openbao.issuing_ca(root)
    found = await seen(openbao, f"{mount}/sign/web", openbao.root_token)
    own, top = chain_of(found)
    assert authority_chain(found.chain.encode(), (top,), now=now) == (own, top)
    assert authority_chain(found.chain.encode(), (own,), now=now) == (own,)
    (stranger,) = chain_of(await seen(openbao, f"{openbao.root_ca()}/sign/web", openbao.root_token))
    with pytest.raises(InvalidAuthority, match=r"does not lead to spec\.external\.trustAnchors") as refused:
        authority_chain(found.chain.encode(), (stranger,), now=now)
    assert refused.value.reason == "InvalidTrustAnchors"
    with pytest.raises(InvalidAuthority, match=r"set spec\.external\.trustAnchors to"):
        authority_chain(found.chain.encode().split(b"-----END")[0] + b"-----END CERTIFICATE-----\n", (), now=now)
