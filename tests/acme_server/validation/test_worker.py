from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from acme_server.metrics import Metrics
from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.orders import transitions
from acme_server.problems import NotFound, Refused, Unavailable
from acme_server.validation.attempt import CheckCAA, ValidationTiming
from acme_server.validation.shares import Limits
from acme_server.validation.worker import Worker
from kms.resources.meta import LocalRef
from kms.resources.orders import ACMEOrder, ChallengeType, StoredProblem
from tests.support.acmeorders import NOW, order
from tests.support.domain import Validator, counted, wrong
from tests.support.eventually import until

THUMBPRINT = "thumb"
SLOW = ValidationTiming(idle=0.2, hold=0.6, poll=0.6, retry_delays=(0.01, 0.01), retry_for=5.0)


def id_(position: int) -> ChallengeId:
    return ChallengeId(position, "http-01")


@dataclass
class Record:
    """What was written at one time."""

    outcomes: Mapping[ChallengeId, Outcome]
    running: Mapping[ChallengeId, StoredProblem | None]
    at: float


@dataclass
class Recording:
    """Keeps what is recorded, and fails as often as a test wants."""

    records: list[Record] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    begun: float = field(default_factory=time.monotonic)

    async def record(
        self,
        order: ACMEOrder,
        outcomes: Mapping[ChallengeId, Outcome],
        running: Mapping[ChallengeId, StoredProblem | None],
    ) -> ACMEOrder:
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.records.append(Record(dict(outcomes), dict(running), time.monotonic() - self.begun))
        settled = transitions.validated(order, outcomes, lifetime=timedelta(0), now=NOW)
        return transitions.begun(settled, running, attempt="server/1", now=NOW)


async def unchecked(_: ACMEOrder, __: ChallengeId, /) -> None:
    """CAA needs no check here."""


@dataclass
class Bench:
    """A worker, what it validates with, and what it records."""

    validator: Validator = field(default_factory=Validator)
    recording: Recording = field(default_factory=Recording)
    check_caa: CheckCAA = unchecked
    metrics: Metrics = field(default_factory=Metrics)
    timing: ValidationTiming = SLOW
    limits: dict[str, Any] = field(default_factory=dict)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        self.worker = Worker(
            validators={"http-01": self.validator},
            check_caa=self.check_caa,
            store_results=self.recording.record,
            clock=lambda: NOW,
            metrics=self.metrics,
            timing=self.timing,
            **self.limits,
        )

    def start(self, order: ACMEOrder, *positions: int, quiet: bool = False) -> None:
        for position in positions:
            self.worker.start(order, id_(position), THUMBPRINT, quiet=quiet)

    async def written(self, count: int = 1) -> None:
        await until(lambda: len(self.recording.records) >= count)


@pytest.mark.requirement("M144")
async def test_a_challenge_is_validated_with_its_token_and_the_key_of_the_account() -> None:
    bench = Bench()
    bench.start(order("a.example"), 0)
    await bench.written()
    assert bench.validator.asked == [("a.example", "token-0", "token-0.thumb")]
    assert bench.recording.records[0].outcomes == {id_(0): Valid(NOW)}
    assert counted(bench.metrics, "validation_duration_seconds") == {("http-01", "valid"): 1}
    await until(bench.worker.is_idle)
    assert len(bench.worker) == 0


async def test_an_order_whose_authorizations_are_all_answered_is_written_at_once_and_once() -> None:
    bench = Bench()
    pending = order("a.example", "b.example", "c.example")
    bench.start(pending, 0, 1, 2)
    await bench.written()
    assert bench.recording.records[0].at < SLOW.idle
    assert len(bench.recording.records[0].outcomes) == 3
    await bench.worker.drain(1)
    assert len(bench.recording.records) == 1


async def test_outcomes_wait_for_challenges_that_are_about_to_be_answered() -> None:
    bench = Bench()
    pending = order(*(f"{letter}.example" for letter in "abcdef"))
    for position in range(6):
        bench.start(pending, position)
        await asyncio.sleep(0.05)
    await bench.written()
    assert len(bench.recording.records[0].outcomes) == 6


