"""The metrics of calls of the Kubernetes API. Both programs have the same, so that one alert watches both."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from kms.contract import Program
from kms.metrics import LabelledHistogram, counter

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class APIMetrics:
    """Counts calls in the registry of a program. `kind` is a plural: `acmeorders`."""

    def __init__(self, registry: CollectorRegistry, program: Program) -> None:
        self._program = program
        self._requests = counter(
            registry,
            "kms_acme_api_requests",
            "Requests to the API server (status 0: no answer).",
            ("program", "verb", "kind", "status"),
        )
        self._repeats = counter(
            registry,
            "kms_acme_api_repeats",
            "Requests to the API server that were sent again.",
            ("program", "verb", "kind"),
        )
        self._seconds = LabelledHistogram(
            registry,
            "kms_acme_api_request_duration_seconds",
            "Time that the API server took to answer.",
            ("program", "verb", "kind"),
            buckets=_SECONDS,
        )

    def count(self, verb: str, kind: str, status: int, seconds: float) -> None:
        """Count an attempt: its HTTP status (0: no answer), and the seconds until the answer was complete.

        A watch counts when it begins, and once more, with status 0, when it breaks off.
        """
        self._requests[self._program, verb, kind, str(status)] += 1
        self._seconds.observe((self._program, verb, kind), seconds)

    def count_repeat(self, verb: str, kind: str) -> None:
        """Count a request that is going to be sent again."""
        self._repeats[self._program, verb, kind] += 1
