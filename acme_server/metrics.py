"""The server's metrics for Prometheus. Labels have few values: route templates, types, verbs; never names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kms.cluster.metrics import APIMetrics

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LOOP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_LOOP_PERIOD = 0.05
"""Who blocks the loop for longer than that is always noticed."""
_METHODS = frozenset({"GET", "HEAD", "POST"})


class PrometheusMetrics:
    """Everything that is counted, in a registry of its own. Implements `acme_server.measures.Measures`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        # `cache` spares the checks and the lock of labels() for every request; there are few label values.
        ProcessCollector(registry=self.registry)
        self._requests = cache(self._counter("requests", "Requests answered.", "route", "method", "status").labels)
        self._request_seconds = cache(
            self._histogram("request_duration_seconds", "Time to answer a request.", _REQUEST_SECONDS, "route").labels
        )
        self._orders = cache(self._counter("orders", "Orders by what became of them.", "outcome").labels)
        self._validations = cache(
            self._histogram(
                "validation_duration_seconds", "Time to validate a challenge.", _REQUEST_SECONDS, "type", "result"
            ).labels
        )
        self._issuances = cache(
            self._histogram(
                "issuance_duration_seconds", "Time that the issuer took for a certificate.", _REQUEST_SECONDS, "result"
            ).labels
        )
        self._swept = cache(self._counter("swept_objects", "Objects that were due to go.", "kind", "result").labels)
        self._objects = self._gauge("objects", "Accounts and orders that there are.", "kind")
        self._objects_limit = self._gauge("objects_limit", "Accounts and orders that there may be.", "kind")
        self._leading = self._gauge("leading", "1 while this replica is the one that sweeps.")
        self._caa_checks = cache(self._counter("caa_checks", "Names whose CAA was checked.", "mode", "result").labels)
        self.api = APIMetrics(self.registry, "server")
        self._cache_size = self._gauge("cache_objects", "Objects in a cache.", "cache")
        self._cache_age = self._gauge(
            "cache_age_seconds", "Seconds since the API server was last heard of for a cache.", "cache"
        )
        self._skipping = self._gauge(
            "profiles_without_ownership_validation", "Profiles with ownershipValidation: Skipped."
        )
        self._connections = self._gauge("connections", "Connections that are open.")
        self._refused_connections = self._counter("connections_refused", "Connections beyond the limit.")
        self._loop_delay = self._histogram(
            "event_loop_delay_seconds", "How much later than planned the event loop came to its work.", _LOOP_SECONDS
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        known = method if method in _METHODS else "other"  # anybody can make methods up
        self._requests(route, known, str(status)).inc()
        self._request_seconds(route).observe(seconds)

    def order(self, outcome: str) -> None:
        """An order came to something."""
        self._orders(outcome).inc()

    def validation(self, type_: str, result: str, seconds: float) -> None:
        """A validation ended."""
        self._validations(type_, result).observe(seconds)

    def issuance(self, result: str, seconds: float) -> None:
        """An issuer was asked."""
        self._issuances(result).observe(seconds)

    def swept(self, kind: str, result: str) -> None:
        """An object that was due went, or did not."""
        self._swept(kind, result).inc()

    def watch_population(self, kind: str, size: Callable[[], int], limit: int) -> None:
        """Ask for the number of objects whenever somebody reads the metrics."""
        self._objects.labels(kind).set_function(size)
        self._objects_limit.labels(kind).set(limit)

    def watch_leading(self, leading: Callable[[], bool]) -> None:
        """Ask whether this replica is elected whenever somebody reads the metrics."""
        self._leading.set_function(leading)

    def caa(self, mode: str, result: str) -> None:
        """The CAA records that concern a name were looked at."""
        self._caa_checks(mode, result).inc()

    def connection_refused(self) -> None:
        """A connection beyond the limit was closed."""
        self._refused_connections.inc()

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask `count` for the open connections whenever somebody reads the metrics."""
        self._connections.set_function(count)

    def watch_skipping(self, count: Callable[[], int]) -> None:
        """Ask `count` for the profiles that skip the validation of ownership whenever somebody reads the metrics."""
        self._skipping.set_function(count)

    def watch_cache(self, name: str, size: Callable[[], int], age: Callable[[], float] | None = None) -> None:
        """Ask a cache for its size and age whenever somebody reads the metrics."""
        self._cache_size.labels(name).set_function(size)
        if age is not None:
            self._cache_age.labels(name).set_function(age)

    async def watch_loop(self) -> None:
        """Measure how late the event loop is, twenty times a second. Runs until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            planned = loop.time() + _LOOP_PERIOD
            await asyncio.sleep(_LOOP_PERIOD)
            self._loop_delay.observe(max(0.0, loop.time() - planned))

    async def expose(self, _: web.Request) -> web.Response:
        """GET /metrics."""
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"kms_acme_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"kms_acme_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"kms_acme_{name}", text, labels, buckets=buckets, registry=self.registry)


METRICS = web.AppKey("metrics", PrometheusMetrics)
