"""How much is written in ten minutes: etcd keeps every version of an object until the API server compacts it.

The API server compacts every five minutes what is older than five minutes, so up to ten minutes of versions are stored
beside the objects themselves. An order of a hundred names whose challenges are answered one by one is written a hundred
times; so what counts is what is written, not what is left of it.
"""

from __future__ import annotations

from collections import Counter, deque

from acme_server.problems import Unavailable
from kms.clock import Clock
from kms.shares import RESERVE, share_of, with_reserve

MINUTES = 10
_SECONDS = 60
_RETRY_AFTER = 60

_Writer = tuple[str, str]
"""A namespace and a tenant of it; "": the whole namespace."""


class WriteRate:
    """Counts the octets that all replicas write within `minutes`, and limits them: `maximum` in all.

    A namespace may write a share (0 to 1) of what the others leave, and a tenant of it (`ACMEOrder.tenant`) a share of
    what the others of the namespace leave. For what is urgent there are no shares, and it may
    exceed the maximum by `reserve`.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        maximum: int,
        namespace_share: float = 1.0,
        tenant_share: float = 1.0,
        reserve: float = RESERVE,
        minutes: int = MINUTES,
    ) -> None:
        self._clock = clock
        self.maximum = maximum
        self._namespace_share = namespace_share
        self._tenant_share = tenant_share
        self._reserve = reserve
        self._window = minutes
        self._minutes: deque[tuple[float, Counter[_Writer]]] = deque()
        self._written: Counter[_Writer] = Counter()
        self._whole = 0

    def add(self, namespace: str, octets: int, tenant: str = "") -> None:
        """Count a version that was written."""
        minute = self._clock().timestamp() // _SECONDS
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, Counter()))
        for writer in {(namespace, ""), (namespace, tenant)}:
            self._minutes[-1][1][writer] += octets
            self._written[writer] += octets
        self._whole += octets

    def written(self) -> int:
        """The octets that were written lately."""
        self._forget()
        return self._whole

    def admit(self, namespace: str, tenant: str = "", *, urgent: bool = False) -> None:
        """Raise Unavailable if the namespace, or the tenant of it, must not write now."""
        whole, used = self.written(), self._written[namespace, ""]
        share = share_of(self.maximum, whole - used, self._namespace_share)
        if whole >= (with_reserve(self.maximum, self._reserve) if urgent else self.maximum):
            raise self._full("This server has", self.maximum)
        if used >= share and not urgent:
            raise self._full(f"Namespace {namespace} has", share)
        if tenant and not urgent:
            own = self._written[namespace, tenant]
            share = share_of(share, used - own, self._tenant_share)
            if own >= share:
                raise self._full(f"Clients of namespace {tenant} have", share)

    def _full(self, who: str, most: int) -> Unavailable:
        amount = f"{most / 2**20:.1f} MiB of orders in {self._window} minutes"
        return Unavailable(f"{who} written the limit of {amount}.", _RETRY_AFTER)

    def _forget(self) -> None:
        latest = self._clock().timestamp() // _SECONDS
        oldest = latest - self._window
        # A minute that has not come yet was counted by a clock that was wrong, and was over before now.
        while self._minutes and not oldest <= self._minutes[0][0] <= latest:
            forgotten = self._minutes.popleft()[1]
            self._whole -= sum(octets for (_, tenant), octets in forgotten.items() if not tenant)
            self._written -= forgotten  # and the namespaces that have written nothing else
