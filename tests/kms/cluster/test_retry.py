from __future__ import annotations

import asyncio

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kms.cluster.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Delivery,
    Forbidden,
    Invalid,
    NotFound,
    Unavailable,
    Unserved,
)
from kms.cluster.retry import RESERVE, SHARE, TRIES, Attempts, Backoff, Budget, Call

READS = ("get", "list")
WRITES = ("create", "update", "patch", "delete")
PATIENCE = 6.0

REFUSALS = (AlreadyExists, Conflict, Forbidden, Invalid, NotFound)
deliveries = st.sampled_from(Delivery)
verbs = st.sampled_from((*READS, *WRITES, "watch"))
seconds = st.floats(0, 20)
unavailables = st.builds(
    lambda delivery, retry_after: Unavailable("no", retry_after, delivery=delivery),
    deliveries,
    st.none() | st.integers(0, 8).map(float),
)
failures = unavailables | st.sampled_from(REFUSALS).map(lambda each: each("refused")) | st.just(Unserved("no CRD"))
randoms = st.floats(0, 1, exclude_max=True)


def call(verb: str, *, budget: Budget | None = None, random: float = 0.0) -> Call:
    return Call(verb, budget or Budget(), patience=PATIENCE, random=lambda: random)


def failed(delivery: Delivery, retry_after: float | None = None) -> Unavailable:
    return Unavailable("no", retry_after, delivery=delivery)


def is_given_up(attempts: Call, error: ClusterError, elapsed: float = 0.0) -> ClusterError | None:
    """What the caller is told; None where the request is sent again."""
    try:
        attempts.pause(error, elapsed)
    except ClusterError as told:
        return told
    return None


AGAIN = {
    Delivery.NOT_BEGUN: {*READS, *WRITES},
    Delivery.IN_DOUBT: {*READS, "create", "update", "patch"},
    Delivery.CONNECTION_LOST: {*READS},
    Delivery.UNKNOWN: set(),
}


@pytest.mark.parametrize("verb", [*READS, *WRITES, "watch"])
@pytest.mark.parametrize("delivery", Delivery)
def test_what_is_known_of_a_request_decides_whether_it_is_sent_again(delivery: Delivery, verb: str) -> None:
    error = failed(delivery, 1.0)
    assert is_given_up(call(verb), error) is (None if verb in AGAIN[delivery] else error)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("verb", [*READS, *WRITES])
def test_a_refusal_is_an_answer(verb: str, refusal: type[ClusterError]) -> None:
    error = refusal("refused")
    assert is_given_up(call(verb), error) is error


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("verb", ["create", "update", "patch"])
def test_what_a_write_is_refused_for_after_one_in_doubt_is_not_passed_on(
    verb: str, refusal: type[ClusterError]
) -> None:
    attempts, doubt = call(verb), failed(Delivery.IN_DOUBT, 1.0)
    assert is_given_up(attempts, doubt) is None
    assert is_given_up(attempts, failed(Delivery.NOT_BEGUN, 1.0)) is None
    assert is_given_up(attempts, refusal("refused")) is doubt


@pytest.mark.parametrize("verb", READS)
def test_a_read_is_never_in_doubt(verb: str) -> None:
    attempts, refused = call(verb), NotFound("refused")
    assert is_given_up(attempts, failed(Delivery.IN_DOUBT, 1.0)) is None
    assert is_given_up(attempts, refused) is refused


def test_a_write_that_was_not_touched_is_not_in_doubt() -> None:
    attempts, refused = call("create"), AlreadyExists("refused")
    assert is_given_up(attempts, failed(Delivery.NOT_BEGUN)) is None
    assert is_given_up(attempts, refused) is refused


def test_pauses_grow_and_come_on_top_of_what_was_asked_for() -> None:
    attempts = call("get")
    pauses = [attempts.pause(failed(Delivery.NOT_BEGUN, asked), 0.0) for asked in (None, 0.0, 1.0, 2.0)]
    assert pauses == pytest.approx([0.1, 0.2, 1.4, 2.8])


def test_after_five_attempts_it_is_over() -> None:
    attempts, error = call("get"), failed(Delivery.NOT_BEGUN)
    assert [is_given_up(attempts, error) for _ in range(TRIES)] == [None] * (TRIES - 1) + [error]


@pytest.mark.parametrize(("asked_for", "elapsed"), [(60.0, 0.0), (5.0, 0.95), (None, 5.95)])
def test_who_asks_for_more_patience_than_there_is_gets_none(asked_for: float | None, elapsed: float) -> None:
    error = failed(Delivery.NOT_BEGUN, asked_for)
    assert is_given_up(call("get"), error, elapsed) is error


