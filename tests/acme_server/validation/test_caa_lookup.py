from __future__ import annotations

import asyncio

import pytest

from acme_server.validation.caa_lookup import CAALookup, RelevantSet
from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.client import Records, Resolver
from tests.support.domain import ScriptedCAA
from tests.support.eventually import until
from tests.support.nameserver import running_nameserver

ONE = Property(0, b"issue", b"one.example")
TWO = Property(0, b"issue", b"two.example")


@pytest.mark.requirement("CAA-M1", "SEC53")
async def test_the_nearest_name_that_has_records_counts() -> None:
    records = ScriptedCAA({"example.com": [ONE], "com": [TWO]})
    found = await CAALookup(records.caa).find_relevant(["a.b.example.com"])
    assert found == {"a.b.example.com": RelevantSet("example.com", (ONE,))}
    assert records.asked == ["a.b.example.com", "b.example.com", "example.com"]


@pytest.mark.requirement("CAA-M1")
async def test_the_climb_ends_below_the_root() -> None:
    records = ScriptedCAA()
    assert await CAALookup(records.caa).find_relevant(["www.example.com"]) == {"www.example.com": RelevantSet()}
    assert records.asked == ["www.example.com", "example.com", "com"]


@pytest.mark.requirement("SEC53")
async def test_every_name_gets_its_own_records_and_none_is_asked_for_twice() -> None:
    # Boulder, 2020-02-29: one name of an order was checked as often as the order had names.
    records = ScriptedCAA({"a.example.com": [ONE], "b.example.com": [TWO], "c.example.com": "SERVFAIL"})
    names = [f"{letter}.example.com" for letter in "abcde"]
    found = await CAALookup(records.caa).find_relevant(names)
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
    found = await CAALookup(records.caa).find_relevant(["a.example.com", "b.example.com"])
    assert set(found.values()) == {RelevantSet("example.com", failure="SERVFAIL")}


async def test_nothing_is_remembered() -> None:
    records = ScriptedCAA({"a.example": [ONE]})
    lookup = CAALookup(records.caa)
    await lookup.find_relevant(["a.example"])
    records.properties["a.example"] = [TWO]
    assert (await lookup.find_relevant(["a.example"]))["a.example"].properties == (TWO,)


@pytest.mark.requirement("CAA-M5", "SEC54")
async def test_lookups_that_take_too_long_are_failures_and_those_in_time_count() -> None:
    records = ScriptedCAA({"a.example": [ONE]})

    async def caa(name: str) -> Records[Property]:
        if name == "b.example":
            await asyncio.Event().wait()
        return await records.caa(name)

    found = await CAALookup(caa, deadline=0.1).find_relevant(["a.example", "b.example"])
    assert found["a.example"] == RelevantSet("a.example", (ONE,))
    assert found["b.example"] == RelevantSet(failure="they took longer than 0.1 seconds")


async def test_a_check_that_is_cancelled_leaves_nothing_behind() -> None:
    records = ScriptedCAA(gate=asyncio.Event())
    task = asyncio.create_task(CAALookup(records.caa).find_relevant([f"{number}.example" for number in range(50)]))
    await until(lambda: len(records.asked) >= 10)
    assert len(records.asked) == 10  # at a time
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
        found = await lookup.find_relevant(["www.example.com", "alias.example.org", "a.broken.example"])
    assert found["www.example.com"] == RelevantSet("example.com", (ONE,))
    assert found["alias.example.org"] == RelevantSet("alias.example.org", (TWO,))
    assert "SERVFAIL" in (found["a.broken.example"].failure or "")
