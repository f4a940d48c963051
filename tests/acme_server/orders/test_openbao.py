"""Orders and revocations whose CA is that of a real OpenBao; the API server is a fake one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.certificates.propagation import NotTaken
from acme_server.orders.external_issuance import Pace
from acme_server.orders.issuance_waiting import Schedule
from acme_server.problems import ProblemType, Unavailable
from kms.issuers.vault import Credentials
from kms.issuers.vault.observation import observe
from kms.pki.certificate import certifies
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import (
    AppRoleAuth,
    AuthoritySpec,
    AuthorityStatus,
    CertificateAuthority,
    ExternalAuthority,
    VaultAuth,
)
from kms.resources.core import Secret
from kms.resources.meta import ObjectMeta, condition, key_of
from kms.resources.orders import ACMEOrder
from tests.support.domain import NAMESPACE, RELEASE, World, certificate_of, running_world
from tests.support.eventually import until
from tests.support.openbao import SECRET_ID, AppRole, OpenBao
from tests.support.refusals import refusal

SOON = Schedule(
    after_failures=(timedelta(0), timedelta(0)), shortest=timedelta(seconds=1), longest=timedelta(seconds=1)
)


PACE = Pace(inline=0.1, look=0.05, later=0.05)
HASTY = replace(PACE, patience=0.0, claimed=0.2)
"""For servers that die: others take over what they have claimed after 0.2 seconds."""


@dataclass
class Issuing:
    """A server whose profile has a CA of OpenBao, an issuing one below a root."""

    world: World
    openbao: OpenBao
    mount: str
    policy: str
    login: AppRole
    account: ACMEAccount
    names: int = field(default=0)

    async def order(self, **members: Any) -> ACMEOrder:
        """A finalized order, for another name each time."""
        self.names += 1
        order = await self.world.proven(self.account, f"h{self.names}.example.com", **members)
        return await self.world.finalized(self.account, order)

    async def ended(self, order: ACMEOrder) -> ACMEOrder:
        """The order once it has left processing."""
        await until(lambda: self.world.stored(order).status.state != "processing")
        await until(lambda: not self.world.services.issuance.is_working_at(key_of(order)))
        return self.world.stored(order)

    async def reaches(self, order: ACMEOrder, *states: str) -> None:
        """Wait until the order is in one of the states."""
        await until(lambda: self.world.stored(order).status.state in states)

    async def waits_for(self, order: ACMEOrder, reason: str) -> str:
        """The message, once the order waits for that reason."""

        def ready() -> str:
            found = condition(self.world.stored(order).status.conditions, "Ready")
            return found.message if found is not None and found.reason == reason else ""

        await until(ready)
        assert self.world.stored(order).status.state == "processing"
        return ready()

    def issued(self) -> int:
        """The number of certificates that OpenBao has issued and stored."""
        return self.openbao.certificates_of(self.mount)

    def is_revoked(self, serial_number: int) -> bool:
        """Whether OpenBao's list has the certificate."""
        pem = self.openbao.read(f"{self.mount}/cert/crl")["certificate"]
        return x509.load_pem_x509_crl(pem.encode()).get_revoked_certificate_by_serial_number(serial_number) is not None

    async def revoke(self, order: ACMEOrder, reason: int = 4) -> None:
        der = certificate_of(order).public_bytes(Encoding.DER)
        await self.world.services.revocations.revoke(self.world.caller(self.account), der, reason)

    def revocation_of(self, order: ACMEOrder) -> tuple[str, bool]:
        """Reason of the condition Ready, and whether the revocation is propagated."""
        status = self.world.stored(order).status
        found = condition(status.conditions, "Ready")
        assert found is not None
        return found.reason, status.revocation is not None and status.revocation.propagated is not None


