"""What a server keeps in memory of every order there is: a hundred thousand of them have to fit beside the rest."""

from __future__ import annotations

import gc
import tracemalloc
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.orders.recovery import UnfinishedOrders
from acme_server.state.authorizations import Authorizations
from acme_server.state.certificates import Certificates
from acme_server.state.index import Index
from acme_server.state.quotas import ObjectQuota, OpenOrderQuota
from acme_server.state.revocation_records import RevocationRecords, certificate_record
from acme_server.state.weight import weigh_order
from kms.cluster.codec import encode
from kms.resources.kinds import ORDERS, REVOCATION_RECORDS
from kms.resources.orders import ACMEOrder, Identifier
from kms.resources.revocations import RevocationRecord
from tests.support.acmeorders import DIGEST, NOW, certified, issued, order, proven

ORDERS_HERE = 1_000
LIMIT = 1_700
"""Octets of memory for an order with one name whose proof is still good, which is the most that one takes: 170 MB for a
hundred thousand, and a server without any takes 85."""


def stored(number: int) -> bytes:
    """An order as the API server sends it; no two share anything that is drawn for each."""
    order = certified()
    identifier = Identifier(type="dns", value=f"host-{number:06}.example.com")
    (authorization,) = order.status.authorizations
    return encode(
        ORDERS,
        replace(
            order,
            metadata=replace(
                order.metadata, name=f"{number:032}", uid=f"uid-{number:032}", resource_version=str(10_000_000 + number)
            ),
            spec=replace(order.spec, identifiers=(identifier,)),
            status=replace(
                order.status,
                authorizations=(replace(authorization, identifier=identifier, expires=NOW + timedelta(days=1)),),
                serial_number=f"{number + 2**126:x}",
                public_key_digest=f"{number:064x}",
            ),
        ),
    )


@pytest.mark.requirement("SEC72")
def test_an_order_with_a_hundred_names_takes_little_memory() -> None:
    names = [f"{number:03}{'l' * 56}.{'l' * 60}.example.com" for number in range(100)]
    documents = []
    for number in range(50):
        many = proven(order(*(f"{number:03}{name}" for name in names)))
        many = replace(many, metadata=replace(many.metadata, name=f"order-{number}"))
        documents.append(encode(ORDERS, transitions.issued(many, DIGEST, issued(), now=NOW)))
    index: Index[ACMEOrder] = Index()
    orders = ObjectQuota(index, "orders", maximum=1_000, weigh=weigh_order, account_of=lambda each: each.metadata.name)
    views = (
        Certificates(index),
        Authorizations(index, clock=lambda: NOW, capacity=100),
        orders,
        OpenOrderQuota(index, octets_of=orders.octets_of, clock=lambda: NOW),
    )
    gc.collect()
    tracemalloc.start()
    try:
        for document in documents:
            index.update(msgspec.json.decode(document, type=ACMEOrder), False)
        gc.collect()
        octets = tracemalloc.get_traced_memory()[0] / len(documents)
    finally:
        tracemalloc.stop()
    print(f"{octets:.0f} octets an order")
    assert len(views[0]) == len(documents)
    assert octets < 6_000  # 61,000 before: every name and every proof


def test_an_order_with_its_certificate_takes_little_memory() -> None:
    documents = [stored(number) for number in range(ORDERS_HERE)]
    index: Index[ACMEOrder] = Index()
    orders = ObjectQuota(index, "orders", maximum=2 * ORDERS_HERE)
    views = Certificates(index), Authorizations(index, clock=lambda: NOW), orders
    UnfinishedOrders(index)
    OpenOrderQuota(index, octets_of=orders.octets_of, clock=lambda: NOW)
    decode = msgspec.json.Decoder(ACMEOrder).decode
    gc.collect()
    tracemalloc.start()
    try:
        for document in documents:
            order = decode(document)
            index.update(order, False)
        del order
        index.mark_complete()
        gc.collect()
        octets = tracemalloc.get_traced_memory()[0] / ORDERS_HERE
    finally:
        tracemalloc.stop()
    print(f"{octets:.0f} octets an order")
    assert [len(each) for each in (index, *views)] == [ORDERS_HERE] * 4
    assert octets < LIMIT


def test_a_record_of_a_revocation_takes_little_memory() -> None:
    orders = (msgspec.json.decode(stored(number), type=ACMEOrder) for number in range(ORDERS_HERE))
    records = [certificate_record(transitions.revoked(each, "superseded", now=NOW), "kms-acme") for each in orders]
    documents = [encode(REVOCATION_RECORDS, each) for each in records if each is not None]
    index: Index[RevocationRecord] = Index()
    view = RevocationRecords(index)
    decode = msgspec.json.Decoder(RevocationRecord).decode
    del records
    gc.collect()
    tracemalloc.start()
    try:
        for document in documents:
            index.update(decode(document), False)
        gc.collect()
        octets = tracemalloc.get_traced_memory()[0] / ORDERS_HERE
    finally:
        tracemalloc.stop()
    print(f"{octets:.0f} octets a record")
    assert len(view) == ORDERS_HERE
    assert octets < LIMIT
