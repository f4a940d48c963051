import gc
import re
import resource
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acme_server.nonces import LIFETIME, Nonces
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.sessions import Seen
from kms.clock import system_entropy

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SECRET = b"n" * 32


class Time:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def replica(time: Callable[[], datetime], secret: bytes = SECRET, **options: int) -> Nonces:
    nonces = Nonces(clock=time, entropy=system_entropy, **options)
    nonces.use(secret)
    return nonces


def refusal(nonces: Nonces, text: str) -> ProblemType:
    with pytest.raises(Refused) as refused:
        nonces.read(text)
    return refused.value.type


@pytest.mark.requirement("M34", "SEC19")
def test_a_nonce_is_good_once() -> None:
    nonces = replica(Time())
    nonce = nonces.read(nonces.issue())
    assert [nonces.redeem(nonce) for _ in range(100)] == [True] + 99 * [False]


def test_nonces_may_be_used_in_any_order() -> None:
    nonces = replica(Time())
    issued = [nonces.read(nonces.issue()) for _ in range(10_000)]
    assert all(nonces.redeem(each) for each in reversed(issued))
    assert not any(nonces.redeem(each) for each in issued)


@pytest.mark.requirement("SEC21", "C16")
def test_a_nonce_is_good_for_an_hour_and_not_longer() -> None:
    time = Time()
    nonces = replica(time)
    one, other = nonces.read(nonces.issue()), nonces.read(nonces.issue())
    time.pass_(LIFETIME)
    assert nonces.redeem(one)
    time.pass_(1)
    assert not nonces.redeem(other)


@pytest.mark.requirement("M34", "SEC19")
def test_what_was_used_stays_used_when_the_clock_is_set_back() -> None:
    time = Time()
    nonces = replica(time)
    used = nonces.read(nonces.issue())
    assert nonces.redeem(used)
    time.pass_(LIFETIME + 1)
    for _ in range(5000):  # a later chunk, so that the first one is dropped
        nonces.issue()
    assert nonces.redeem(nonces.read(nonces.issue()))
    time.now = START
    assert not nonces.redeem(used)


@pytest.mark.requirement("M34", "SEC19")
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2000), st.booleans()), max_size=60))
def test_no_nonce_is_ever_good_twice(steps: list[tuple[int, int, bool]]) -> None:
    time = Time()
    nonces = replica(time, chunk=8)
    issued, used = [nonces.read(nonces.issue())], set()
    for which, seconds, many in steps:
        for _ in range(8 if many else 0):  # the rest of a chunk
            nonces.issue()
        issued.append(nonces.read(nonces.issue()))
        time.pass_(seconds)
        nonce = issued[which % len(issued)]
        fresh = nonce.issued + LIFETIME >= int(time.now.timestamp()) and nonce.text not in used
        assert nonces.redeem(nonce) is fresh
        used.add(nonce.text) if fresh else None


def test_nonces_of_other_replicas_are_known_but_not_redeemed_here() -> None:
    time = Time()
    one, other = replica(time), replica(time)
    nonce = other.read(one.issue())
    assert nonce.replica == one.replica
    assert not other.redeem(nonce)
    assert one.redeem(nonce)


@pytest.mark.requirement("M33", "SEC19")
def test_nonces_of_an_earlier_life_are_not_good() -> None:
    time = Time()
    text = replica(time).issue()
    later = replica(time)
    assert not later.redeem(later.read(text))


def test_a_new_secret_leaves_nonces_good_and_an_older_one_does_not() -> None:
    nonces = replica(Time())
    first = nonces.issue()
    nonces.use(b"2" * 32)
    second = nonces.issue()
    assert nonces.redeem(nonces.read(first))
    nonces.use(b"3" * 32)
    assert refusal(nonces, first) is ProblemType.BAD_NONCE
    assert nonces.redeem(nonces.read(second))


def test_the_same_secret_again_changes_nothing() -> None:
    nonces = replica(Time())
    text = nonces.issue()
    for _ in range(3):
        nonces.use(SECRET)
        nonces.use(b"")
    assert nonces.redeem(nonces.read(text))


