from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.model import ChallengeId
from acme_server.orders import recovery, transitions
from acme_server.orders.recovery import Recovery
from kms.resources.orders import ACMEOrder
from tests.support.acmeorders import NOW, order

FIRST, SECOND = ChallengeId(0, "http-01"), ChallengeId(1, "http-01")


class Life:
    """A process that began at NOW, and the time in it."""

    def __init__(self, *, sole_writer: bool = True, gone: frozenset[str] = frozenset(), remembered: int = 10) -> None:
        self.now = NOW
        self.recovery = Recovery(
            replica="server-0",
            life="2",
            clock=lambda: self.now,
            is_sole_writer=lambda: sole_writer,
            is_gone=lambda each: each in gone,
            remembered=remembered,
        )


def processing(attempt: str, *names: str) -> ACMEOrder:
    return transitions.begun(order(*names), {FIRST: None}, attempt=attempt, now=NOW)


@pytest.mark.parametrize(
    ("attempt", "seconds", "lost"),
    [
        ("server-0/2", 0, True),  # ours, but the worker does not know it: given up
        ("server-0/1", 0, True),
        ("server-1/1", 0, False),
        ("server-1/1", 31, True),
        ("server-2/1", 0, True),
        ("", 0, False),
    ],
)
def test_a_validation_is_lost_with_its_process_or_after_a_while(attempt: str, seconds: float, lost: bool) -> None:
    life = Life(gone=frozenset({"server-2"}))
    life.now += timedelta(seconds=seconds)
    expected = ((FIRST, False),) if lost else ()
    assert life.recovery.find_lost(processing(attempt, "a.example", "b.example"), ()) == expected
    assert life.recovery.find_lost(processing(attempt), (FIRST,)) == ()


def test_a_validation_that_never_said_when_it_began_is_lost() -> None:
    stored = processing("server-1/1")
    authorization = stored.status.authorizations[0]
    challenge = replace(authorization.challenges[0], started=None)
    assert Life().recovery.is_lost(challenge)
    assert not Life().recovery.is_lost(replace(challenge, state="pending"))


def test_an_older_order_is_tried_once_and_quietly() -> None:
    life = Life()
    old = order("a.example", "b.example", created=NOW - timedelta(minutes=1))
    assert life.recovery.find_lost(old, ()) == ((FIRST, True), (SECOND, True))
    assert life.recovery.find_lost(old, ()) == ()


def test_an_order_of_this_life_is_not_tried_unasked() -> None:
    assert Life().recovery.find_lost(order(created=NOW + timedelta(seconds=1)), ()) == ()


def test_a_response_may_have_been_lost_with_another_server() -> None:
    among_others, alone = Life(sole_writer=False), Life()
    young = order("a.example", created=NOW + timedelta(seconds=1))
    for life in (among_others, alone):
        life.now = NOW + timedelta(seconds=20)
        assert life.recovery.find_lost(young, ()) == ()
        life.now = NOW + timedelta(seconds=40)
    assert alone.recovery.find_lost(young, ()) == ()
    assert among_others.recovery.find_lost(young, ()) == ((FIRST, True),)
    assert among_others.recovery.find_lost(young, ()) == ()


def test_an_order_that_nobody_has_stored_is_not_tried_unasked() -> None:
    plain = order()
    assert (
        Life().recovery.find_lost(replace(plain, metadata=replace(plain.metadata, creation_timestamp=None)), ()) == ()
    )


def test_an_order_that_is_being_worked_on_is_not_tried_unasked() -> None:
    old = order("a.example", "b.example", created=NOW - timedelta(minutes=1))
    assert Life().recovery.find_lost(old, (FIRST,)) == ()
    elsewhere = transitions.begun(old, {FIRST: None}, attempt="server-1/1", now=NOW)
    assert Life().recovery.find_lost(elsewhere, ()) == ()


def test_what_was_tried_is_remembered_in_bounded_memory() -> None:
    life = Life(remembered=2)
    old = order(created=NOW - timedelta(minutes=1))
    named = [replace(old, metadata=replace(old.metadata, name=f"order-{number}")) for number in range(3)]
    assert all(life.recovery.find_lost(each, ()) for each in named)
    assert life.recovery.find_lost(named[2], ()) == ()
    assert life.recovery.find_lost(named[0], ()) != ()


def test_other_replicas_are_not_known_to_be_gone_by_default() -> None:
    assert not recovery.never_gone("server-1")
