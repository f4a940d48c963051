"""What ends when, as metrics show it."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from acme_server.inventory_metrics import Inventory
from acme_server.metrics import Metrics
from acme_server.state.certificates import CertificateRecord, Certificates
from acme_server.state.expiry import ExpiryCounts, credential_states, ends_of_authorities
from acme_server.state.index import Index
from kms.resources.authorities import AuthoritySpec, AuthorityStatus, CertificateAuthority
from kms.resources.credentials import CredentialSpec, CredentialStatus, EABCredential
from kms.resources.meta import Condition, NamespacedRef, ObjectMeta
from kms.resources.orders import ACMEOrder, Identifier, Revocation
from tests.support.acmeorders import NOW, certified

DAY = timedelta(days=1)


def order(
    name: str, *names: str, ends: timedelta, lifetime: timedelta = 30 * DAY, revoked: bool = False, profile: str = "web"
) -> ACMEOrder:
    known = certified()
    begins = NOW + ends - lifetime
    return msgspec.structs.replace(
        known,
        metadata=msgspec.structs.replace(known.metadata, name=name),
        spec=msgspec.structs.replace(
            known.spec,
            identifiers=tuple(Identifier(type="dns", value=each) for each in names),
            profile_ref=msgspec.structs.replace(known.spec.profile_ref, name=profile),
        ),
        status=msgspec.structs.replace(
            known.status,
            serial_number=name.encode().hex(),
            issued_at=begins,
            not_before=begins,
            not_after=NOW + ends,
            revocation=Revocation(time=NOW, reason="superseded") if revoked else None,
        ),
    )


def counting(orders: list[ACMEOrder], **options: Any) -> ExpiryCounts:
    certificates = Certificates(index := Index[ACMEOrder]())
    for each in orders:
        index.update(each, False)
    return ExpiryCounts(
        certificates=certificates,
        authorities=lambda: (),
        credentials=lambda: (),
        show=lambda _: None,
        clock=lambda: NOW,
        **options,
    )


@pytest.mark.requirement("P13")
async def test_certificates_are_counted_by_when_they_end() -> None:
    found = await counting(
        [
            order("a", "a.example.com", ends=DAY / 2),
            order("b", "b.example.com", ends=3 * DAY),
            order("c", "c.example.com", ends=20 * DAY),
            order("d", "d.example.com", ends=60 * DAY, lifetime=90 * DAY),
            order("e", "e.example.com", ends=DAY, revoked=True),
            order("f", "f.example.com", ends=-DAY),
        ]
    ).count()
    assert found.certificates == {
        ("pki", "web", "1d"): 1,
        ("pki", "web", "7d"): 2,
        ("pki", "web", "14d"): 2,
        ("pki", "web", "30d"): 3,
        ("pki", "web", "more"): 1,
    }


@pytest.mark.requirement("P13")
async def test_a_certificate_that_is_late_and_has_no_successor_counts_as_not_renewed() -> None:
    found = await counting(
        [
            order("late", "a.example.com", "b.example.com", ends=3 * DAY),
            order("renewed", "c.example.com", "d.example.com", ends=3 * DAY),
            order("successor", "d.example.com", "c.example.com", ends=29 * DAY),  # in another order
            order("early", "e.example.com", ends=10 * DAY),  # its window is not over
            order("revoked", "f.example.com", ends=DAY, revoked=True),
            order("short", "g.example.com", ends=DAY / 8, lifetime=DAY),
            order("elsewhere", "a.example.com", "b.example.com", ends=29 * DAY, profile="other"),
        ]
    ).count()
    late = {labels: count for labels, count in found.not_renewed.items() if count}
    assert late == {
        ("pki", "web", "1d"): 1,
        ("pki", "web", "7d"): 2,
        ("pki", "web", "14d"): 2,
        ("pki", "web", "30d"): 2,
    }


async def test_only_so_many_profiles_and_authorities_have_series() -> None:
    orders = [
        order(f"n{i}{j}", f"{i}-{j}.example.com", ends=DAY, profile=f"p{i}") for i in range(4) for j in range(i + 1)
    ]
    found = await counting(orders, maximum_profiles=2).count()
    assert {labels[:2] for labels in found.certificates} == {("pki", "p3"), ("pki", "p2"), ("other", "other")}
    assert found.certificates["other", "other", "1d"] == 3
    authorities = [authority(f"ca{i}", NOW + i * DAY) for i in range(5)]
    assert list(ends_of_authorities(authorities, most=2)) == [
        ("pki", "ca0", "InternalRoot"),
        ("pki", "ca1", "InternalRoot"),
    ]


def authority(name: str, ends: Any) -> CertificateAuthority:
    return CertificateAuthority(
        metadata=ObjectMeta(namespace="pki", name=name),
        spec=AuthoritySpec(),
        status=AuthorityStatus(type="InternalRoot", not_after=ends),
    )


def test_a_ca_without_a_certificate_has_no_end() -> None:
    assert ends_of_authorities([authority("new", None)], most=10) == {}


@pytest.mark.requirement("P13")
def test_credentials_are_counted_by_state() -> None:
    def credential(*, ready: bool = True, **spec: Any) -> EABCredential:
        condition = Condition(
            type="Ready", status="True" if ready else "False", reason="Test", message="", last_transition_time=NOW
        )
        return EABCredential(
            metadata=ObjectMeta(namespace="team", name="x"),
            spec=CredentialSpec(profile_ref=NamespacedRef(name="web", namespace="pki"), **spec),
            status=CredentialStatus(conditions=(condition,)),
        )

    found = [credential(), credential(ready=False), credential(suspended=True), credential(expires_at=NOW)]
    assert credential_states(found, now=NOW) == {
        ("ready",): 1,
        ("not-ready",): 1,
        ("suspended",): 1,
        ("expired",): 1,
    }


def test_what_is_gone_disappears_from_the_metrics() -> None:
    metrics = Metrics()
    metrics.inventory.show(Inventory(authorities={("pki", "a", "Imported"): 1.0, ("pki", "b", "Imported"): 2.0}))
    metrics.inventory.show(Inventory(authorities={("pki", "b", "Imported"): 3.0}))
    text = metrics.exposition().decode()
    name = "kms_acme_certificate_authority_not_after_timestamp_seconds"
    assert f'{name}{{name="b",namespace="pki",type="Imported"}} 3.0' in text
    assert 'name="a"' not in text


@pytest.mark.requirement("P13")
async def test_a_count_of_many_certificates_needs_little_memory_and_leaves_others_their_turn() -> None:
    """30,000 here; a tenth of what the certificates themselves take."""
    counts = counting([])
    base = counting([order("x", "x.example.com", ends=3 * DAY)])._certificates.records()
    (record,) = base
    many = [_another(record, number) for number in range(30_000)]
    counts._certificates._by_order.update({each.order: each for each in many})
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(take_turns())
    tracemalloc.start()
    found = await counts.count()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    other.cancel()
    assert found.not_renewed["pki", "web", "7d"] == 30_000
    assert peak < 5_000_000
    assert turns > 150


def _another(record: CertificateRecord, number: int) -> CertificateRecord:
    values = {name: getattr(record, name) for name in type(record).__slots__}
    return CertificateRecord(**values | {"order": ("pki", str(number)), "names": number.to_bytes(8, "big")})
