"""Finds out which optional kinds are available: cert-manager's issuers, and the kinds that hold published roots.

kopf cannot watch a kind that is not served, so these are listed from time to time, by the operator's label. The list
also tells whether the kind is available, and in which version; if not, conditions of the resources that ask for it say
why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Forbidden, NotFound, Unserved
from kms.resources.kinds import BUNDLES, CLUSTER_ISSUERS, CLUSTER_TRUST_BUNDLES, ISSUERS, Kind
from kms_operator.controller import Controller
from kms_operator.indexes import Unavailability
from kms_operator.kinds import OPTIONAL_KINDS, TRUST_KINDS
from kms_operator.listing import list_kind
from kms_operator.plan import FORBIDDEN
from kms_operator.reconcilers.trust_distribution import ROLE
from kms_operator.settings import OperatorSettings
from kms_operator.triggers import is_requested

_NO_CERT_MANAGER = "the API server does not serve cert-manager's {}; install cert-manager"
_NO_TRUST_MANAGER = "the API server does not serve trust-manager's {}; install trust-manager"
_NOT_SERVED: Mapping[str, tuple[str, str]] = {
    CLUSTER_ISSUERS.plural: ("WaitingForCertManager", _NO_CERT_MANAGER),
    ISSUERS.plural: ("WaitingForCertManager", _NO_CERT_MANAGER),
    BUNDLES.plural: ("WaitingForTrustManager", _NO_TRUST_MANAGER),
}
"""Reason and message for kinds that are not served, by plural."""
_NOT_ENABLED = (
    "NotServed",
    "the API server does not serve {}; enable the feature gate ClusterTrustBundle and the API with --runtime-config",
)

logger = logging.getLogger(__name__)


class OptionalKinds:
    """Lists the optional kinds and tells the controller about their objects and their availability."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster, controller: Controller) -> None:
        self._settings = settings
        self._cluster = cluster
        self._controller = controller

    async def refresh(self, *, first: bool = False) -> bool:
        """List all optional kinds; those that hold roots only if a root is published, and the `first` time.

        The first list finds what outlived a CertificateAuthority while no operator was running. Returns False if it is
        worth trying again soon: a list failed, or a kind that a resource asks for is not available.
        """
        trust = first or self._controller.needs_trust_kinds()
        return all(
            [
                await self._refresh_kind(kind)
                for kind in OPTIONAL_KINDS
                if (kind.namespaced or not self._settings.watch_namespaces) and (trust or kind not in TRUST_KINDS)
            ]
        )

    async def _refresh_kind(self, kind: Kind[Any]) -> bool:
        for version in CLUSTER_TRUST_BUNDLES if kind in CLUSTER_TRUST_BUNDLES else (kind,):
            since = self._controller.cache.newest(version)
            try:
                listing = await list_kind(self._cluster, version, self._settings)
            except (Unserved, NotFound):
                continue  # the group is missing, or the kind is missing in a group of Kubernetes's own
            except Forbidden as error:
                return self._set_unavailable(kind, _forbidden(kind), error)
            except ClusterError as error:
                # Also while the API server fills its cache for a kind that has just been added.
                logger.warning("listing failed", extra={"kind": kind.kind, "error": str(error)})
                return False
            self._controller.handle_list(version, listing, since=since)
            self._controller.handle_availability(kind, None)
            return True
        reason, message = _NOT_SERVED.get(kind.plural, _NOT_ENABLED)
        return self._set_unavailable(kind, Unavailability(reason, message.format(kind.plural)), None)

    def _set_unavailable(self, kind: Kind[Any], unavailability: Unavailability, error: ClusterError | None) -> bool:
        """Returns True if no resource asks for the kind."""
        if self._controller.handle_availability(kind, unavailability):
            reason = str(error) if error is not None else unavailability.message
            logger.info("kind not available", extra={"kind": kind.kind, "error": reason})
        return not is_requested(kind, self._controller.cache)


def _forbidden(kind: Kind[Any]) -> Unavailability:
    if kind in TRUST_KINDS:
        return Unavailability(FORBIDDEN, f"the operator may not list {kind.plural}; give it {ROLE}")
    return Unavailability(FORBIDDEN, f"the operator may not list {kind.plural} of cert-manager; update its ClusterRole")
