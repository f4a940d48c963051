"""Who may have how many connections, and which one goes when there are too many. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Generic, TypeVar

from kms.address import IPAddress, Network

T = TypeVar("T")

_IPV6_PREFIX = 64


class NoRoom(Exception):
    """Too many connections are open, and a request is being handled on each."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections a listener holds, and for how long idle ones.

    `per_address` limits those of one IPv4 address or one IPv6 network of 64 bits; None: an eighth of `maximum`. It does
    not apply to `proxies`, from which many clients come. An idle connection is closed after `keep_alive` seconds, or
    after `crowded_keep_alive` while more than half of `maximum` are open. Handling a request may take `longest_request`
    seconds, and so may the client to take the response.
    """

    maximum: int
    per_address: int | None = None
    proxies: tuple[Network, ...] = ()
    # Go clients close theirs after 90 seconds: so it is the client that closes.
    keep_alive: float = 95.0
    crowded_keep_alive: float = 10.0
    longest_request: float = 600.0

    @property
    def share(self) -> int:
        """The number of connections for one address."""
        return self.per_address if self.per_address is not None else max(1, self.maximum // 8)

    def client_of(self, host: str) -> Network | IPAddress | None:
        """Which connections share a limit; None: this one shares it with no other."""
        address = ip_address(host)
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if any(address.version == each.version and address in each for each in self.proxies):
            return None
        if isinstance(address, IPv6Address):
            return IPv6Network((int(address) >> _IPV6_PREFIX << _IPV6_PREFIX, _IPV6_PREFIX))
        return address


@dataclass(slots=True)
class _Client(Generic[T]):
    """The connections of one client, whom `key` names: those that wait for it, and those that work for it.

    The oldest are first.

    Values are the times since when. Of those that wait, some have a response that the client has not taken yet.
    """

    key: object
    waiting: dict[T, float] = field(default_factory=dict)
    busy: dict[T, float] = field(default_factory=dict)
    responding: set[T] = field(default_factory=set)

    @property
    def count(self) -> int:
        return len(self.waiting) + len(self.busy)


class ConnectionTable(Generic[T]):
    """The open connections. A new one takes the place of the one that has waited longest for its client.

    That is one of the same client if the client has its share, else one of the client that has most.
    """

    def __init__(self, limits: ConnectionLimits, *, clock: Callable[[], float]) -> None:
        """`clock` returns seconds that never go back."""
        self._limits = limits
        self._clock = clock
        self._clients: dict[object, _Client[T]] = {}
        self._client_of: dict[T, _Client[T]] = {}

    def __len__(self) -> int:
        return len(self._client_of)

    @property
    def crowded(self) -> bool:
        """Whether more than half of the connections are open."""
        return len(self) > self._limits.maximum / 2

    def add(self, connection: T, host: str) -> T | None:
        """Enter a connection, and remove and return the one that must be closed for it. Raises NoRoom."""
        # A connection that shares its limit with no other is its own client.
        key = self._limits.client_of(host) or connection
        client = self._clients.get(key)
        victim = None
        if client is not None and client.count >= self._limits.share:
            victim = _longest_waiting((client,))
        elif len(self) >= self._limits.maximum:
            victim = _longest_waiting(self._clients.values())
        if victim is not None:
            self.remove(victim)
        client = self._clients.setdefault(key, _Client(key))
        client.waiting[connection] = self._clock()
        self._client_of[connection] = client
        return victim

    def remove(self, connection: T) -> None:
        """Remove a connection, if it is there."""
        client = self._client_of.pop(connection, None)
        if client is None:
            return
        client.waiting.pop(connection, None)
        client.busy.pop(connection, None)
        client.responding.discard(connection)
        if not client.count:
            del self._clients[client.key]

    def begin_request(self, connection: T) -> None:
        """A request is being handled."""
        client = self._client_of.get(connection)
        if client is not None and client.waiting.pop(connection, None) is not None:
            client.busy[connection] = self._clock()

    def wait(self, connection: T, *, responding: bool) -> None:
        """No request is being handled: the connection waits for its client, behind all others of it.

        While `responding`, the client takes a response; then the connection is idle.
        """
        client = self._client_of.get(connection)
        if client is None:
            return
        client.busy.pop(connection, None)
        client.waiting.pop(connection, None)
        client.waiting[connection] = self._clock()
        if responding:
            client.responding.add(connection)
        else:
            client.responding.discard(connection)

    def overdue(self) -> list[T]:
        """The connections that have waited for a request, or taken for one, longer than they may."""
        limits, now = self._limits, self._clock()
        idle_since = now - (limits.crowded_keep_alive if self.crowded else limits.keep_alive)
        requested = now - limits.longest_request
        overdue: list[T] = []
        for client in self._clients.values():
            overdue += [each for each, since in client.busy.items() if since < requested]
            for each, since in client.waiting.items():
                if since < (requested if each in client.responding else idle_since):
                    overdue.append(each)
        return overdue


def _longest_waiting(clients: Iterable[_Client[T]]) -> T:
    """The connection that has waited longest, of the clients that have most. Raises NoRoom."""
    heads = [(client.count, *next(iter(client.waiting.items()))) for client in clients if client.waiting]
    if not heads:
        raise NoRoom
    return min(heads, key=lambda head: (-head[0], head[2]))[1]