@asynccontextmanager
async def issuing(
    openbao: OpenBao, *, lease: str = "1h", role: dict[str, Any] | None = None, pace: Pace = PACE, **external: Any
) -> AsyncIterator[Issuing]:
    def configure(world: World) -> None:
        world.asks, world.pace, world.schedule = True, pace, SOON

    mount = openbao.issuing_ca(openbao.root_ca(), allowed_domains=["example.com"], **(role or {}))
    policy = openbao.pki_policy(mount)
    login = openbao.app_role(policy, token_ttl=lease)
    auth = VaultAuth(app_role=AppRoleAuth(role_id=login.role_id, mount_path=login.mount, secret_ref=SECRET_ID))
    vault = openbao.authority(f"{mount}/sign/web", auth)
    found = await observe(vault, Credentials(secret_id=login.secret_id))
    async with running_world(configure) as world:
        world.services.state.account_index.mark_complete()
        data = {"role-id": login.role_id.encode(), "secret-id": login.secret_id.encode()}
        world.secrets.put(Secret(metadata=ObjectMeta(namespace=RELEASE, name="ca-vault-uid"), data=data))
        world.authorities.put(
            CertificateAuthority(
                metadata=ObjectMeta(namespace=NAMESPACE, name="ca", uid="vault-uid"),
                spec=AuthoritySpec(external=ExternalAuthority(vault=vault, **external)),
                status=AuthorityStatus(chain=found.chain),
            )
        )
        try:
            yield Issuing(world, openbao, mount, policy, login, await world.account())
        finally:
            await world.services.external.issuers.close()


@pytest.mark.requirement("X15", "X20", "X34")
async def test_an_order_gets_its_certificate_in_two_writes_and_one_call(openbao: OpenBao) -> None:
    async with issuing(openbao) as made:
        order = await made.world.proven(made.account, "a.example.com")
        before = len(made.world.api.requests)
        order = await made.ended(await made.world.finalized(made.account, order))
        assert order.status.state == "valid"
        assert made.world.calls(before) == ["update acmeorders", "update acmeorders"]
        assert made.issued() == 1
        assert order.status.certificate is not None
        leaf, issuing_ca = x509.load_pem_x509_certificates(order.status.certificate.encode())
        assert certifies(issuing_ca, leaf)
        assert issuing_ca.subject.rfc4514_string() == f"CN=Issuing {made.mount}"


@pytest.mark.requirement("X37", "X38")
async def test_a_sealed_server_and_a_quota_cost_no_order(openbao: OpenBao) -> None:
    async with issuing(openbao) as made:
        openbao.seal()
        try:
            order = await made.order()
            assert order.status.state == "processing"
            assert "Vault is sealed" in await made.waits_for(order, "Retrying")
        finally:
            openbao.unseal()
        assert (await made.ended(order)).status.state == "valid"
        quota = f"sys/quotas/rate-limit/{made.mount}"
        openbao.request("POST", quota, {"path": made.mount, "rate": 1, "interval": "1h"})
        first, second = await made.ended(await made.order()), await made.order()
        assert first.status.state == "valid"
        assert "quota exceeded" in await made.waits_for(second, "Retrying")
        openbao.request("DELETE", quota)
        assert (await made.ended(second)).status.state == "valid"
        assert made.issued() == 3


@pytest.mark.requirement("X21", "X37")
async def test_tokens_that_end_or_were_revoked_are_replaced(openbao: OpenBao) -> None:
    async with issuing(openbao, lease="2s") as made:
        for _ in range(2):
            assert (await made.ended(await made.order())).status.state == "valid"
            openbao.write(f"sys/leases/revoke-prefix/auth/{made.login.mount}/login")
        assert made.issued() == 2


@pytest.mark.requirement("X37", "X38")
async def test_a_policy_that_does_not_allow_it_is_waited_for(openbao: OpenBao) -> None:
    async with issuing(openbao) as made:
        openbao.write(f"sys/policies/acl/{made.policy}", policy='path "sys/mounts" { capabilities = ["read"] }')
        order = await made.order()
        assert "HTTP 403" in await made.waits_for(order, "AuthenticationFailed")
        rules = f'path "{made.mount}/sign/web" {{ capabilities = ["update"] }}'
        openbao.write(f"sys/policies/acl/{made.policy}", policy=rules)
        assert (await made.ended(order)).status.state == "valid"


