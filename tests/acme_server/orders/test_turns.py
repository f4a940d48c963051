from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.orders.turns import Turns

pytestmark = pytest.mark.requirement("X26")


def key(number: int) -> tuple[str, str]:
    return "pki", f"order-{number}"


def test_a_place_goes_to_whoever_came_first() -> None:
    turns = Turns()
    assert [turns.has_turn("ca", key(each), f"a{each}", maximum=2) for each in range(4)] == [True, True, False, False]
    assert turns.leave(key(0)) == (key(2),)
    assert turns.has_turn("ca", key(2), "a2", maximum=2)
    assert not turns.has_turn("ca", key(3), "a3", maximum=2)


def test_whoever_fills_a_ca_leaves_places_for_others() -> None:
    """Before there were shares, the thousandth order of one account waited before the first of another."""
    turns = Turns()
    greedy = [turns.has_turn("ca", key(each), "greedy", maximum=50) for each in range(1_000)]
    assert sum(greedy) == 25
    assert [turns.has_turn("ca", key(2_000 + each), f"a{each}", maximum=50) for each in range(10)] == [True] * 10


def test_cas_have_lines_of_their_own() -> None:
    turns = Turns()
    assert turns.has_turn("ca", key(1), "a", maximum=1)
    assert turns.has_turn("other", key(2), "a", maximum=1)


def test_an_order_that_was_not_in_line_may_leave() -> None:
    assert Turns().leave(key(1)) == ()


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from("abc"), st.booleans()), max_size=40),
)
def test_no_more_than_the_maximum_have_a_turn_and_nobody_waits_while_he_may_have_one(
    maximum: int, steps: list[tuple[int, str, bool]]
) -> None:
    turns, active, standing = Turns(), set[int](), dict[int, str]()
    for number, holder, leaves in steps:
        if leaves:
            active.discard(number)
            standing.pop(number, None)
            active.update(int(name.rpartition("-")[2]) for _, name in turns.leave(key(number)))
        else:
            had = number in active
            if turns.has_turn("ca", key(number), standing.setdefault(number, holder), maximum=maximum):
                active.add(number)
            else:
                assert not had
        assert len(active) <= maximum
        assert active or not standing
