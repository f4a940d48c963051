"""A CA whose key is in a key store: orders and lists while the store is there, and while it is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from msgspec.structs import replace

from acme_server.problems import Unavailable
from kms.issuers.key_stores import KeyStoreNotReady
from kms.pki.certificate import Signer, certificate_pem
from kms.resources.secret_names import KEY_STORE, PIN, TLS_CERTIFICATE, signing_key_name
from tests.support import pki
from tests.support.domain import NAMESPACE, RELEASE, World, running_world
from tests.support.key_stores import Memory
from tests.support.softhsm import Token

HOUR = timedelta(hours=1)


@pytest.fixture
def memory() -> Memory:
    return Memory({"issuing": pki.key(which="root")})


@pytest.fixture
async def world(memory: Memory) -> AsyncIterator[World]:
    def configure(world: World) -> None:
        world.key_stores = memory.stores

    async with running_world(configure) as world:
        world.services.state.order_index.mark_complete()
        move_key(world)
        yield world


def move_key(world: World) -> None:
    """Have the Secret of the CA locate the key instead of holding it."""
    secret = world.secrets.get(RELEASE, signing_key_name("ca-uid"))
    assert secret is not None
    store = msgspec.json.encode(Token().store("issuing"))
    data = {TLS_CERTIFICATE: secret.data[TLS_CERTIFICATE], KEY_STORE: store, PIN: b"1234"}
    world.secrets.put(replace(secret, data=data))


@pytest.mark.requirement("X53")
async def test_an_order_gets_a_certificate_of_the_key_store(world: World, memory: Memory) -> None:
    account = await world.account()
    order = await world.finalized(account, await world.proven(account))
    leaf, ca = x509.load_pem_x509_certificates((order.status.certificate or "").encode())
    leaf.verify_directly_issued_by(ca)
    assert (order.status.state, memory.signed) == ("valid", 1)


@pytest.mark.requirement("X54", "X58")
@pytest.mark.parametrize("wrong", [False, True], ids=["away", "another key"])
async def test_without_the_key_an_order_stays_as_it_was_and_is_issued_later(
    world: World, memory: Memory, wrong: bool
) -> None:
    account = await world.account()
    order = await world.proven(account)
    if wrong:
        memory.keys["issuing"] = pki.key(which="other")
    else:
        memory.refusal = KeyStoreNotReady("connection refused")
    with pytest.raises(Unavailable):
        await world.finalized(account, order)
    assert world.stored(order).status.state == "ready"
    memory.refusal, memory.keys["issuing"] = None, pki.key(which="root")
    assert (await world.finalized(account, world.stored(order))).status.state == "valid"


@pytest.mark.requirement("X55")
async def test_a_list_is_kept_while_the_key_store_is_away(world: World, memory: Memory) -> None:
    before = await world.services.crls.current(NAMESPACE, "ca")
    world.clock.ahead += HOUR
    memory.refusal = KeyStoreNotReady("connection refused")
    assert (await world.services.crls.current(NAMESPACE, "ca")).der == before.der
    memory.refusal = None
    world.clock.ahead += timedelta(seconds=6)
    after = await world.services.crls.current(NAMESPACE, "ca")
    assert after.der != before.der
    world.clock.ahead += timedelta(days=2)
    memory.refusal = KeyStoreNotReady("connection refused")
    with pytest.raises(Unavailable, match="cannot be used now") as unavailable:
        await world.services.crls.current(NAMESPACE, "ca")
    assert "refused" not in str(unavailable.value)


@pytest.mark.requirement("X55")
async def test_another_signature_over_the_same_list_has_the_same_number(world: World) -> None:
    before = x509.load_der_x509_crl((await world.services.crls.current(NAMESPACE, "ca")).der)
    authority = world.authorities.get(NAMESPACE, "ca")
    assert authority is not None
    # A renewed certificate with the same key: the list is signed again, and says the same.
    renewed = Signer(pki.root(serial=9, not_before=world.clock() - pki.DAY).certificate, pki.key(which="root"))
    pem = certificate_pem(renewed.certificate)
    world.authorities.put(replace(authority, status=replace(authority.status, certificate=pem)))
    secret = world.secrets.get(RELEASE, signing_key_name("ca-uid"))
    assert secret is not None
    world.secrets.put(replace(secret, data={**secret.data, TLS_CERTIFICATE: pem.encode()}))
    world.clock.ahead += timedelta(seconds=6)
    after = x509.load_der_x509_crl((await world.services.crls.current(NAMESPACE, "ca")).der)
    assert (after.signature == before.signature, after.tbs_certlist_bytes == before.tbs_certlist_bytes) == (False, True)


async def test_a_deleted_ca_goes_on_with_its_list(world: World, memory: Memory) -> None:
    before = await world.services.crls.current(NAMESPACE, "ca")
    world.authorities.remove(NAMESPACE, "ca")
    world.clock.ahead += HOUR
    after = await world.services.crls.current(NAMESPACE, "ca")
    assert (after.der != before.der, memory.signed) == (True, 2)
