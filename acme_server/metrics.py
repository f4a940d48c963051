"""The server's metrics for Prometheus. Labels have few values: route templates, types, verbs, profiles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from acme_server.inventory_metrics import InventoryMetrics
from kms.cluster.metrics import APIMetrics
from kms.metrics import Counts, LabelledHistogram, counter
from kms.resources.meta import Key
from kms.resources.orders import AuthorityType

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ISSUANCE_SECONDS = (*_REQUEST_SECONDS, 30, 60, 300, 600, 3600)
_LOOP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_LOOP_PERIOD = 0.1
"""Seconds between two measurements: anything that blocks the event loop for longer is noticed."""
_METHODS = frozenset({"GET", "HEAD", "POST"})
OTHER = "other"
"""The label of the profiles beyond those that have one of their own."""


class Metrics:
    """Counts what operators watch, in a registry of its own."""

    def __init__(self, *, maximum_profiles: int = 1_000, maximum_refusing_profiles: int = 200) -> None:
        """Further profiles share one series each, so that tenants cannot fill the memory with series."""
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._requests = self._counts("requests", "Requests answered.", "route", "method", "status")
        self._request_seconds = self._seconds(
            "request_duration_seconds", "Time to answer a request.", _REQUEST_SECONDS, "route"
        )
        self._orders = self._counts("orders", "Orders by outcome and profile.", "outcome", "profile")
        self._shortened = self._counter(
            "certificates_shortened", "Certificates that end with their CA, before the duration of the profile."
        )
        self._refusals = self._counts(
            "refusals",
            "Refused requests for accounts, orders, certificates and revocations by profile and error type.",
            "profile",
            "rule",
        )
        self._profiles: set[Key] = set()
        self._maximum_profiles = maximum_profiles
        self._refusing_profiles: set[Key] = set()
        self._maximum_refusing_profiles = maximum_refusing_profiles
        self._validations = self._seconds(
            "validation_duration_seconds", "Time to validate a challenge.", _REQUEST_SECONDS, "type", "result"
        )
        self._issuances = self._seconds(
            "issuance_duration_seconds", "Time to issue a certificate.", _ISSUANCE_SECONDS, "issuer", "result"
        )
        self._issuances_waiting = self._gauge("issuances_waiting", "Orders that wait for an external issuer.", "issuer")
        self._revocations_pending = self._gauge(
            "revocations_pending", "Revoked certificates of external CAs that their CA has not confirmed as revoked."
        )
        self._issuer_attempts = self._counts(
            "issuer_attempts", "Attempts of external issuers by result.", "issuer", "result"
        )
        self._deletions = self._counts(
            "swept_objects", "Objects that garbage collection deleted or failed to delete.", "kind", "result"
        )
        self._objects = self._gauge("objects", "Number of accounts and orders.", "kind")
        self._objects_limit = self._gauge("objects_limit", "Maximum number of accounts and orders.", "kind")
        self._octets = self._gauge("object_bytes", "Size of all accounts and orders in etcd, in bytes.", "kind")
        self._octets_limit = self._gauge("object_bytes_limit", "Maximum size of all accounts and orders.", "kind")
        self._leading = self._gauge("leading", "1 while this replica is the leader, which collects garbage.")
        self._caa_checks = self._counts("caa_checks", "CAA checks of names by mode and result.", "mode", "result")
        self._api_refusals = self._counts(
            "api_refusals",
            "Requests that the API server refused by a quota, admission, the schema or RBAC.",
            "kind",
            "verb",
        )
        self.api = APIMetrics(self.registry, "server")
        self.inventory = InventoryMetrics(self.registry)
        self._cache_size = self._gauge("cache_objects", "Objects in a cache.", "cache")
        self._cache_age = self._gauge(
            "cache_age_seconds", "Seconds since a watch last heard from the API server.", "cache"
        )
        self._unvalidated_profiles = self._gauge(
            "profiles_without_ownership_validation", "Profiles with ownershipValidation: Skipped."
        )
        self._connections = self._gauge("connections", "Open connections.")
        self._refused_connections = self._counter(
            "connections_refused", "Connections refused because too many were open."
        )
        self._evicted_connections = self._counter(
            "connections_evicted", "Idle connections closed to make room for new ones."
        )
        self._loop_delay = Histogram(
            "kms_acme_event_loop_delay_seconds",
            "Delay of the event loop.",
            buckets=_LOOP_SECONDS,
            registry=self.registry,
        )

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        known = method if method in _METHODS else "other"  # clients can invent methods
        self._requests[route, known, str(status)] += 1
        self._request_seconds.observe((route,), seconds)

    def count_order(self, outcome: str, profile: Key) -> None:
        """Count an order of the profile that was `created` or `refused`, or became `valid` or `invalid`."""
        if profile not in self._profiles and len(self._profiles) >= self._maximum_profiles:
            self._orders[outcome, OTHER] += 1
            return
        self._profiles.add(profile)
        self._orders[outcome, "/".join(profile)] += 1

    def count_refusal(self, rule: str, profile: Key) -> None:
        """Count a request for an account, order, certificate or revocation that was refused with this error type."""
        known = self._refusing_profiles
        if profile not in known and len(known) >= self._maximum_refusing_profiles:
            self._refusals[OTHER, rule] += 1
            return
        known.add(profile)
        self._refusals["/".join(profile), rule] += 1

    def count_shortened(self) -> None:
        """Count a certificate that ends with its CA, before its duration is over."""
        self._shortened.inc()

    def observe_validation(self, type_: str, result: str, seconds: float) -> None:
        """Record a validation: `valid`, or the problem type of its last failure."""
        self._validations.observe((type_, result), seconds)

    def observe_issuance(self, result: str, seconds: float, *, issuer: AuthorityType | None = None) -> None:
        """Record an issuance: `signed`, `not-ready` or `failed`; of an external issuer its end, since finalize.

        External issuers also end with `denied`, `refused`, `rejected` and `timeout`. None is an internal CA.
        """
        self._issuances.observe((_issuer(issuer), result), seconds)

    def count_issuer_attempt(self, issuer: AuthorityType, result: str) -> None:
        """Count what an external issuer has answered to an attempt.

        The results are `returned`, `shortened`, `rejected`, `denied`, `refused`, `failed`, `unavailable`, `ambiguous`
        (the CA may have issued a certificate that nobody has) and `timeout`.
        """
        self._issuer_attempts[_issuer(issuer), result] += 1

    def watch_pending_revocations(self, count: Callable[[], int]) -> None:
        """Show the number of revocations that CAs have not confirmed."""
        self._revocations_pending.set_function(count)

    def watch_issuances(self, issuer: AuthorityType, count: Callable[[], int]) -> None:
        """Show how many orders wait for external issuers of that type on this replica."""
        self._issuances_waiting.labels(_issuer(issuer)).set_function(count)

    def count_deletion(self, kind: str, result: str) -> None:
        """Count a deletion by garbage collection: `removed` or `failed`."""
        self._deletions[kind, result] += 1

    def count_caa_check(self, mode: str, result: str) -> None:
        """Count a CAA check in mode `Report` or `Enforce`: `allowed`, `forbidden` or `failed`."""
        self._caa_checks[mode, result] += 1

    def count_api_refusal(self, kind: str, verb: str) -> None:
        """Count a request that the API server refused until a person acts. `kind` is a plural: `acmeorders`."""
        self._api_refusals[kind, verb] += 1

    def count_refused_connection(self) -> None:
        """Count a connection that was closed because too many were open."""
        self._refused_connections.inc()

    def count_evicted_connection(self) -> None:
        """Count an idle connection that was closed for a new one."""
        self._evicted_connections.inc()

    def watch_objects(self, kind: str, size: Callable[[], int], limit: int) -> None:
        """Show the number of objects of a kind, and its limit."""
        self._objects.labels(kind).set_function(size)
        self._objects_limit.labels(kind).set(limit)

    def watch_octets(self, kind: str, size: Callable[[], int], limit: int) -> None:
        """Show what the objects of a kind take in etcd, and the limit of that."""
        self._octets.labels(kind).set_function(size)
        self._octets_limit.labels(kind).set(limit)

    def watch_leading(self, leading: Callable[[], bool]) -> None:
        """Show whether this replica is the leader."""
        self._leading.set_function(leading)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Show the number of open connections."""
        self._connections.set_function(count)

    def watch_unvalidated_profiles(self, count: Callable[[], int]) -> None:
        """Show the number of profiles that skip the validation of ownership."""
        self._unvalidated_profiles.set_function(count)

    def watch_cache(self, name: str, size: Callable[[], int], age: Callable[[], float] | None = None) -> None:
        """Show the size of a cache and its age."""
        self._cache_size.labels(name).set_function(size)
        if age is not None:
            self._cache_age.labels(name).set_function(age)

    async def measure_loop_delay(self) -> None:
        """Measure how late the event loop is, ten times a second. Runs until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            planned = loop.time() + _LOOP_PERIOD
            await asyncio.sleep(_LOOP_PERIOD)
            self._loop_delay.observe(max(0.0, loop.time() - planned))

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _counts(self, name: str, text: str, *labels: str) -> Counts:
        return counter(self.registry, f"kms_acme_{name}", text, labels)

    def _seconds(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> LabelledHistogram:
        return LabelledHistogram(self.registry, f"kms_acme_{name}", text, labels, buckets=buckets)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"kms_acme_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"kms_acme_{name}", text, labels, registry=self.registry)


def _issuer(type_: AuthorityType | None) -> str:
    """The label of an issuer: as the field of the CertificateAuthority."""
    return "internal" if type_ is None else f"{type_[0].lower()}{type_[1:]}"
