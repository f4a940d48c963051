"""Lists the objects of a kind that concern the operator."""

from __future__ import annotations

from typing import Any

from kms.cluster.client import Cluster
from kms.cluster.codec import Listing
from kms.resources.kinds import SECRETS, Kind
from kms_operator.kinds import LABEL_SELECTORS
from kms_operator.settings import OperatorSettings


async def list_kind(cluster: Cluster, kind: Kind[Any], settings: OperatorSettings) -> Listing[Any]:
    """List all objects of a kind that concern the operator."""
    labels = LABEL_SELECTORS.get(kind.plural, "")
    if not settings.watch_namespaces:
        return await cluster.list(kind, labels=labels)
    # The operator also owns Secrets of the release namespace. The oldest version holds for all lists.
    namespaces = dict.fromkeys((*settings.watch_namespaces, *([settings.namespace] if kind is SECRETS else [])))
    listings = [await cluster.list(kind, each, labels=labels) for each in namespaces]
    oldest = min(listings, key=lambda each: int(each.resource_version))
    return Listing(
        items=tuple(item for each in listings for item in each.items),
        resource_version=oldest.resource_version,
        unreadable=tuple(item for each in listings for item in each.unreadable),
    )
