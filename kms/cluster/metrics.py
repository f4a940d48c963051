"""The metrics of calls of the Kubernetes API. Both programs have the same, so that one alert watches both."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram

from kms.contract import Program

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class APIMetrics:
    """Counts calls in the registry of a program. `kind` is a plural: `acmeorders`."""

    def __init__(self, registry: CollectorRegistry, program: Program) -> None:
        self._program = program
        # `cache` spares the checks and the lock of labels() for every call; there are few label values.
        self._requests = cache(
            Counter(
                "kms_acme_api_requests",
                "Requests to the API server (status 0: no answer).",
                ("program", "verb", "kind", "status"),
                registry=registry,
            ).labels
        )
        self._repeats = cache(
            Counter(
                "kms_acme_api_repeats",
                "Requests to the API server that were sent again.",
                ("program", "verb", "kind"),
                registry=registry,
            ).labels
        )
        self._seconds = cache(
            Histogram(
                "kms_acme_api_request_duration_seconds",
                "Time that the API server took to answer.",
                ("program", "verb", "kind"),
                buckets=_SECONDS,
                registry=registry,
            ).labels
        )

    def count(self, verb: str, kind: str, status: int, seconds: float) -> None:
        """Count an attempt: its HTTP status (0: no answer), and the seconds until the answer was complete.

        A watch counts when it begins, and once more, with status 0, when it breaks off.
        """
        self._requests(self._program, verb, kind, str(status)).inc()
        self._seconds(self._program, verb, kind).observe(seconds)

    def count_repeat(self, verb: str, kind: str) -> None:
        """Count a request that is going to be sent again."""
        self._repeats(self._program, verb, kind).inc()
