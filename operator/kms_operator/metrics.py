"""The operator's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kms.cluster.metrics import APIMetrics

_PREFIX = "kms_operator"


class Metrics:
    """All metrics of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            f"{_PREFIX}_reconciles",
            "Reconciliations by kind and result: done, conflict (repeated soon), retried, refused, failed.",
            ["kind", "result"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            f"{_PREFIX}_reconcile_seconds",
            "Duration of reconciliations, API calls included.",
            ["kind"],
            registry=self.registry,
        )
        self.depth = Gauge(
            f"{_PREFIX}_queue_depth",
            "Resources that wait for a worker or are being reconciled.",
            registry=self.registry,
        )
        self.leading = Gauge(f"{_PREFIX}_leading", "1 while this replica is the leader.", registry=self.registry)
        self.watching = Gauge(f"{_PREFIX}_watching", "1 while the watches run.", registry=self.registry)
        self.refreshes = Counter(
            f"{_PREFIX}_refreshes", "Complete lists of all watched resources.", registry=self.registry
        )
        self.server_token_expires = Gauge(
            f"{_PREFIX}_server_token_expires_timestamp_seconds",
            "When the server's token expires; 0 if the operator does not renew it.",
            registry=self.registry,
        )
        self.renewals_due = Gauge(
            f"{_PREFIX}_renewals_due",
            "CAs by request that need a new certificate (condition RenewalDue), as the leader knows.",
            registry=self.registry,
        )
        self.api = APIMetrics(self.registry, "operator")

    def follow_queue(self, depth: Callable[[], int]) -> None:
        """Set the function that returns the depth of the queue."""
        self.depth.set_function(depth)

    def follow_renewals(self, due: Callable[[], int]) -> None:
        """Set the function that counts the CAs whose renewal is due."""
        self.renewals_due.set_function(due)
