"""Looks at the issuers of external CAs: how often, how long, and what happens to what was found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kms.cluster.errors import Forbidden, Unavailable
from kms.resources.authorities import CertificateAuthority
from kms.resources.meta import Key
from kms_operator.observation import MINUTE, Look, Observation
from kms_operator.observer import Observer
from kms_operator.queue import WorkQueue
from tests.support.eventually import in_background, until
from tests.support.operated import NOW, authority

READY = Observation("True", "IssuerReady", "ready")
MISSING = Observation("False", "IssuerNotFound", "missing")
SIGNER = {"signer": {"name": "example.com/web"}}


def corporate(name: str = "corporate", *, generation: int = 1, **more: Any) -> CertificateAuthority:
    return authority(name, external=SIGNER, generation=generation, **more)


class Script:
    """A look that answers as it is told, and notes what it was asked."""

    def __init__(self, *answers: Observation | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int, Observation | None]] = []

    async def look(self, one: CertificateAuthority, last: Observation | None) -> Observation:
        self.asked.append((one.metadata.name, one.metadata.generation, last))
        answer = self.answers.pop(0) if self.answers else READY
        if isinstance(answer, Exception):
            raise answer
        return answer


class Observing:
    def __init__(self, observer: Observer, told: list[Key]) -> None:
        self.observer = observer
        self.told = told

    def found(self, one: CertificateAuthority) -> Any:
        return self.observer.observations.get(one.metadata.uid)


@asynccontextmanager
async def observing(looks: Mapping[Any, Look], **more: Any) -> AsyncIterator[Observing]:
    told: list[Key] = []
    queue: WorkQueue[Key] = WorkQueue(group=lambda key: key[0], min_retry_seconds=0.001, max_retry_seconds=0.01)
    observer = Observer(looks, clock=lambda: NOW, on_observed=told.append, queue=queue, **more)
    async with in_background(observer.run()):
        yield Observing(observer, told)


async def test_a_look_is_kept_with_its_generation_and_told() -> None:
    script, one = Script(MISSING, MISSING, READY), corporate()
    async with observing({"Signer": script.look}) as running:
        for failures in (1, 2, 0):
            running.told.clear()
            running.observer.add(one)
            await until(lambda: running.told)
            found = running.found(one)
            assert (found.generation, found.failures, found.due) == (1, failures, NOW + MINUTE)
            assert running.told == [("pki", "corporate")]
    assert [last for *_, last in script.asked] == [None, MISSING, MISSING]


async def test_a_new_generation_is_looked_at_afresh() -> None:
    script = Script(MISSING, MISSING)
    async with observing({"Signer": script.look}) as running:
        running.observer.add(corporate())
        await until(lambda: len(running.told) == 1)
        running.observer.add(corporate(generation=2))
        await until(lambda: len(running.told) == 2)
        found = running.found(corporate())
    assert (found.generation, found.failures) == (2, 1)
    assert script.asked[1] == ("corporate", 2, None)


async def test_a_look_that_is_under_way_is_not_repeated_but_for_a_new_generation() -> None:
    begun, go_on, asked = asyncio.Event(), asyncio.Event(), []

    async def slow(one: CertificateAuthority, last: Observation | None) -> Observation:
        asked.append(one.metadata.generation)
        begun.set()
        await go_on.wait()
        return READY

    async with observing({"Signer": slow}) as running:
        running.observer.add(corporate())
        await begun.wait()
        running.observer.add(corporate())
        running.observer.add(corporate(generation=2))
        running.observer.add(corporate(generation=2))
        go_on.set()
        await until(lambda: len(running.told) == 2)
        found = running.found(corporate())
    assert (asked, found.generation) == ([1, 2], 2)


async def test_an_api_server_that_is_away_changes_nothing_and_is_asked_again() -> None:
    script = Script(Unavailable("away"), Unavailable("away"), READY)
    async with observing({"Signer": script.look}) as running:
        running.observer.add(corporate())
        await until(lambda: len(running.told) == 1)
        assert running.found(corporate()).latest == READY
    assert len(script.asked) == 3


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Forbidden("no right"), "the API server refused what the operator asked: no right"),
        (RuntimeError("a bug"), "the operator could not look at the issuer; its log says why"),
    ],
)
async def test_an_error_is_an_observation_and_stops_no_other_look(error: Exception, says: str) -> None:
    script = Script(error)
    async with observing({"Signer": script.look}, workers=1) as running:
        running.observer.add(corporate())
        running.observer.add(corporate("other"))
        await until(lambda: len(running.told) == 2)
        found = running.found(corporate()).latest
        assert running.found(corporate("other")).latest == READY
    assert (found.status, found.reason, found.message) == ("False", "ObservationFailed", says)


async def test_a_look_without_an_end_is_given_up() -> None:
    async def never(one: CertificateAuthority, last: Observation | None) -> Observation:
        await asyncio.Event().wait()
        raise AssertionError

    async with observing({"Signer": never}, deadline=0.01) as running:
        running.observer.add(corporate())
        await until(lambda: len(running.told) == 1)
        found = running.found(corporate()).latest
    assert (found.status, found.reason, found.message) == ("False", "Unreachable", "no answer within 0.01 seconds")


async def test_one_namespace_with_slow_issuers_does_not_hold_up_the_others() -> None:
    async def slow(one: CertificateAuthority, last: Observation | None) -> Observation:
        if one.metadata.namespace == "slow":
            await asyncio.sleep(0.02)
        return READY

    async with observing({"Signer": slow}, workers=1) as running:
        for number in range(50):
            running.observer.add(corporate(f"n{number}", namespace="slow"))
        running.observer.add(corporate())
        await until(lambda: ("pki", "corporate") in running.told)
    assert running.told.index(("pki", "corporate")) <= 2


async def test_nothing_is_kept_of_a_ca_that_was_deleted() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(one: CertificateAuthority, last: Observation | None) -> Observation:
        begun.set()
        await go_on.wait()
        return READY

    async with observing({"Signer": slow}, workers=1) as running:
        running.observer.add(corporate())
        await begun.wait()
        running.observer.forget(corporate().metadata.uid)
        go_on.set()
        running.observer.add(corporate("other"))
        await until(lambda: len(running.told) == 1)
        assert running.told == [("pki", "other")]
        assert running.found(corporate()) is None


async def test_a_type_that_this_operator_does_not_know_is_told() -> None:
    async with observing({}) as running:
        running.observer.add(corporate())
        await until(lambda: len(running.told) == 1)
        assert running.found(corporate()).latest.status == "False"