@pytest.mark.requirement("X24", "X40", "X62")
async def test_another_server_goes_on_where_one_has_died_whenever_that_was(openbao: OpenBao) -> None:
    delays = (0.0, 0.01, 0.03, 0.1)
    async with issuing(openbao, pace=HASTY) as made:
        servers = [made.world]
        for number, delay in enumerate(delays):
            dying = servers[-1]
            order = await dying.proven(made.account, f"dying-{number}.example.com")
            request = asyncio.create_task(dying.finalized(made.account, order))
            await made.reaches(order, "processing", "valid")
            await asyncio.sleep(delay)
            await dying.services.issuance.drain(0)
            await request
            servers.append(dying.another(replica=f"server-{number + 1}"))
            servers[-1].services.issuance.resume(dying.stored(order))
            await made.reaches(order, "valid")
        assert len(delays) <= made.issued() <= 2 * len(delays), "what a server has asked for and not stored is lost"
        for each in servers[1:]:
            await each.services.issuance.drain(2)
            await each.services.external.issuers.close()


@pytest.mark.requirement("X36", "X39")
async def test_what_the_ca_makes_of_a_request_is_checked_and_revoked_where_it_does_not_fit(openbao: OpenBao) -> None:
    async with issuing(openbao, role={"client_flag": True}) as made:
        order = await made.ended(await made.order())
        assert order.status.state == "invalid"
        found = condition(order.status.conditions, "Ready")
        assert found is not None
        assert found.reason == "CertificateRejected"
        (serial,) = (
            each.serial_number
            for each in x509.load_pem_x509_crl(openbao.read(f"{made.mount}/cert/crl")["certificate"].encode())
        )
        assert f"{serial:x}" not in str(order.status.error)


@pytest.mark.requirement("X44")
async def test_a_revocation_is_told_to_the_ca_before_the_client_hears_of_it(openbao: OpenBao) -> None:
    async with issuing(openbao, role={"no_store": True}) as made:
        order = await made.ended(await made.order())
        await made.revoke(order)
        assert made.is_revoked(certificate_of(order).serial_number)
        assert made.revocation_of(order) == ("Revoked", True)
        again = await refusal(made.revoke(order))
        assert again.type is ProblemType.ALREADY_REVOKED
        assert len(made.world.services.propagation) == 0


@pytest.mark.requirement("X44")
async def test_a_revocation_that_is_not_confirmed_is_gone_on_with(openbao: OpenBao) -> None:
    async with issuing(openbao) as made:
        order = await made.ended(await made.order())
        openbao.seal()
        try:
            for _ in range(2):  # again is not alreadyRevoked
                with pytest.raises(Unavailable, match="has not confirmed the revocation yet"):
                    await made.revoke(order)
            await made.world.services.propagation.repeat()
        finally:
            openbao.unseal()
        assert made.revocation_of(order) == ("RevocationRequested", False)
        other = made.world.another()
        try:
            for each in (made.world.stored(order), made.world.stored(order)):
                other.services.state.order_index.update(each, False)
            assert len(other.services.propagation) == 1
            await other.services.propagation.repeat()
            assert len(other.services.propagation) == 0
        finally:
            await other.services.external.issuers.close()
        assert made.is_revoked(certificate_of(order).serial_number)
        assert made.revocation_of(order) == ("Revoked", True)


@pytest.mark.requirement("X44")
async def test_a_ca_that_takes_none_has_the_request_recorded_and_says_so(openbao: OpenBao) -> None:
    async with issuing(openbao, revocation="Refuse") as made:
        order = await made.ended(await made.order())
        for _ in range(2):
            with pytest.raises(NotTaken, match="the request was recorded"):
                await made.revoke(order)
        assert made.revocation_of(order) == ("RevocationRequested", False)
        await made.world.services.propagation.repeat()
        assert not made.is_revoked(certificate_of(order).serial_number)
        assert len(made.world.services.propagation) == 1


@pytest.mark.requirement("X44")
async def test_a_ca_may_have_revocations_recorded_alone(openbao: OpenBao) -> None:
    async with issuing(openbao, revocation="Record") as made:
        order = await made.ended(await made.order())
        await made.revoke(order)
        assert made.revocation_of(order) == ("Revoked", False)
        assert (await refusal(made.revoke(order))).type is ProblemType.ALREADY_REVOKED
        assert not made.is_revoked(certificate_of(order).serial_number)
        assert len(made.world.services.propagation) == 0
