"""Fair shares of validation: a hundred accounts of one tenant get what one tenant gets."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.fair_slots import Path
from acme_server.problems import Unavailable
from acme_server.validation.shares import Limits, QueueShares
from kms.resources.orders import ACMEOrder
from tests.acme_server.validation.test_worker import Bench, of_account
from tests.support.domain import Validator
from tests.support.eventually import until

PATHS = st.tuples(st.sampled_from("ab"), st.sampled_from("pq"), st.sampled_from("st"), st.sampled_from("xyz"))


def of_tenant(namespace: str, profile: str, account: str, *names: str) -> ACMEOrder:
    return of_account(account, *names, namespace=namespace, profile=profile)


def of_clients(namespace: str, account: str, *names: str) -> ACMEOrder:
    """An order of one profile for clients of this namespace."""
    one = of_account(account, *names)
    return replace(one, spec=replace(one.spec, client_namespace=namespace))


@pytest.mark.requirement("SEC75")
async def test_100_anonymous_accounts_do_not_keep_another_tenant_waiting() -> None:
    """With every slot taken by validations that hang, another tenant's begins at once."""
    bench = Bench(Validator(gate=asyncio.Event()))
    for number in range(100):
        names = [f"n{each}.a{number}.example" for each in range(10)]
        bench.start(of_tenant("busy", "open", f"account-{number}", *names), *range(10))
    await asyncio.sleep(0)
    bench.start(of_tenant("quiet", "web", "account", "quiet.example"), 0)
    await until(lambda: any(name == "quiet.example" for name, _, _ in bench.validator.asked), seconds=5)
    assert len(bench.validator.asked) == 51, "of 1,001; the rest of the busy namespace waits"
    await bench.worker.drain(0)


@pytest.mark.requirement("SEC75")
async def test_a_tenant_who_fills_the_queue_does_not_keep_others_out() -> None:
    limits = Limits(total=20, namespace=20, profile=20, tenant=20, account=5)
    bench = Bench(Validator(gate=asyncio.Event()), limits={"queued": limits})
    names = [f"n{each}.example" for each in range(5)]
    for number in range(4):
        bench.start(of_tenant("busy", "open", f"account-{number}", *names), *range(5))
    with pytest.raises(Unavailable):
        bench.start(of_tenant("busy", "open", "account-5", "x.example"), 0)
    for number in range(2):
        bench.start(of_tenant("quiet", "web", f"account-{number}", *names), *range(5))
    with pytest.raises(Unavailable):
        bench.start(of_tenant("quiet", "web", "account-2", "x.example"), 0)
    await bench.worker.drain(0)
    assert len(bench.worker) == 0


@pytest.mark.requirement("SEC75")
async def test_100_accounts_of_one_client_namespace_do_not_keep_others_of_the_same_profile_waiting() -> None:
    """Whoever may write an EABCredential in an allowed namespace opens as many accounts there as he likes."""
    bench = Bench(Validator(gate=asyncio.Event()))
    for number in range(100):
        names = [f"n{each}.a{number}.example" for each in range(10)]
        bench.start(of_clients("busy", f"account-{number}", *names), *range(10))
    await asyncio.sleep(0)
    bench.start(of_clients("quiet", "account", "quiet.example"), 0)
    await until(lambda: any(name == "quiet.example" for name, _, _ in bench.validator.asked), seconds=5)
    assert len(bench.validator.asked) == 51, "of 1,001; the rest of the busy clients waits"
    await bench.worker.drain(0)


@given(st.lists(PATHS, max_size=60))
def test_the_queue_never_exceeds_the_double_of_its_limits(leaves: list[Path]) -> None:
    limits = Limits(8, 6, 4, 4, 3)
    shares = QueueShares(limits)
    queued: Counter[Path] = Counter()
    for leaf in leaves:
        if shares.has_room(leaf):
            shares.add(leaf)
            for depth in range(5):
                queued[leaf[:depth]] += 1
    assert all(count <= 2 * limits[len(path)] for path, count in queued.items())
    assert all(count <= limits.account for path, count in queued.items() if len(path) == 4)
    assert len(shares) == queued[()]
    for path, count in list(queued.items()):
        for _ in range(count if len(path) == 4 else 0):
            shares.remove(path)
    assert len(shares) == 0
    assert shares.has_room(("a", "p", "s", "x"))