async def test_outcomes_are_written_when_no_further_challenge_is_answered() -> None:
    bench = Bench()
    bench.start(order("a.example", "b.example"), 0)
    await bench.written()
    assert SLOW.idle <= bench.recording.records[0].at < SLOW.hold


async def test_outcomes_are_not_held_for_ever() -> None:
    bench = Bench(timing=ValidationTiming(idle=0.2, hold=0.3, poll=5))
    pending = order(*(f"{letter}.example" for letter in "abcdefghij"))
    for position in range(8):
        bench.start(pending, position)
        await asyncio.sleep(0.1)
    assert bench.recording.records[0].at < 0.5


async def test_a_client_that_asks_gets_what_is_finished_at_once() -> None:
    bench = Bench(timing=ValidationTiming(idle=5, hold=5, poll=5))
    pending = order("a.example", "b.example")
    bench.start(pending, 0)
    await bench.worker.settle(pending)
    assert bench.recording.records[0].outcomes == {id_(0): Valid(NOW)}
    assert bench.worker.running_challenges(pending) == {}


async def test_a_client_that_asks_waits_for_what_is_under_way_and_it_is_written_together() -> None:
    bench = Bench(Validator(seconds=0.2), timing=ValidationTiming(idle=5, hold=5, poll=2))
    pending = order("a.example", "b.example", "c.example")
    bench.start(pending, 0, 1)
    await bench.worker.settle(pending)
    assert [len(each.outcomes) for each in bench.recording.records] == [2]


@pytest.mark.requirement("C3")
async def test_a_client_that_asks_does_not_wait_longer_than_its_patience() -> None:
    bench = Bench(Validator(gate=asyncio.Event()), timing=ValidationTiming(idle=5, hold=5, poll=0.2))
    pending = order("a.example")
    bench.start(pending, 0)
    begun = time.monotonic()
    await bench.worker.settle(pending)
    assert 0.15 < time.monotonic() - begun < 4
    record = bench.recording.records[0]
    assert (record.outcomes, record.running) == ({}, {id_(0): None})
    assert bench.worker.running_challenges(pending) == {id_(0): None}
    await bench.worker.drain(0)


async def test_asking_about_an_order_without_validations_costs_no_time() -> None:
    bench = Bench()
    await bench.worker.settle(order())
    assert bench.worker.running_challenges(order()) == {}


async def test_what_takes_long_is_written_as_processing_once() -> None:
    gate = asyncio.Event()
    bench = Bench(Validator(gate=gate), timing=ValidationTiming(idle=0.05, hold=5, poll=0.1))
    bench.start(order("a.example", "b.example"), 0, 1)
    await bench.written()
    assert bench.recording.records[0].running == {id_(0): None, id_(1): None}
    await asyncio.sleep(0.3)
    assert len(bench.recording.records) == 1
    gate.set()
    await bench.written(2)
    assert set(bench.recording.records[1].outcomes) == {id_(0), id_(1)}


async def test_what_has_ended_is_shown_as_running_until_it_is_written() -> None:
    bench = Bench(timing=ValidationTiming(idle=5, hold=5, poll=5))
    pending = order("a.example", "b.example")
    bench.start(pending, 0)
    await until(lambda: bool(counted(bench.metrics, "validation_duration_seconds")))
    assert bench.worker.running_challenges(pending) == {id_(0): None}
    bench.start(pending, 0)  # asked for again: it is not validated again
    await bench.worker.settle(pending)
    assert len(bench.validator.asked) == 1


@pytest.mark.requirement("S145")
async def test_temporary_failures_are_tried_again_and_every_one_is_told() -> None:
    bench = Bench()
    bench.validator.failures["a.example"] = [wrong("first", temporary=True), wrong("second", temporary=True), None]
    bench.start(order("a.example"), 0)
    await bench.written()
    assert bench.recording.records[0].outcomes == {id_(0): Valid(NOW)}
    assert len(bench.validator.asked) == 3


