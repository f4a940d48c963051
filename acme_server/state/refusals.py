"""Tells people what the API server refuses: a quota, an admission policy, a webhook or a missing permission.

Clients get a 503 until a person lifts the refusal. The log and a metric tell each of them. An Event tells the owners of
the CertificateProfile, who see neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from acme_server.metrics import Metrics
from acme_server.state.event_recorder import EventRecorder, Note
from acme_server.state.store import Verb
from kms.cluster.errors import ClusterError
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import PROFILES, Kind
from kms.resources.meta import Resource
from kms.resources.orders import ACMEOrder
from kms.resources.profiles import CertificateProfile

logger = logging.getLogger(__name__)

REASON = "WriteRefused"


class Refusals:
    """Reports refusals. `find_profile` finds a profile by its key."""

    def __init__(
        self,
        *,
        events: EventRecorder,
        find_profile: Callable[[str, str], CertificateProfile | None],
        metrics: Metrics,
    ) -> None:
        self._events = events
        self._find_profile = find_profile
        self._metrics = metrics

    def report(self, kind: Kind[Any], verb: Verb, resource: Resource | None, error: ClusterError) -> None:
        """Log and count the refusal, and let an Event follow if it was about a profile's account or order."""
        name = f"{resource.metadata.namespace}/{resource.metadata.name}" if resource is not None else None
        logger.warning(
            "the Kubernetes API refused a request",
            extra={"verb": verb, "kind": kind.plural, "object": name, "error": str(error)},
        )
        self._metrics.count_api_refusal(kind.plural, verb)
        profile = self._profile_of(resource)
        if profile is None:
            return
        article = "an" if kind.kind[0] in "AEIO" else "a"
        self._events.record(
            Note(
                kind=PROFILES,
                regarding=profile,
                reason=REASON,
                action=verb.capitalize(),
                text=f"The API server refused to {verb} {article} {kind.kind}: {error}",
                key=f"{verb} {kind.plural}",
            )
        )

    def _profile_of(self, resource: Resource | None) -> CertificateProfile | None:
        if not isinstance(resource, ACMEAccount | ACMEOrder):
            return None
        return self._find_profile(resource.metadata.namespace, resource.spec.profile_ref.name)
