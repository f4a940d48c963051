"""The lists that a server keeps: when one is made, when it is kept, and when there is none (SEC60, SEC61)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.api.problems import status_of
from acme_server.certificates.crl import DERFile
from acme_server.orders import transitions
from acme_server.problems import NotFound, Refused, Unavailable
from kms.pki.ca import subject_key_id
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.keys import private_key_pem
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority, FormerKey
from kms.resources.core import Secret
from kms.resources.kept import FORMER_KEYS, format_former_keys
from kms.resources.meta import ObjectMeta
from kms.resources.orders import ACMEOrder
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY, signing_key_name
from tests.support import pki
from tests.support.acmeorders import certified
from tests.support.domain import NAMESPACE, RELEASE, World, running_world
from tests.support.refusals import refusal

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        world.services.state.order_index.mark_complete()
        yield world


async def document(world: World, name: str = "ca") -> DERFile:
    return await world.services.crls.current(NAMESPACE, name)


async def listed(world: World, name: str = "ca") -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl((await document(world, name)).der)


def number_of(revoked: x509.CertificateRevocationList) -> int:
    return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def key_id(world: World) -> str:
    authority = world.authorities.get(NAMESPACE, "ca")
    assert authority is not None
    assert authority.status.subject_key_id is not None
    return authority.status.subject_key_id


def revoked_order(
    world: World, serial: int, *, version: int = 2, reason: str = "superseded", **status: Any
) -> ACMEOrder:
    order = transitions.revoked(certified(), reason, now=world.clock())
    values = {
        "serial_number": f"{serial:x}",
        "authority_key_id": key_id(world),
        "not_after": world.clock() + timedelta(days=30),
        **status,
    }
    return replace(
        order,
        metadata=replace(order.metadata, name=f"order-{serial}", resource_version=str(version)),
        status=replace(order.status, **values),
    )


def seen(world: World, *orders: ACMEOrder, deleted: bool = False) -> None:
    for each in orders:
        world.services.state.order_index.update(each, deleted)


def serials(revoked: x509.CertificateRevocationList) -> set[int]:
    return {each.serial_number for each in revoked}


async def test_a_ca_that_revoked_nothing_has_an_empty_list_that_it_signed(world: World) -> None:
    revoked = await listed(world)
    authority = world.authorities.get(NAMESPACE, "ca")
    assert authority is not None
    certificate = x509.load_pem_x509_certificate((authority.status.certificate or "").encode())
    assert pki.vouched_for(revoked, certificate)
    assert revoked.issuer == certificate.subject
    assert len(revoked) == 0


@pytest.mark.requirement("SEC60")
async def test_a_revocation_is_on_the_list_a_second_later(world: World) -> None:
    before = await document(world)
    seen(world, revoked_order(world, 5))
    world.clock.ahead += SECOND
    assert serials(await listed(world)) == {5}
    world.clock.ahead += SECOND
    after = await document(world)
    assert after.etag != before.etag
    assert await document(world) is after, "nothing has changed: nothing is made"


async def test_many_revocations_are_put_on_few_lists(world: World) -> None:
    await document(world)
    world.clock.ahead += SECOND
    made = set()
    for serial in range(1, 50):
        seen(world, revoked_order(world, serial))
        made.add((await document(world)).etag)
    assert len(made) <= 4, "a second or two have gone by"


async def test_many_who_ask_at_once_get_one_list(world: World) -> None:
    documents = await asyncio.gather(*(document(world) for _ in range(20)))
    assert len({id(each) for each in documents}) == 1


@pytest.mark.requirement("SEC60")
async def test_a_list_is_renewed_each_hour_and_its_number_rises(world: World) -> None:
    seen(world, revoked_order(world, 5))
    before = await listed(world)
    world.clock.ahead += HOUR
    after = await listed(world)
    assert after.last_update_utc > before.last_update_utc
    assert after.next_update_utc is not None
    assert before.next_update_utc is not None
    assert after.next_update_utc == before.next_update_utc + HOUR
    assert number_of(after) > number_of(before)


@pytest.mark.requirement("SEC60")
async def test_a_restart_and_another_replica_make_the_same_list(world: World) -> None:
    orders = [revoked_order(world, serial) for serial in (9, 5, 7)]
    seen(world, *orders)
    before = await document(world)
    other = world.another()
    other.services.state.order_index.mark_complete()
    seen(other, *orders[::-1])
    after = await document(other)
    assert (after.der, after.etag) == (before.der, before.etag)


async def test_a_number_does_not_go_back_when_orders_are_deleted(world: World) -> None:
    orders = [revoked_order(world, serial) for serial in (5, 7)]
    seen(world, *orders)
    before = await listed(world)
    seen(world, replace(orders[0], metadata=replace(orders[0].metadata, resource_version="3")), deleted=True)
    world.clock.ahead += 2 * SECOND
    after = await listed(world)
    assert serials(after) == {7}
    assert number_of(after) == number_of(before) + 1
    seen(world, revoked_order(world, 9))
    world.clock.ahead += 2 * SECOND
    assert number_of(await listed(world)) > number_of(after)


async def test_each_ca_lists_what_was_signed_with_its_key_alone(world: World) -> None:
    install(world, "other", pki.root(with_key=pki.key(which="other")))
    seen(world, revoked_order(world, 5))
    assert serials(await listed(world)) == {5}
    assert serials(await listed(world, "other")) == set()


def install(world: World, name: str, signer: Signer) -> None:
    """A CA with its key in the release namespace."""
    pem = certificate_pem(signer.certificate)
    status = AuthorityStatus(certificate=pem, subject_key_id=subject_key_id(signer.certificate))
    uid = f"{name}-uid"
    meta = ObjectMeta(namespace=NAMESPACE, name=name, uid=uid)
    world.authorities.put(CertificateAuthority(metadata=meta, spec=AuthoritySpec(), status=status))
    data = {TLS_CERTIFICATE: pem.encode(), TLS_PRIVATE_KEY: private_key_pem(signer.key)}
    world.secrets.put(Secret(metadata=ObjectMeta(namespace=RELEASE, name=signing_key_name(uid)), data=data))


@pytest.mark.requirement("SEC60")
async def test_until_all_certificates_are_known_there_is_no_list(world: World) -> None:
    world.services.state.order_index.mark_stale()
    with pytest.raises(Unavailable, match="has not read all certificates"):
        await document(world)
    world.services.state.order_index.mark_complete()
    assert len(await listed(world)) == 0


async def test_while_changes_may_be_missed_the_last_list_is_kept_until_it_ends(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    before = await document(world)
    world.services.state.order_index.mark_stale()
    world.clock.ahead += 5 * HOUR
    for _ in range(3):
        assert (await document(world)).der == before.der
    assert len([each for each in caplog.records if "not renewed" in each.getMessage()]) == 1, "strangers fill no log"
    world.clock.ahead += 20 * HOUR
    with pytest.raises(Unavailable):
        await document(world)
    world.services.state.order_index.mark_complete()
    assert (await document(world)).der != before.der


async def test_without_the_key_of_the_ca_the_last_list_is_kept_until_it_ends(world: World) -> None:
    before = await document(world)
    world.remove_authority_key()
    world.clock.ahead += HOUR
    assert (await document(world)).der == before.der
    world.clock.ahead += 24 * HOUR
    with pytest.raises(Unavailable, match="key of the CA"):
        await document(world)


async def test_a_ca_that_does_not_exist_and_one_that_goes_have_no_list(world: World) -> None:
    await document(world)
    world.authorities.remove(NAMESPACE, "ca")
    world.remove_authority_key()
    for name in ("ca", "nowhere"):
        assert status_of(await refusal(document(world, name))) == 404
    world.authorities.silence = 1.0
    with pytest.raises(Unavailable):
        await document(world)
    world.authorities.synced.clear()
    with pytest.raises(Unavailable):
        await document(world)


async def test_a_ca_that_may_not_sign_lists_says_so(world: World) -> None:
    install(world, "imported", pki.without_list_signing())
    with pytest.raises(Refused, match="lacks cRLSign") as caught:
        await document(world, "imported")
    assert status_of(caught.value) == 404


async def test_the_certificate_of_a_ca_is_what_it_publishes(world: World) -> None:
    published = world.services.crls.ca_certificate(NAMESPACE, "ca")
    authority = world.authorities.get(NAMESPACE, "ca")
    assert authority is not None
    certificate = x509.load_pem_x509_certificate((authority.status.certificate or "").encode())
    assert published.der == certificate.public_bytes(Encoding.DER)
    world.authorities.put(replace(authority, status=AuthorityStatus()))
    with pytest.raises(Unavailable):
        world.services.crls.ca_certificate(NAMESPACE, "ca")


async def test_neither_lists_nor_certificates_ask_the_api_server(world: World) -> None:
    before = len(world.api.requests)
    for hours in range(3):
        seen(world, revoked_order(world, 5 + hours))
        await document(world)
        world.services.crls.ca_certificate(NAMESPACE, "ca")
        world.clock.ahead += HOUR
    assert world.calls(before) == []


@pytest.mark.requirement("SEC79")
async def test_what_an_imported_ca_revoked_with_former_keys_stays_on_its_list(world: World) -> None:
    former = key_id(world)
    seen(world, revoked_order(world, 5), revoked_order(world, 7))
    before = await listed(world)
    world.install_authority(with_key=pki.key(which="replaced"))
    authority = world.authorities.get(NAMESPACE, "ca")
    assert authority is not None
    keys = (FormerKey(subject_key_id=former, not_after=world.clock() + timedelta(days=300)),)
    world.authorities.put(replace(authority, status=replace(authority.status, former_keys=keys)))
    seen(world, revoked_order(world, 9))
    world.clock.ahead += 2 * SECOND
    after = await listed(world)
    assert key_id(world) != former
    assert serials(after) == {5, 7, 9}
    assert number_of(after) > number_of(before)
    seen(world, revoked_order(world, 11, authority_key_id=former))
    world.clock.ahead += 2 * SECOND
    assert serials(await listed(world)) == {5, 7, 9, 11}, "changes under a former key renew the list, too"


@pytest.mark.requirement("SEC79")
async def test_this_update_and_the_number_do_not_go_back_with_the_clock(world: World) -> None:
    seen(world, revoked_order(world, 5))
    before = await listed(world)
    world.clock.ahead -= 2 * HOUR
    seen(world, revoked_order(world, 7))
    world.clock.ahead += 2 * SECOND
    after = await listed(world)
    assert serials(after) == {5, 7}
    assert after.last_update_utc >= before.last_update_utc
    assert number_of(after) > number_of(before)


@pytest.mark.requirement("SEC80")
async def test_a_ca_that_was_deleted_has_a_list_as_long_as_its_key_is_kept(world: World) -> None:
    seen(world, revoked_order(world, 5))
    later = revoked_order(world, 7)
    before, certificate = await listed(world), world.services.crls.ca_certificate(NAMESPACE, "ca")
    world.authorities.remove(NAMESPACE, "ca")
    seen(world, later)
    world.clock.ahead += HOUR
    after = await listed(world)
    assert serials(after) == {5, 7}
    assert number_of(after) > number_of(before)
    assert pki.vouched_for(after, x509.load_der_x509_certificate(certificate.der))
    assert world.services.crls.ca_certificate(NAMESPACE, "ca").der == certificate.der
    world.remove_authority_key()
    with pytest.raises(NotFound):
        world.services.crls.ca_certificate(NAMESPACE, "ca")


@pytest.mark.requirement("SEC79", "SEC80")
async def test_another_ca_under_the_name_of_a_deleted_one_does_not_take_its_list(world: World) -> None:
    crls, former = world.services.crls, key_id(world)
    seen(world, revoked_order(world, 5))
    old = await crls.current(NAMESPACE, "ca", former)
    certificate = x509.load_der_x509_certificate(crls.ca_certificate(NAMESPACE, "ca", former).der)
    world.authorities.remove(NAMESPACE, "ca")
    key = pki.key(which="another")
    world.install_authority(with_key=key, uid="another")
    present = key_id(world)
    assert present != former
    seen(world, revoked_order(world, 7))
    world.clock.ahead += HOUR
    for url_key, expected in ((former, {5}), (present, {7}), (None, {7}), (former, {5})):
        renewed = x509.load_der_x509_crl((await crls.current(NAMESPACE, "ca", url_key)).der)
        assert (pki.vouched_for(renewed, certificate), serials(renewed)) == (url_key == former, expected)
        if url_key == former:
            assert number_of(renewed) > number_of(x509.load_der_x509_crl(old.der))
    assert crls.ca_certificate(NAMESPACE, "ca", former).der == certificate.public_bytes(Encoding.DER)
    assert crls.ca_certificate(NAMESPACE, "ca", present).der != certificate.public_bytes(Encoding.DER)
    world.remove_authority_key()
    world.clock.ahead += HOUR
    with pytest.raises(NotFound):
        await crls.current(NAMESPACE, "ca", former)
    for unknown in ("00" * 20, former):
        with pytest.raises(NotFound):
            crls.ca_certificate(NAMESPACE, "ca", unknown)


@pytest.mark.requirement("SEC80")
async def test_a_deleted_ca_has_the_entries_of_its_former_keys(world: World) -> None:
    former = key_id(world)
    seen(world, revoked_order(world, 5))
    world.install_authority(with_key=pki.key(which="replaced"))
    secret = world.secrets.get(RELEASE, signing_key_name("ca-uid"))
    assert secret is not None
    end = FormerKey(subject_key_id=former, not_after=world.clock() + timedelta(days=300))
    annotations = {**secret.metadata.annotations, FORMER_KEYS: format_former_keys((end,))}
    world.secrets.put(replace(secret, metadata=replace(secret.metadata, annotations=annotations)))
    world.authorities.remove(NAMESPACE, "ca")
    assert serials(await listed(world)) == {5}


@pytest.mark.requirement("SEC80")
async def test_no_secret_but_a_signing_key_makes_a_deleted_ca(world: World) -> None:
    secret = world.secrets.get(RELEASE, signing_key_name("ca-uid"))
    assert secret is not None
    world.authorities.remove(NAMESPACE, "ca")
    world.remove_authority_key()
    for name, data in (("other", secret.data), (secret.metadata.name, {TLS_CERTIFICATE: b"nonsense"})):
        world.secrets.put(replace(secret, metadata=replace(secret.metadata, name=name), data=data))
        with pytest.raises(NotFound):
            await document(world)


@pytest.mark.requirement("SEC79", "SEC80")
async def test_a_ca_that_was_created_again_has_the_list_of_the_deleted_one_until_it_has_a_key(world: World) -> None:
    """An imported CA whose Secret was deleted with its namespace, or one beyond a limit, may wait for long."""
    seen(world, revoked_order(world, 5))
    certificate = world.services.crls.ca_certificate(NAMESPACE, "ca")
    world.authorities.remove(NAMESPACE, "ca")
    metadata = ObjectMeta(namespace=NAMESPACE, name="ca", uid="again")
    world.authorities.put(CertificateAuthority(metadata=metadata, spec=AuthoritySpec(), status=AuthorityStatus()))
    assert serials(await listed(world)) == {5}
    assert world.services.crls.ca_certificate(NAMESPACE, "ca").der == certificate.der