@pytest.mark.requirement("S145")
async def test_failures_that_do_not_end_are_an_outcome_with_all_of_them() -> None:
    bench = Bench()
    bench.validator.failures["a.example"] = [wrong(word, temporary=True) for word in ("one", "two", "three")]
    bench.start(order("a.example"), 0)
    await bench.written()
    (outcome,) = bench.recording.records[0].outcomes.values()
    assert isinstance(outcome, Failed)
    assert outcome.problem.detail == "three (3 attempts)"
    assert [each.detail for each in outcome.problem.subproblems] == ["one", "two"]
    assert outcome.problem.subproblems[0].identifier is not None
    assert counted(bench.metrics, "validation_duration_seconds") == {("http-01", "unauthorized"): 1}


@pytest.mark.requirement("S145")
async def test_a_final_failure_is_not_tried_again() -> None:
    bench = Bench()
    bench.validator.failures["a.example"] = wrong("no")
    bench.start(order("a.example"), 0)
    await bench.written()
    assert len(bench.validator.asked) == 1


async def test_no_attempt_begins_after_the_time_for_all_of_them() -> None:
    bench = Bench(timing=ValidationTiming(idle=0.1, retry_delays=(0.05, 0.05, 30.0), retry_for=0.5))
    bench.validator.failures["a.example"] = wrong("no", temporary=True)
    bench.start(order("a.example"), 0)
    await bench.written()
    assert len(bench.validator.asked) == 3


@pytest.mark.requirement("S145")
async def test_a_client_that_answers_again_makes_the_next_attempt_at_once() -> None:
    bench = Bench(timing=ValidationTiming(idle=0.1, retry_delays=(4.0,), retry_for=10))
    bench.validator.failures["a.example"] = [wrong("no", temporary=True)]
    pending = order("a.example")
    bench.start(pending, 0)
    await until(lambda: len(bench.validator.asked) == 1)
    await asyncio.sleep(0.02)
    shown = bench.worker.running_challenges(pending)[id_(0)]
    assert shown is not None
    assert shown.detail == "no"
    bench.start(pending, 0)
    await bench.written()
    assert len(bench.validator.asked) == 2


async def test_a_validator_that_breaks_is_a_failure_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.validator.failures["a.example"] = ZeroDivisionError("secret")  # type: ignore[assignment]
    bench.start(order("a.example"), 0)
    await bench.written()
    (outcome,) = bench.recording.records[0].outcomes.values()
    assert isinstance(outcome, Failed)
    assert outcome.problem.type == "serverInternal"
    assert "secret" not in outcome.problem.detail
    assert "unexpected error during a validation" in caplog.text


async def test_the_failure_of_a_quiet_validation_is_forgotten() -> None:
    bench = Bench()
    bench.validator.failures["a.example"] = wrong("no")
    bench.start(order("a.example"), 0, quiet=True)
    assert bench.worker.running_challenges(order("a.example")) == {}
    await until(bench.worker.is_idle)
    assert bench.recording.records == []


async def test_the_success_of_a_quiet_validation_counts() -> None:
    bench = Bench()
    bench.start(order("a.example"), 0, quiet=True)
    await bench.written()
    assert bench.recording.records[0].outcomes == {id_(0): Valid(NOW)}


async def test_a_quiet_validation_that_is_asked_for_is_quiet_no_longer() -> None:
    gate = asyncio.Event()
    bench = Bench(Validator(gate=gate))
    bench.validator.failures["a.example"] = wrong("no")
    pending = order("a.example")
    bench.start(pending, 0, quiet=True)
    await until(lambda: len(bench.validator.asked) == 1)
    bench.start(pending, 0, quiet=True)
    assert bench.worker.running_challenges(pending) == {}
    bench.start(pending, 0)
    assert bench.worker.running_challenges(pending) == {id_(0): None}
    gate.set()
    await bench.written()
    assert len(bench.validator.asked) == 1