def test_an_api_server_that_shuts_down_is_waited_for() -> None:
    assert call("create").pause(failed(Delivery.NOT_BEGUN, 5.0), 0.5) == pytest.approx(5.1)


def test_all_calls_share_one_budget() -> None:
    budget, error = Budget(), failed(Delivery.NOT_BEGUN)
    told = [is_given_up(call("get", budget=budget), error) for _ in range(RESERVE + 2)]
    assert told == [None] * RESERVE + [error] * 2


def test_a_call_that_is_not_sent_again_anyway_costs_nothing() -> None:
    budget = Budget()
    for _ in range(2 * RESERVE):
        assert is_given_up(call("create", budget=budget), failed(Delivery.CONNECTION_LOST)) is not None
        assert is_given_up(call("get", budget=budget), failed(Delivery.NOT_BEGUN, 60.0)) is not None
    assert budget.spend()


@given(st.lists(st.booleans(), max_size=300))
def test_repetitions_are_never_more_than_the_reserve_and_half_of_what_succeeds(succeeds: list[bool]) -> None:
    budget, repeated = Budget(), 0
    for each in succeeds:
        if each:
            budget.earn()
        else:
            repeated += budget.spend()
    assert repeated <= RESERVE + SHARE * sum(succeeds)


@given(st.integers(0, 200))
def test_a_long_quiet_time_saves_up_no_more_than_the_reserve(successes: int) -> None:
    budget = Budget()
    for _ in range(successes):
        budget.earn()
    assert sum(budget.spend() for _ in range(RESERVE + 200)) == RESERVE


@given(verbs, st.lists(failures, min_size=1, max_size=10), randoms)
def test_no_call_goes_on_for_longer_than_it_may(verb: str, errors: list[ClusterError], random: float) -> None:
    attempts, elapsed, again = call(verb, random=random), 0.0, 0
    for error in errors:
        try:
            pause = attempts.pause(error, elapsed)
        except ClusterError:
            break
        assert pause > 0
        assert isinstance(error, Unavailable)
        assert pause >= (error.retry_after or 0)
        elapsed, again = elapsed + pause, again + 1
    assert elapsed <= PATIENCE
    assert again < TRIES


@given(verbs, st.lists(failures, min_size=1, max_size=10))
def test_no_write_is_told_a_reason_of_its_own_making(verb: str, errors: list[ClusterError]) -> None:
    """The oracle is a server on which every attempt that was not told to be untouched has happened."""
    attempts, may_have_happened = call(verb), False
    for error in errors:
        told = is_given_up(attempts, error)
        if told is not None:
            assert isinstance(told, Unavailable) or (told is error and (verb in READS or not may_have_happened))
            return
        assert isinstance(error, Unavailable)
        may_have_happened = may_have_happened or error.delivery is not Delivery.NOT_BEGUN


@given(verbs, failures, seconds)
def test_the_caller_is_told_what_happened(verb: str, error: ClusterError, elapsed: float) -> None:
    told = is_given_up(call(verb), error, elapsed)
    assume(told is not None)
    assert told is error


async def pauses_of(random: float, tries: int = 5) -> list[float]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert [each async for each in Attempts(tries=tries, sleep=sleep, random=lambda: random)] == list(range(tries))
    return slept


async def test_a_loop_that_is_left_early_leaves_nothing_to_do() -> None:
    """Before: one task for each change of an order or account, to close the generator."""
    before = asyncio.all_tasks()
    async for _ in Attempts():
        break
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_the_first_attempt_does_not_wait() -> None:
    assert await pauses_of(0.5, tries=1) == []


async def test_pauses_lie_between_10_and_200_milliseconds_and_grow() -> None:
    assert await pauses_of(0.0) == pytest.approx([0.020, 0.040, 0.080, 0.160])
    assert await pauses_of(1.0) == pytest.approx([0.010, 0.020, 0.040, 0.080])
    assert max(await pauses_of(0.0, tries=8)) == 0.200


@given(randoms, st.integers(1, 50))
def test_a_backoff_never_leaves_half_a_second_to_30_seconds(random: float, failures: int) -> None:
    backoff = Backoff(random=lambda: random)
    waits = [backoff.next() for _ in range(failures)]
    assert waits == sorted(waits)
    assert waits[0] <= 1
    assert all(0.5 <= each <= 30 for each in waits)


def test_a_backoff_begins_again_after_success() -> None:
    backoff = Backoff(random=lambda: 0.0)
    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 1
