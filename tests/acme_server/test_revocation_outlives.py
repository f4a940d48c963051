"""What a CA has revoked, and which keys it bars, outlives profile, account and order, on every replica (SEC79)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.orders import transitions
from kms.pki.certificate import issuer_id
from kms.resources.kinds import ACCOUNTS, ORDERS, REVOCATION_RECORDS, Kind
from kms.resources.meta import ObjectMeta
from kms.resources.revocations import AccountRevocation, RevocationRecord, RevocationRecordSpec
from tests.support import pki
from tests.support.acme import ClientKey, b64
from tests.support.domain import NAMESPACE, RELEASE, World
from tests.support.eventually import until
from tests.support.server import Answer, Server, running_replica, running_server
from tests.support.watching import watching

pytestmark = pytest.mark.requirement("SEC79")
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
KEY_COMPROMISE = 1


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running, watching(running.world):
        await running.register()
        yield running


async def certificate(server: Server, request: bytes | None = None) -> x509.Certificate:
    return await server.certificate(await server.finalize(await server.ready(), request))


async def revoke(server: Server, leaf: x509.Certificate, reason: int = 4) -> Answer:
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": reason}
    return await server.post(f"{server.base}/revoke-cert", payload)


async def listed(world: World) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl((await world.services.crls.current(NAMESPACE, "ca")).der)


def serials(revoked: x509.CertificateRevocationList) -> set[int]:
    return {each.serial_number for each in revoked}


def place(revoked: x509.CertificateRevocationList) -> tuple[int, datetime]:
    """The number and thisUpdate of a list."""
    return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number, revoked.last_update_utc


def records(world: World) -> list[RevocationRecord]:
    names = [each.name for each in world.api.store.by_key if each.plural == "revocationrecords"]
    found = (world.api.read(REVOCATION_RECORDS, RELEASE, name) for name in sorted(names))
    return [each for each in found if each is not None]


async def delete_everything(world: World) -> None:
    """Delete all accounts and orders, as the deletion of their namespace does; wait until the server has seen it."""
    kinds: tuple[Kind[Any], ...] = (ORDERS, ACCOUNTS)
    for kind in kinds:
        for key in [each for each in world.api.store.by_key if each.plural == kind.plural]:
            world.api.remove(kind, key.namespace, key.name)
    await until(lambda: len(world.services.state.order_index) == len(world.services.state.account_index) == 0)


async def test_revoked_certificates_stay_on_the_list_when_their_orders_are_gone(server: Server) -> None:
    leaves = [await certificate(server, pki.csr("www.example.com", signed_with=pki.key(which=each))) for each in "abc"]
    for leaf in leaves:
        assert (await revoke(server, leaf)).status == 200
    server.world.clock.ahead += 2 * SECOND
    before = await listed(server.world)
    await delete_everything(server.world)
    server.world.clock.ahead += 2 * SECOND
    after = await listed(server.world)
    assert serials(before) == serials(after) == {each.serial_number for each in leaves}
    restarted = server.world.another()
    async with watching(restarted):
        again = await listed(restarted)
    assert serials(again) == serials(before)
    assert place(before) <= place(after) == place(again), "neither the number nor thisUpdate goes back"


async def test_a_revocation_is_recorded_before_it_is_confirmed(server: Server) -> None:
    leaf = await certificate(server)
    before = len(server.world.api.requests)
    assert (await revoke(server, leaf)).status == 200
    writes = [each for each in server.world.calls(before) if not each.startswith(("get", "watch", "list"))]
    assert writes == ["update acmeorders", "create revocationrecords"]
    (record,) = records(server.world)
    assert (record.spec.namespace, record.spec.profile) == (NAMESPACE, "web")
    assert record.spec.certificate is not None
    assert int(record.spec.certificate.serial_number, 16) == leaf.serial_number
    assert record.spec.until == leaf.not_valid_after_utc + DAY


async def test_a_revocation_that_cannot_be_recorded_is_not_confirmed_and_recorded_later(server: Server) -> None:
    leaf = await certificate(server)
    server.world.api.fail_next("create", "revocationrecords", 403)
    refused = await revoke(server, leaf)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
    assert records(server.world) == []
    await server.world.services.recorder.record_missing()
    assert len(records(server.world)) == 1
    assert (await revoke(server, leaf)).problem["type"] == "alreadyRevoked"


@pytest.mark.requirement("SEC72", "SEC73")
async def test_a_namespace_that_has_used_up_its_records_still_revokes(server: Server) -> None:
    """Whoever deactivates accounts and deletes namespaces again and again must not fill etcd with records."""
    world, state = server.world, server.world.services.state
    leaf = await certificate(server)
    fillers = [filler(number) for number in range(800)]
    for each in fillers:
        state.record_index.update(each, False)
    assert (await revoke(server, leaf)).status == 200
    await world.services.recorder.record_missing()
    assert records(world) == []
    world.clock.ahead += 2 * SECOND
    assert serials(await listed(world)) == {leaf.serial_number}, "the order says so"
    for each in fillers:
        state.record_index.delete(each.metadata)
    await world.services.recorder.record_missing()
    assert len(records(world)) == 1


def filler(number: int) -> RevocationRecord:
    """The largest record: of an account that has changed its key a hundred times."""
    thumbprints = tuple(f"{number:05}-{position:03}".ljust(43, "x") for position in range(102))
    return RevocationRecord(
        metadata=ObjectMeta(namespace=RELEASE, name=f"account-{number:05}", resource_version="1"),
        spec=RevocationRecordSpec(
            namespace=NAMESPACE,
            profile="web",
            until=datetime(2100, 1, 1, tzinfo=UTC),
            account=AccountRevocation(state="deactivated", thumbprints=thumbprints),
        ),
    )


async def test_what_others_have_revoked_is_recorded_by_the_server_that_leads(server: Server) -> None:
    world, state = server.world, server.world.services.state
    leaf = await certificate(server)
    record = state.certificates.certificate(NAMESPACE, issuer_id(leaf), f"{leaf.serial_number:x}")
    assert record is not None
    order = world.api.read(ORDERS, *record.order)
    assert order is not None
    world.api.put(ORDERS, transitions.revoked(order, "superseded", now=world.clock()))
    await until(lambda: len(world.services.recorder) == 1)
    await world.services.recorder.record_missing(lambda: False)
    assert records(world) == []
    await world.services.recorder.record_missing(lambda: True)
    assert len(records(world)) == 1
    await until(lambda: state.revoked.holds(records(world)[0].metadata.name))
    writes = len(world.api.writes)
    await world.services.recorder.record_missing(lambda: True)
    assert (len(world.services.recorder), len(world.api.writes)) == (0, writes)


async def test_a_raised_reason_is_a_second_record_and_one_entry(server: Server) -> None:
    key = pki.key(which="raised")
    leaf = await certificate(server, pki.csr("www.example.com", signed_with=key))
    assert (await revoke(server, leaf)).status == 200
    signing = ClientKey("ES256", key)
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": KEY_COMPROMISE}
    raised = await server.post(f"{server.base}/revoke-cert", payload, key=signing, jwk=signing.jwk)
    assert raised.status == 200
    assert [each.spec.certificate.reason for each in records(server.world) if each.spec.certificate] == [
        "keyCompromise",
        "superseded",
    ]
    await delete_everything(server.world)
    server.world.clock.ahead += 2 * SECOND
    (entry,) = await listed(server.world)
    assert [each.value.reason for each in entry.extensions] == [x509.ReasonFlags.key_compromise]


async def test_a_compromised_key_stays_barred_on_a_server_that_begins(server: Server) -> None:
    key = pki.key(which="compromised")
    leaf = await certificate(server, pki.csr("www.example.com", signed_with=key))
    assert (await revoke(server, leaf, KEY_COMPROMISE)).status == 200
    await delete_everything(server.world)
    other = server.world.another()
    async with watching(other), running_replica(other, server.nonces) as restarted:
        holder = replace(restarted, key=ClientKey("ES256", key), kid=None)
        assert (await holder.register()).problem["type"] == "badPublicKey"
        client = replace(restarted, key=ClientKey(), kid=None)
        await client.register()
        order = await client.ready()
        refused = await client.finalize(order, pki.csr("www.example.com", signed_with=key))
        assert refused.problem["type"] == "badCSR"


async def test_the_keys_of_a_deactivated_account_open_no_other_one_when_it_is_gone(server: Server) -> None:
    assert server.kid is not None
    assert (await server.post(server.kid, {"status": "deactivated"})).json["status"] == "deactivated"
    await delete_everything(server.world)
    other = server.world.another()
    async with watching(other), running_replica(other, server.nonces) as restarted:
        client = replace(restarted, key=server.key, kid=None)
        refused = await client.register()
        assert refused.problem["type"] == "unauthorized"
        assert "deactivated" in refused.problem["detail"]
        assert (await replace(restarted, key=ClientKey(), kid=None).register()).status == 201


async def test_a_list_is_not_made_before_all_records_have_been_read(server: Server) -> None:
    other = server.world.another()
    other.services.state.order_index.mark_complete()
    other.services.state.record_index.mark_stale()
    assert serials(await listed(server.world)) == set()
    async with running_replica(other, server.nonces) as restarted:
        assert (await restarted.get(f"/crl/{NAMESPACE}/ca.crl")).status == 503