def of_account(account: str, *names: str, namespace: str = "pki", profile: str = "web") -> ACMEOrder:
    plain = order(*names)
    return msgspec.structs.replace(
        plain,
        metadata=msgspec.structs.replace(plain.metadata, name=f"order-of-{account}", namespace=namespace),
        spec=msgspec.structs.replace(
            plain.spec, account_ref=LocalRef(name=account), profile_ref=LocalRef(name=profile)
        ),
    )


def at_most(count: int, *, by_account: int) -> Limits:
    """Limits for tests with one profile."""
    return Limits(total=count, namespace=count, profile=count, tenant=count, account=by_account)


@pytest.mark.requirement("SEC52")
async def test_only_so_many_validations_use_the_network_at_once() -> None:
    gate = asyncio.Event()
    bench = Bench(Validator(gate=gate), limits={"in_flight": at_most(4, by_account=4)})
    for account in "abcdefgh":
        bench.start(of_account(account, f"{account}.example"), 0)
    await asyncio.sleep(0.05)
    assert len(bench.validator.asked) == 4
    gate.set()
    await bench.written(8)


async def test_an_account_whose_hosts_are_slow_does_not_keep_the_others_waiting() -> None:
    gate = asyncio.Event()
    bench = Bench(Validator(gate=gate), limits={"in_flight": at_most(8, by_account=2)})
    bench.start(of_account("slow", *(f"{letter}.example" for letter in "abcde")), *range(5))
    bench.start(of_account("other", "other.example"), 0)
    await asyncio.sleep(0.05)
    assert [name for name, _, _ in bench.validator.asked] == ["a.example", "b.example", "other.example"]
    gate.set()
    await bench.written(2)
    await until(bench.worker.is_idle)


@pytest.mark.requirement("S145", "S154", "SEC38")
async def test_an_account_cannot_fill_the_queue() -> None:
    bench = Bench(Validator(gate=asyncio.Event()), limits={"queued": at_most(10, by_account=2)})
    greedy = of_account("greedy", "a.example", "b.example", "c.example")
    with pytest.raises(Unavailable):
        bench.start(greedy, 0, 1, 2)
    bench.start(of_account("other", "other.example"), 0)
    assert len(bench.worker) == 3
    await bench.worker.drain(0)
    assert len(bench.worker) == 0


async def test_all_validations_of_an_order_are_made_even_if_not_all_at_once() -> None:
    gate = asyncio.Event()
    bench = Bench(Validator(gate=gate), limits={"in_flight": at_most(2, by_account=1)})
    bench.start(order(*(f"{letter}.example" for letter in "abcde")), *range(5))
    await asyncio.sleep(0.05)
    assert len(bench.validator.asked) == 1
    gate.set()
    await bench.written()
    assert len(bench.recording.records[0].outcomes) == 5


async def test_more_than_can_be_queued_is_sent_away() -> None:
    bench = Bench(Validator(gate=asyncio.Event()), limits={"queued": at_most(3, by_account=3)})
    pending = order(*(f"{letter}.example" for letter in "abcde"))
    with pytest.raises(Unavailable):
        bench.start(pending, *range(5))
    assert len(bench.worker) == 3
    await bench.worker.drain(0)


async def test_outcomes_wait_for_an_api_server_that_is_away() -> None:
    bench = Bench(timing=replace(SLOW, store_delays=(0.01, 0.02)))
    bench.recording.failures = [Unavailable("away")] * 5
    pending = order("a.example")
    bench.start(pending, 0)
    await bench.written()
    assert bench.recording.records[0].outcomes == {id_(0): Valid(NOW)}


async def test_outcomes_do_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(timing=replace(SLOW, store_delays=(0.01,), store_for=0.05))
    bench.recording.failures = [Unavailable("away")] * 100
    bench.start(pending := order("a.example"), 0)
    await until(bench.worker.is_idle)
    assert "API server is unavailable; discarding validation results" in caplog.text
    assert bench.worker.take_discarded(pending) == (id_(0),)
    assert bench.worker.take_discarded(pending) == ()


