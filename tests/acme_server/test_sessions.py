from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.sessions import Seen, Session, may_show, tag_of

NAMES = ("a", "b", "c")


@dataclass
class Replica:
    """What a watch has brought so far: a prefix of all changes, without the events that were lost."""

    come_to: int = 0
    cached: dict[str, int] = field(default_factory=dict)

    def follow(self, history: list[tuple[str, bool]], *, until: int) -> None:
        for version in range(self.come_to + 1, until + 1):
            name, lost = history[version - 1]
            if not lost:
                self.cached[name] = version
        self.come_to = max(self.come_to, until)


@pytest.mark.requirement("SEC56")
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), min_size=1, max_size=30),
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(NAMES), st.integers(0, 30), st.integers(0, 30), st.booleans()),
        max_size=40,
    ),
)
def test_no_replica_shows_a_client_an_older_version_of_the_order_it_saw_last(
    history: list[tuple[str, bool]], requests: list[tuple[int, str, int, int, bool]]
) -> None:
    """Whichever replica is asked, however far its watch is behind, and whatever events it has lost."""
    replicas = [Replica() for _ in range(3)]
    now, shown = 0, dict[str, int]()
    nonce: Seen | None = None
    for which, name, written, followed, fresh in requests:
        now = min(len(history), now + written)
        replica = replicas[which]
        replica.follow(history, until=min(now, replica.come_to + followed))
        live = max((version for version, (each, _) in enumerate(history[:now], 1) if each == name), default=0)
        if not live:
            continue
        session = Session()
        session.begin(None if fresh else nonce)
        seen, cached = session.seen, replica.cached.get(name)
        reached = seen is not None and replica.come_to >= seen.version
        if seen is None or cached is None or not reached:
            version = live
        else:
            version = cached if may_show(str(cached), name, seen, age=0, trusted=10) else live
        # Where events were lost, this holds for the order that the nonce names.
        if (nonce is not None and nonce.tag == tag_of(name)) or not any(lost for _, lost in history):
            assert version >= shown.get(name, 0)
        session.note(str(version), name, written=version == now)
        shown[name] = max(version, shown.get(name, 0))
        nonce = session.latest


def test_a_version_that_nobody_has_confirmed_for_long_is_not_shown() -> None:
    assert may_show("7", "a", Seen(7, tag_of("a")), age=10, trusted=10)
    assert not may_show("7", "a", Seen(7, tag_of("a")), age=11, trusted=10)


def test_what_is_no_integer_has_no_order() -> None:
    assert not may_show("v7", "a", Seen(7, tag_of("a")), age=0, trusted=10)
    session = Session()
    session.note("v7", "a", written=True)
    assert session.latest is None


def test_only_a_write_tells_what_a_client_has_seen_whose_past_nobody_knows() -> None:
    reading, writing = Session(), Session()
    reading.note("7", "a", written=False)
    assert reading.latest is None
    writing.note("8", "a", written=True)
    writing.note("6", "b", written=False)
    assert writing.latest == Seen(8, tag_of("a"))
    writing.note("9", "b", written=False)
    assert writing.latest == Seen(9, tag_of("b"))


def test_what_a_client_has_seen_stays_in_its_nonces() -> None:
    session = Session()
    session.begin(Seen(5, 1))
    session.note("4", "a", written=False)
    assert session.latest == session.seen == Seen(5, 1)


def test_after_a_restore_of_etcd_no_client_waits_for_a_version_that_never_comes() -> None:
    session = Session()
    session.begin(Seen(900, tag_of("a")))
    session.note("100", "a", written=False)
    assert session.latest == Seen(900, tag_of("a")), "a read may be of an order that has not changed for long"
    session.note("101", "a", written=True)
    assert session.seen is None
    session.note("102", "a", written=True)
    assert session.latest == Seen(102, tag_of("a"))
