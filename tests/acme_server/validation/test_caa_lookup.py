from __future__ import annotations

import asyncio

import pytest

from acme_server.problems import Unavailable
from acme_server.validation.caa_lookup import CAALimits, CAALookup, Holder, RelevantSet
from acme_server.validation.caa_rules import Property, names_to_look_up, objection_to_extent
from acme_server.validation.dns.client import Records, Resolver
from tests.support.domain import ScriptedCAA
from tests.support.eventually import until
from tests.support.nameserver import running_nameserver
from tests.support.processor import least_time

ME = Holder("pki", "", "me")
ONE = Property(0, b"issue", b"one.example")
TWO = Property(0, b"issue", b"two.example")


@pytest.mark.requirement("CAA-M1", "SEC53")
async def test_the_nearest_name_that_has_records_counts() -> None:
    records = ScriptedCAA({"example.com": [ONE], "com": [TWO]})
    found = await CAALookup(records.caa).find_relevant(["a.b.example.com"], ME)
    assert found == {"a.b.example.com": RelevantSet("example.com", (ONE,))}
    assert records.asked == ["a.b.example.com", "b.example.com", "example.com"]


@pytest.mark.requirement("CAA-M1")
async def test_the_climb_ends_below_the_root() -> None:
    records = ScriptedCAA()
    assert await CAALookup(records.caa).find_relevant(["www.example.com"], ME) == {"www.example.com": RelevantSet()}
    assert records.asked == ["www.example.com", "example.com", "com"]


@pytest.mark.requirement("SEC53")
async def test_every_name_gets_its_own_records_and_none_is_asked_for_twice() -> None:
    # Boulder, 2020-02-29: one name of an order was checked as often as the order had names.
    records = ScriptedCAA({"a.example.com": [ONE], "b.example.com": [TWO], "c.example.com": "SERVFAIL"})
    names = [f"{letter}.example.com" for letter in "abcde"]
    found = await CAALookup(records.caa).find_relevant(names, ME)
    assert found == {
        "a.example.com": RelevantSet("a.example.com", (ONE,)),
        "b.example.com": RelevantSet("b.example.com", (TWO,)),
        "c.example.com": RelevantSet("c.example.com", failure="SERVFAIL"),
        "d.example.com": RelevantSet(),
        "e.example.com": RelevantSet(),
    }
    assert sorted(records.asked) == sorted([*names, "example.com", "com"])


@pytest.mark.requirement("CAA-M5", "SEC54")
async def test_a_lookup_that_fails_on_the_way_up_is_a_failure() -> None:
    records = ScriptedCAA({"example.com": "SERVFAIL", "com": [ONE]})
    found = await CAALookup(records.caa).find_relevant(["a.example.com", "b.example.com"], ME)
    assert set(found.values()) == {RelevantSet("example.com", failure="SERVFAIL")}


async def test_nothing_is_remembered() -> None:
    records = ScriptedCAA({"a.example": [ONE]})
    lookup = CAALookup(records.caa)
    await lookup.find_relevant(["a.example"], ME)
    records.properties["a.example"] = [TWO]
    assert (await lookup.find_relevant(["a.example"], ME))["a.example"].properties == (TWO,)


@pytest.mark.requirement("CAA-M5", "SEC54")
async def test_lookups_that_take_too_long_are_failures_and_those_in_time_count() -> None:
    records = ScriptedCAA({"a.example": [ONE]})

    async def caa(name: str) -> Records[Property]:
        if name == "b.example":
            await asyncio.Event().wait()
        return await records.caa(name)

    found = await CAALookup(caa, deadline=0.1).find_relevant(["a.example", "b.example"], ME)
    assert found["a.example"] == RelevantSet("a.example", (ONE,))
    assert found["b.example"] == RelevantSet(failure="they took longer than 0.1 seconds")


async def test_a_check_that_is_cancelled_leaves_nothing_behind() -> None:
    records = ScriptedCAA(gate=asyncio.Event())
    task = asyncio.create_task(CAALookup(records.caa).find_relevant([f"{number}.example" for number in range(50)], ME))
    await until(lambda: len(records.asked) >= 8)
    assert len(records.asked) == 8  # at a time
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.requirement("CAA-M1", "CAA-M5")
async def test_records_come_from_the_configured_servers() -> None:
    async with running_nameserver() as nameserver:
        nameserver.records["example.com", "CAA"] = ['0 issue "one.example"']
        nameserver.records["alias.example.org", "CNAME"] = ["elsewhere.example.com"]
        nameserver.records["elsewhere.example.com", "CAA"] = ['0 issue "two.example"']
        nameserver.rcodes["broken.example"] = "SERVFAIL"
        lookup = CAALookup(Resolver([nameserver.address], timeout=2.0).caa)
        found = await lookup.find_relevant(["www.example.com", "alias.example.org", "a.broken.example"], ME)
    assert found["www.example.com"] == RelevantSet("example.com", (ONE,))
    assert found["alias.example.org"] == RelevantSet("alias.example.org", (TWO,))
    assert "SERVFAIL" in (found["a.broken.example"].failure or "")