def test_without_a_secret_there_are_no_nonces() -> None:
    nonces = Nonces(clock=Time(), entropy=system_entropy)
    assert not nonces.ready
    for use in (nonces.issue, lambda: nonces.read("AAAA"), lambda: nonces.derive_key(b"x")):
        with pytest.raises(Unavailable):
            use()


def test_keys_derived_for_other_uses_are_shared_and_differ() -> None:
    time = Time()
    one, other = replica(time), replica(time)
    assert one.derive_key(b"a") == other.derive_key(b"a") != one.derive_key(b"b")


@pytest.mark.requirement("M33")
def test_every_change_of_a_nonce_makes_it_unknown() -> None:
    nonces = replica(Time())
    text = nonces.issue()
    for position, old in enumerate(text):
        for new in "A_":
            if new != old:
                assert refusal(nonces, text[:position] + new + text[position + 1 :]) is ProblemType.BAD_NONCE
    assert refusal(nonces, text[:-4]) is ProblemType.BAD_NONCE
    assert refusal(nonces, text + "AAAA") is ProblemType.BAD_NONCE


@pytest.mark.requirement("M33", "M34")
@settings(deadline=None, max_examples=10)
@given(st.integers(1, 2**48 - 1), st.integers(0, 2**24 - 1))
def test_a_nonce_says_what_its_client_had_seen_and_cannot_be_changed(version: int, tag: int) -> None:
    nonces = replica(Time())
    nonces.carry_seen = True
    text = nonces.issue(Seen(version, tag))
    assert re.fullmatch(r"[A-Za-z0-9_-]{56}", text)
    nonce = replica(Time()).read(text)
    assert nonce.seen == (version, tag)
    assert [nonces.redeem(nonce) for _ in range(2)] == [True, False]
    for position, old in enumerate(text):
        forged = text[:position] + ("A" if old != "A" else "B") + text[position + 1 :]
        assert refusal(nonces, forged) is ProblemType.BAD_NONCE
    for forged in (text[:44], text[:20] + text[32:], text[-44:], text + text[:4]):
        assert refusal(nonces, forged) is ProblemType.BAD_NONCE


def test_nonces_stay_short_where_there_is_nothing_to_say_or_nobody_to_read_it() -> None:
    nonces = replica(Time())
    alone = nonces.issue(Seen(7, 7))
    nonces.carry_seen = True
    for text in (alone, nonces.issue(), nonces.issue(Seen(2**48, 7))):
        assert len(text) == 44
        assert nonces.read(text).seen is None


@pytest.mark.requirement("M38")
@pytest.mark.parametrize("text", ["=", "AA==", "a b", "é", "A", "+/"])
def test_what_is_not_base64url_is_malformed(text: str) -> None:
    assert refusal(replica(Time()), text) is ProblemType.MALFORMED


@pytest.mark.requirement("SEC40")
@given(st.text(max_size=120))
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    assert refusal(replica(Time()), text) in {ProblemType.BAD_NONCE, ProblemType.MALFORMED}


@pytest.mark.requirement("M36", "M37", "SEC21")
def test_nonces_are_unique_and_unpredictable() -> None:
    nonces = replica(Time())
    issued = {nonces.issue() for _ in range(10_000)}
    assert len(issued) == 10_000
    assert len({text[-24:] for text in issued}) == 10_000  # 18 octets of MAC: 144 bits
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{44}", text) for text in issued)


@pytest.mark.requirement("SEC21")
def test_a_million_nonces_cost_no_memory_until_they_are_used() -> None:
    nonces = replica(Time())
    gc.collect()
    objects, resident = len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1_000_000):
        text = nonces.issue()
    gc.collect()
    assert len(gc.get_objects()) <= objects + 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 1024  # kB
    assert nonces.redeem(nonces.read(text))
    assert nonces.memory == 512, "one chunk"


@pytest.mark.requirement("SEC21")
def test_memory_is_a_bit_for_each_nonce_of_the_last_hour() -> None:
    time = Time()
    nonces = replica(time)
    most = 0
    for _ in range(150):  # a thousand nonces a minute, all used
        for _ in range(1000):
            nonces.redeem(nonces.read(nonces.issue()))
        time.pass_(60)
        most = max(most, nonces.memory)
    assert most <= (61 * 1000) // 8 + 2 * 512
