"""Lists the objects of a kind that concern the operator."""

from __future__ import annotations

from typing import Any

from kms.cluster.client import Cluster
from kms.cluster.codec import Listing
from kms.resources.kinds import SECRETS, Kind
from kms.resources.meta import Unreadable
from kms.resources.retained import retained
from kms_operator.kinds import LABEL_SELECTORS
from kms_operator.settings import OperatorSettings

PAGE = 100
"""Objects of a page."""


async def list_kind(cluster: Cluster, kind: Kind[Any], settings: OperatorSettings) -> Listing[Any]:
    """List all objects of a kind that concern the operator."""
    if not settings.watch_namespaces:
        return await _list(cluster, kind, None, settings)
    # The operator also owns Secrets of the release namespace. The oldest version holds for all lists.
    namespaces = dict.fromkeys((*settings.watch_namespaces, *([settings.namespace] if kind is SECRETS else [])))
    listings = [await _list(cluster, kind, each, settings) for each in namespaces]
    oldest = min(listings, key=lambda each: int(each.resource_version))
    return Listing(
        items=tuple(item for each in listings for item in each.items),
        resource_version=oldest.resource_version,
        unreadable=tuple(item for each in listings for item in each.unreadable),
    )


async def _list(cluster: Cluster, kind: Kind[Any], namespace: str | None, settings: OperatorSettings) -> Listing[Any]:
    """List in small pages, each reduced to what is kept, so that a list is never in memory as a whole."""
    items: list[Any] = []
    unreadable: list[Unreadable] = []
    version = ""
    labels = LABEL_SELECTORS.get(kind.plural, "")
    async for page in cluster.list_pages(kind, namespace, labels=labels, limit=PAGE):
        items.extend(retained(each, release=settings.namespace) for each in page.items)
        unreadable.extend(page.unreadable)
        version = page.resource_version
    return Listing(items=tuple(items), resource_version=version, unreadable=tuple(unreadable))