def deep(prefix: str, names: int = 100, labels: int = 5) -> list[str]:
    """Names that share nothing but their last two labels."""
    return [
        ".".join(f"{prefix}{name}-{label}" for label in range(labels - 2)) + ".example.com" for name in range(names)
    ]


@pytest.mark.requirement("SEC74", "SEC75")
async def test_by_default_a_namespace_has_half_of_the_lookups_and_an_account_half_of_that() -> None:
    records = ScriptedCAA()
    records.gate = asyncio.Event()
    lookup = CAALookup(records.caa)

    def find(namespace: str, account: str) -> asyncio.Task[dict[str, RelevantSet]]:
        names = [f"n{number}.{account}.{namespace}" for number in range(20)]
        return asyncio.create_task(lookup.find_relevant(names, Holder(namespace, account, account)))

    tasks, expected = [], (("one", "a", 8), ("one", "b", 16), ("one", "c", 16), ("two", "d", 24), ("two", "e", 32))
    for namespace, account, running in (*expected, ("three", "f", 32)):
        tasks.append(find(namespace, account))
        await asyncio.sleep(0.01)
        assert len(records.asked) == running
    records.gate.set()
    await asyncio.gather(*tasks)


@pytest.mark.requirement("SEC75")
async def test_clients_of_one_namespace_leave_lookups_to_others_of_the_same_profile() -> None:
    records = ScriptedCAA(gate=asyncio.Event())
    lookup = CAALookup(records.caa)
    names = [f"n{number}.example.com" for number in range(20)]
    theirs = [
        asyncio.create_task(lookup.find_relevant(names, Holder("pki", "team-a", f"{each}"))) for each in range(20)
    ]
    await asyncio.sleep(0.01)
    mine = asyncio.create_task(lookup.find_relevant(["www.example.org"], Holder("pki", "team-b", "me")))
    await until(lambda: "www.example.org" in records.asked)
    assert len(records.asked) == 13
    for task in (*theirs, mine):
        task.cancel()
    await asyncio.gather(*theirs, mine, return_exceptions=True)


@pytest.mark.requirement("SEC74")
async def test_lookups_of_one_tenant_delay_those_of_another_by_one_turn() -> None:
    gate = asyncio.Event()
    records = ScriptedCAA(gate=gate)
    lookup = CAALookup(records.caa, limits=CAALimits(running=20, running_by_namespace=10, running_by_account=4))
    theirs = [
        asyncio.create_task(lookup.find_relevant(deep(f"t{each}-"), Holder("team-a", f"{each}", "account")))
        for each in range(20)
    ]
    await until(lambda: len(records.asked) >= 10)
    assert len(records.asked) == 10
    mine = asyncio.create_task(lookup.find_relevant(["www.example.org"], ME))
    await until(lambda: "www.example.org" in records.asked)
    assert len(records.asked) == 11
    gate.set()
    await mine
    assert len(records.asked) < 200  # of 6,000
    for task in theirs:
        task.cancel()
    await asyncio.gather(*theirs, return_exceptions=True)


@pytest.mark.requirement("SEC74")
async def test_checks_beyond_a_share_are_refused_for_a_moment() -> None:
    lookup = CAALookup(
        ScriptedCAA().caa, limits=CAALimits(admitted=30, admitted_by_namespace=20, admitted_by_account=10)
    )
    names = deep("n", names=2, labels=4)  # and example.com, and com: 6
    with lookup.admit(names, ME):
        with pytest.raises(Unavailable) as busy, lookup.admit(names, ME):
            pass
        assert busy.value.retry_after > 0
        with lookup.admit(names, Holder("pki", "b", "account")), lookup.admit(names, Holder("pki", "c", "account")):
            with pytest.raises(Unavailable), lookup.admit(names, Holder("pki", "d", "account")):
                pass
            with (
                lookup.admit(names, Holder("team", "d", "account")),
                lookup.admit(names, Holder("team", "e", "account")),
                pytest.raises(Unavailable),
                lookup.admit(names, Holder("other", "f", "account")),
            ):
                pass
    with lookup.admit(names, ME):  # what was admitted is over
        pass


@pytest.mark.requirement("SEC74")
async def test_lookups_that_still_wait_for_others_at_the_deadline_are_no_answer_about_the_names() -> None:
    records = ScriptedCAA(gate=asyncio.Event())
    limits = CAALimits(running=1, running_by_namespace=1, running_by_account=1)
    lookup = CAALookup(records.caa, deadline=0.05, limits=limits)
    with pytest.raises(Unavailable, match="takes too long at the moment"):
        await lookup.find_relevant(["a.example", "b.example"], ME)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.requirement("SEC74")
def test_the_lookups_of_an_order_are_counted_with_shared_parents_once() -> None:
    assert names_to_look_up(["a.example.com", "b.example.com", "example.com"]) == {
        "a.example.com", "b.example.com", "example.com", "com",
    }  # fmt: skip
    assert objection_to_extent(deep("n")) is None
    long = [".".join(f"a{name}" for _ in range(60)) for name in range(100)]
    assert "more than 500 lookups" in (objection_to_extent(long) or "")
    assert least_time(lambda: objection_to_extent(long)) < 0.02