@pytest.mark.parametrize("failure", [NotFound(), ZeroDivisionError()])
async def test_outcomes_that_can_never_be_written_are_dropped(failure: Refused | ZeroDivisionError) -> None:
    bench = Bench()
    bench.recording.failures = [failure]
    bench.start(order("a.example"), 0)
    await until(bench.worker.is_idle)
    assert bench.recording.records == []


async def test_draining_finishes_what_was_begun_and_begins_nothing() -> None:
    bench = Bench(Validator(seconds=0.1), timing=ValidationTiming(idle=5, hold=5, poll=5))
    pending = order("a.example", "b.example")
    bench.start(pending, 0)
    draining = asyncio.create_task(bench.worker.drain(2))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        bench.start(pending, 1)
    await draining
    assert bench.recording.records[0].outcomes == {id_(0): Valid(NOW)}


async def test_draining_ends_in_time() -> None:
    bench = Bench(Validator(gate=asyncio.Event()))
    bench.start(order("a.example"), 0)
    begun = time.monotonic()
    await bench.worker.drain(0.1)
    assert time.monotonic() - begun < 10
    assert bench.worker.is_idle()


async def test_draining_without_work_ends_at_once() -> None:
    await Bench().worker.drain(5)


@pytest.mark.requirement("SEC50")
async def test_a_type_that_nobody_validates_cannot_become_valid() -> None:
    bench = Bench()
    types: tuple[ChallengeType, ...] = ("http-01", "dns-01", "tls-alpn-01")
    assert [bench.worker.validates(each) for each in types] == [True, False, False]


async def test_a_later_batch_of_the_same_order_is_a_new_one() -> None:
    bench = Bench(timing=ValidationTiming(idle=0.05, hold=1, poll=1))
    pending = order("a.example", "b.example")
    bench.start(pending, 0)
    await bench.written()
    await until(bench.worker.is_idle)
    later = transitions.validated(pending, bench.recording.records[0].outcomes, lifetime=timedelta(0), now=NOW)
    bench.start(later, 1)
    await bench.written(2)
    assert bench.recording.records[1].outcomes == {id_(1): Valid(NOW)}


async def test_a_challenge_answered_while_outcomes_are_written_is_not_lost() -> None:
    slow = asyncio.Event()
    bench = Bench(recording=Recording(gate=slow), timing=ValidationTiming(idle=0.02, hold=1, poll=1))
    pending = order("a.example", "b.example")
    bench.start(pending, 0)
    await asyncio.sleep(0.1)
    bench.start(pending, 1)
    await asyncio.sleep(0.05)
    slow.set()
    await bench.written(2)
    assert [list(each.outcomes) for each in bench.recording.records] == [[id_(0)], [id_(1)]]


async def test_a_client_that_asks_about_what_is_written_as_processing_waits_as_long_as_its_patience() -> None:
    bench = Bench(Validator(gate=asyncio.Event()), timing=ValidationTiming(idle=5, hold=5, poll=0.1))
    pending = order("a.example")
    bench.start(pending, 0)
    await bench.worker.settle(pending)
    begun = time.monotonic()
    await asyncio.gather(bench.worker.settle(pending), bench.worker.settle(pending))
    assert time.monotonic() - begun > 0.1
    assert len(bench.recording.records) == 1
    await bench.worker.drain(0)


async def test_a_client_that_asks_while_others_are_under_way_gets_what_is_finished_in_time() -> None:
    bench = Bench(timing=ValidationTiming(idle=5, hold=5, poll=0.2, retry_delays=(3.0,)))
    bench.validator.failures["b.example"] = [wrong("no", temporary=True)] * 9
    pending = order("a.example", "b.example")
    bench.start(pending, 0, 1)
    await bench.worker.settle(pending)
    record = bench.recording.records[0]
    assert record.outcomes == {id_(0): Valid(NOW)}
    problem = record.running[id_(1)]
    assert problem is not None
    assert problem.detail == "no"
    await bench.worker.drain(0)
