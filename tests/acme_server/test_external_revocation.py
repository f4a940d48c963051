"""revokeCert for certificates of CAs that are somebody else's, as clients see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace as replace_dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.certificates.propagation import Mode, mode_of
from acme_server.orders.external_issuance import Pace
from kms.pki.certificate import issuer_id
from kms.resources.authorities import (
    AuthoritySpec,
    CertificateAuthority,
    CertManagerAuthority,
    ExternalAuthority,
    IssuerRef,
    SignerAuthority,
    VaultAuth,
    VaultAuthority,
)
from kms.resources.kinds import ORDERS
from kms.resources.meta import ObjectMeta, condition
from kms.resources.orders import ACMEOrder, AskedAuthority, Revocation
from tests.support import pki
from tests.support.acme import ClientKey, b64
from tests.support.domain import NAMESPACE, World, running_world
from tests.support.eventually import until
from tests.support.scripted_issuer import ScriptedIssuer, certified
from tests.support.server import Answer, Server, running_server
from tests.support.watching import watching

KEY = pki.key(which="external")
CERT_MANAGER = ExternalAuthority(cert_manager=CertManagerAuthority(issuer_ref=IssuerRef(name="corporate")))
VAULT = ExternalAuthority(vault=VaultAuthority(server="https://bao.test", path="pki/sign/web", auth=VaultAuth()))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running, watching(running.world):
        await running.register()
        yield running


def authority(external: ExternalAuthority | None) -> CertificateAuthority:
    return CertificateAuthority(
        metadata=ObjectMeta(namespace=NAMESPACE, name="corporate", uid="corporate"),
        spec=AuthoritySpec(external=external),
    )


class OneHangs(ScriptedIssuer):
    """A CA that never answers about the first certificate that it is to revoke."""

    async def revoke(self, certificate: bytes) -> bool:
        self.revoked.append(certificate)
        if len(self.revoked) == 1:
            await asyncio.Event().wait()
        return True


@pytest.mark.requirement("X44")
async def test_a_ca_that_does_not_answer_delays_no_revocation_at_another() -> None:
    def configure(world: World) -> None:
        world.issuer = OneHangs([certified])
        world.pace = Pace(inline=60)
        world.install_external("Vault")

    async with running_world(configure) as world:
        account = await world.account()
        known = world.authorities.get(NAMESPACE, "ca")
        assert known is not None
        world.authorities.put(replace(known, metadata=replace(known.metadata, name="other", uid="other-uid")))
        for name in ("ca", "other"):
            order = await world.finalized(account, await world.proven(account, f"{name}.example.com"))
            asked, gone = AskedAuthority(name=name, type="Vault"), Revocation(time=world.clock(), reason="superseded")
            status = replace(order.status, authority=asked, revocation=gone)
            changed = world.api.put(ORDERS, replace(world.stored(order), status=status))
            world.services.state.orders.apply_event(changed, False)
        round_ = asyncio.create_task(world.services.propagation.repeat())
        await until(lambda: len(world.services.propagation) == 1, seconds=10)
        round_.cancel()


async def certificate(server: Server) -> tuple[x509.Certificate, tuple[str, str]]:
    """A certificate, and its order, as if cert-manager had been asked for it."""
    leaf = await server.certificate(
        await server.finalize(await server.ready(), pki.csr("www.example.com", signed_with=KEY))
    )
    certificates = server.world.services.state.certificates
    found = certificates.certificate(NAMESPACE, issuer_id(leaf), f"{leaf.serial_number:x}")
    assert found is not None
    order = stored(server, found.order)
    status = replace(order.status, authority=AskedAuthority(name="corporate", type="CertManager"))
    changed = server.world.api.put(ORDERS, replace(order, status=status))
    server.world.services.state.order_index.update(changed, False)
    server.world.authorities.put(authority(CERT_MANAGER))
    return leaf, found.order


def stored(server: Server, key: tuple[str, str]) -> ACMEOrder:
    found = server.world.api.read(ORDERS, *key)
    assert found is not None
    return found


async def revoke(server: Server, leaf: x509.Certificate, reason: int) -> Answer:
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": reason}
    return await server.post(f"{server.base}/revoke-cert", payload)


@pytest.mark.requirement("X44", "X45")
async def test_a_ca_that_takes_no_revocations_answers_501_each_time_and_the_key_is_barred(server: Server) -> None:
    leaf, key = await certificate(server)
    for _ in range(2):
        refused = await revoke(server, leaf, 1)
        assert (refused.status, refused.problem["type"]) == (501, "serverInternal")
        assert "its administrators have been told" in refused.problem["detail"]
    order = stored(server, key)
    assert order.status.revocation is not None
    assert (order.status.revocation.reason, order.status.revocation.propagated) == ("keyCompromise", None)
    found = condition(order.status.conditions, "Ready")
    assert found is not None
    assert found.reason == "RevocationRequested"
    assert len(server.world.services.propagation) == 1
    again = await server.post(
        (await server.ready("other.example.com")).json["finalize"],
        {"csr": b64(pki.csr("other.example.com", signed_with=KEY))},
    )
    assert again.problem["type"] == "badCSR"


@pytest.mark.requirement("X44")
async def test_a_stranger_is_refused_before_anything_is_recorded(server: Server) -> None:
    leaf, key = await certificate(server)
    stranger = replace_dataclass(server, key=ClientKey(), kid=None)
    await stranger.register()
    assert (await revoke(stranger, leaf, 4)).status == 403
    assert stored(server, key).status.revocation is None


@pytest.mark.requirement("X44")
@pytest.mark.parametrize(
    ("asked", "external", "mode"),
    [
        ("Vault", VAULT, "Propagate"),
        ("Vault", replace(VAULT, revocation="Record"), "Record"),
        ("CertManager", CERT_MANAGER, "Refuse"),
        ("CertManager", replace(CERT_MANAGER, revocation="Record"), "Record"),
        ("Signer", ExternalAuthority(signer=SignerAuthority(name="example.com/web")), "Refuse"),
        ("Vault", CERT_MANAGER, "Refuse"),
        ("Vault", None, "Refuse"),
    ],
)
def test_what_a_ca_makes_of_revocations(asked: str, external: ExternalAuthority | None, mode: Mode) -> None:
    assert mode_of(AskedAuthority(name="corporate", type=asked), authority(external)) == mode  # type: ignore[arg-type]
    assert mode_of(AskedAuthority(name="corporate", type=asked), None) == "Refuse"  # type: ignore[arg-type]
