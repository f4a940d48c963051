"""Kinds that need not be there, or that we need not be allowed to see: cert-manager's issuers, and what holds roots.

kopf cannot watch what is not served, so they are listed from time to time, by our label. The list also tells whether a
kind can be had, and in which version; where it cannot, an unavailability says why to whoever asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Forbidden, NotFound, Unserved
from kms.resources.kinds import BUNDLES, CLUSTER_ISSUERS, CLUSTER_TRUST_BUNDLES, ISSUERS, SECRETS, Kind
from kms_operator.cache import OPTIONAL_KINDS, TRUST_KINDS
from kms_operator.controller import Controller
from kms_operator.kopf_watch import LABELS
from kms_operator.reconcilers.trust_distribution import FORBIDDEN, ROLE
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Unavailability
from kms_operator.triggers import are_asked_for

_WITHOUT_CERT_MANAGER = "the API server does not serve cert-manager's {}; install cert-manager"
_UNSERVED: Mapping[str, tuple[str, str]] = {
    CLUSTER_ISSUERS.plural: ("WaitingForCertManager", _WITHOUT_CERT_MANAGER),
    ISSUERS.plural: ("WaitingForCertManager", _WITHOUT_CERT_MANAGER),
    BUNDLES.plural: (
        "WaitingForTrustManager",
        "the API server does not serve trust-manager's {}; install trust-manager",
    ),
}
"""Reason and message of the unavailability, by plural."""
_NOT_BY_ITSELF = (
    "NotServed",
    "the API server does not serve {}; it does with the feature gate ClusterTrustBundle and --runtime-config",
)

logger = logging.getLogger(__name__)


class OptionalKinds:
    """Looks for what we have made of these kinds, and tells the controller."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster, controller: Controller) -> None:
        self._settings = settings
        self._cluster = cluster
        self._controller = controller

    async def look(self, *, first: bool = False) -> bool:
        """List them all; what holds roots only where a root is published, but for the `first` time.

        That first list finds what outlived a CertificateAuthority while no operator was there. False where it is worth
        looking again soon: a list has failed, or what somebody asks for cannot be had yet.
        """
        asked = first or self._controller.publishes()
        return all(
            [
                await self._look_for(kind)
                for kind in OPTIONAL_KINDS
                if (kind.namespaced or not self._settings.watch_namespaces) and (asked or kind not in TRUST_KINDS)
            ]
        )

    async def _look_for(self, kind: Kind[Any]) -> bool:
        for version in CLUSTER_TRUST_BUNDLES if kind in CLUSTER_TRUST_BUNDLES else (kind,):
            try:
                listing = await complete(self._cluster, version, self._settings)
            except (Unserved, NotFound):
                continue  # the whole group, or this kind in a group of Kubernetes's own
            except Forbidden as error:
                return self._obstruct(kind, _forbidden(kind), error)
            except ClusterError as error:
                # A kind that has just been added is refused like this, while the API server fills its cache.
                logger.warning("not listed", extra={"kind": kind.kind, "error": str(error)})
                return False
            self._controller.handle_list(version, *listing)
            self._controller.obstruct(kind, None)
            return True
        reason, message = _UNSERVED.get(kind.plural, _NOT_BY_ITSELF)
        return self._obstruct(kind, Unavailability(reason, message.format(kind.plural)), None)

    def _obstruct(self, kind: Kind[Any], unavailability: Unavailability, error: ClusterError | None) -> bool:
        """True where nobody minds."""
        if self._controller.obstruct(kind, unavailability):
            said = str(error) if error is not None else unavailability.message
            logger.info("kind not to be had", extra={"kind": kind.kind, "error": said})
        return not are_asked_for(kind, self._controller.cache)


def _forbidden(kind: Kind[Any]) -> Unavailability:
    if kind in TRUST_KINDS:
        return Unavailability(FORBIDDEN, f"the operator may not list {kind.plural}; give it {ROLE}")
    return Unavailability(FORBIDDEN, f"the operator may not list {kind.plural} of cert-manager; update its ClusterRole")


async def complete(cluster: Cluster, kind: Kind[Any], settings: OperatorSettings) -> tuple[Sequence[Any], str]:
    """All objects of a kind that concern us, and the resourceVersion up to which that is all there is."""
    labels = LABELS.get(kind.plural, "")
    if not settings.watch_namespaces:
        listing = await cluster.list(kind, labels=labels)
        return listing.items, listing.resource_version
    # Secrets of the release namespace are ours too; the oldest version is the one that holds for all.
    namespaces = dict.fromkeys((*settings.watch_namespaces, *([settings.namespace] if kind is SECRETS else [])))
    listings = [await cluster.list(kind, each, labels=labels) for each in namespaces]
    oldest = min(listings, key=lambda each: int(each.resource_version))
    return [item for each in listings for item in each.items], oldest.resource_version
