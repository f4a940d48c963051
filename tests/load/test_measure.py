from __future__ import annotations

import os
from collections import Counter

import pytest

from e2e.cluster.ports import free_port
from e2e.load import measure
from e2e.load.floor import RoundSize
from e2e.load.measure import SEGMENTS, Plan, Target, names
from tests.support.scripted_acme import problem, running_acme


class Counting:
    """Counts as if every segment had made one write."""

    def __init__(self) -> None:
        self.marks = 0

    def mark(self) -> None:
        self.marks += 1

    def counts(self) -> Counter[str]:
        return Counter({"create acmeorders": 1})


SHORT = RoundSize(requests=16, orders=8, works=dict.fromkeys(RoundSize().works, 8))


async def test_warm_up_is_not_counted_and_every_order_is() -> None:
    counting = Counting()
    async with running_acme() as acme:
        acme.script("new-order", problem("rateLimited", 429))
        measured = await measure.measure(
            Target(
                name="scripted",
                directory_url=f"{acme.base}/directory",
                tls=None,
                external_account=None,
                http_port=free_port(),
                dns_port=free_port(),
                pids={"server": os.getpid()},
                requests=counting,
            ),
            Plan(orders=13, clients=2, accounts=3, names=2, warm_up=4),
            round_size=SHORT,
            sample_every=0.01,
        )
        ordered = [each.payload["identifiers"][0]["value"] for each in acme.seen if each.step == "new-order"]
    assert measured.tally.orders == 13
    assert not measured.tally.errors  # the one refusal was met in the warm-up
    assert sorted(ordered) == sorted(names(number, 2)[0] for number in range(4 + 13))
    assert measured.floor > 0
    assert counting.marks == SEGMENTS
    assert measured.api == {"create acmeorders": SEGMENTS}
    assert measured.floor_rounds == SEGMENTS + 1
    assert measured.cpu.keys() == {"server", "client"}
    assert measured.before.keys() == measured.after.keys() == {"server"}
    assert measured.samples["server"]
    assert acme.count()["account"] == 3


async def test_a_process_that_is_not_there_ends_the_measurement() -> None:
    async with running_acme() as acme:
        target = Target(
            name="scripted",
            directory_url=f"{acme.base}/directory",
            tls=None,
            external_account=None,
            http_port=free_port(),
            dns_port=free_port(),
            pids={"server": 2**22 + 1},
        )
        with pytest.raises(ProcessLookupError, match="server"):
            await measure.measure(target, Plan(orders=1, clients=1, accounts=1, warm_up=0), round_size=SHORT)


def test_each_name_is_ordered_once() -> None:
    found = [name for number in range(50) for name in names(number, 3)]
    assert len(set(found)) == 150
