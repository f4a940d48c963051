from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.address import Network
from kms.connections import ConnectionLimits, ConnectionTable, NoRoom

pytestmark = pytest.mark.requirement("SEC39", "SEC75")

HOSTS = ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "10.0.0.1")


class Time:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def table(limits: ConnectionLimits) -> tuple[ConnectionTable[str], Time]:
    time = Time()
    return ConnectionTable(limits, clock=time), time


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.1", IPv4Address("192.0.2.1")),
        ("::ffff:192.0.2.1", IPv4Address("192.0.2.1")),
        ("2001:db8::7:0:0:1", ip_network("2001:db8:0:0::/64")),
        ("fe80::1%eth0", ip_network("fe80::/64")),
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("2001:db8:1::1", None),
    ],
)
def test_connections_share_a_limit_with_those_of_their_host(host: str, client: Network | IPv4Address | None) -> None:
    limits = ConnectionLimits(8, proxies=(ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")))
    assert limits.client_of(host) == client


def test_an_eighth_is_the_share_unless_it_is_said() -> None:
    assert ConnectionLimits(2048).share == 256
    assert ConnectionLimits(4).share == 1
    assert ConnectionLimits(2048, per_address=5).share == 5


def test_whoever_has_most_makes_room_and_of_those_the_connection_that_waited_longest() -> None:
    connections, time = table(ConnectionLimits(5, per_address=3))
    for name, host in (("a1", HOSTS[0]), ("b1", HOSTS[1]), ("b2", HOSTS[1]), ("b3", HOSTS[1]), ("c1", HOSTS[3])):
        time.now += 1
        assert connections.add(name, host) is None
    connections.begin_request("b1")
    time.now += 1
    assert connections.add("d1", HOSTS[6]) == "b2"
    connections.wait("b1", responding=True)
    connections.wait("b1", responding=False)
    assert connections.add("e1", "192.0.2.9") == "b3", "that one has waited longer than b1"
    assert connections.add("f1", "192.0.2.10") == "a1"
    assert len(connections) == 5


def test_a_client_that_does_not_take_its_response_makes_room_but_has_more_time_than_an_idle_one() -> None:
    connections, time = table(ConnectionLimits(1, keep_alive=10, crowded_keep_alive=10, longest_request=20))
    connections.add("slow", HOSTS[0])
    connections.begin_request("slow")
    connections.wait("slow", responding=True)
    time.now = 15
    assert connections.overdue() == []
    time.now = 25
    assert connections.overdue() == ["slow"]
    assert connections.add("other", HOSTS[1]) == "slow"


def test_requests_in_progress_are_not_interrupted() -> None:
    connections, _ = table(ConnectionLimits(2, per_address=2))
    for name in "ab":
        connections.add(name, HOSTS[0])
        connections.begin_request(name)
    for host in HOSTS:
        with pytest.raises(NoRoom):
            connections.add("c", host)
    assert len(connections) == 2


def test_what_is_idle_or_busy_for_too_long_is_overdue() -> None:
    connections, time = table(ConnectionLimits(4, keep_alive=10, crowded_keep_alive=1, longest_request=20))
    connections.add("idle", HOSTS[0])
    connections.add("busy", HOSTS[1])
    connections.begin_request("busy")
    time.now = 5
    assert connections.overdue() == []
    connections.add("third", HOSTS[3])
    assert connections.overdue() == ["idle"], "now that more than half are open"
    connections.remove("third")
    assert connections.overdue() == []
    time.now = 15
    assert connections.overdue() == ["idle"]
    time.now = 25
    assert sorted(connections.overdue()) == ["busy", "idle"]


def test_what_is_closed_already_changes_nothing() -> None:
    connections, _ = table(ConnectionLimits(4))
    connections.remove("x")
    connections.begin_request("x")
    connections.wait("x", responding=True)
    assert len(connections) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "begin", "respond", "end", "remove"]), st.integers(0, 19), st.sampled_from(HOSTS)
    ),
    max_size=80,
)


@given(steps=STEPS, maximum=st.integers(1, 6), share=st.integers(1, 4), with_proxy=st.booleans())
def test_neither_limit_is_ever_exceeded_and_no_request_is_interrupted(
    steps: list[tuple[str, int, str]], maximum: int, share: int, with_proxy: bool
) -> None:
    proxies = (ip_network("10.0.0.0/8"),) if with_proxy else ()
    limits = ConnectionLimits(maximum, per_address=share, proxies=proxies)
    connections, time = table(limits)
    hosts: dict[str, str] = {}
    busy: set[str] = set()
    for number, (step, which, host) in enumerate(steps):
        time.now = number
        name = f"c{which}"
        if step == "add" and name not in hosts:
            try:
                evicted = connections.add(name, host)
            except NoRoom:
                assert busy
                continue
            hosts[name] = host
            if evicted is not None:
                assert evicted not in busy
                del hosts[evicted]
        elif step == "begin" and name in hosts:
            connections.begin_request(name)
            busy.add(name)
        elif step in {"respond", "end"} and name in hosts:
            connections.wait(name, responding=step == "respond")
            busy.discard(name)
        elif step == "remove":
            connections.remove(name)
            hosts.pop(name, None)
            busy.discard(name)
        clients = [client for each in hosts.values() if (client := limits.client_of(each)) is not None]
        assert len(connections) == len(hosts) <= maximum
        assert all(clients.count(each) <= share for each in clients)
