"""The kinds that the operator reads: which are watched, which are optional, and how they are filtered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kms.cluster.client import Cluster
from kms.resources.kinds import (
    ACCOUNTS,
    AUTHORITIES,
    BUNDLES,
    CLUSTER_ISSUERS,
    CLUSTER_TRUST_BUNDLES,
    CONFIG_MAPS,
    CREDENTIALS,
    ISSUERS,
    NAMESPACES,
    POLICIES,
    PROFILES,
    SECRETS,
    Kind,
)
from kms.resources.secret_names import CREDENTIAL_UID, MANAGED_BY, MANAGER
from kms_operator.settings import OperatorSettings

RECONCILED_KINDS: tuple[Kind[Any], ...] = (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS)
"""The kinds that users write and whose status the operator writes."""
WATCHED_KINDS: tuple[Kind[Any], ...] = (*RECONCILED_KINDS, SECRETS, ACCOUNTS, NAMESPACES)
TRUST_KINDS: tuple[Kind[Any], ...] = (CONFIG_MAPS, BUNDLES, CLUSTER_TRUST_BUNDLES[0])
"""The kinds that hold published roots."""
OPTIONAL_KINDS: tuple[Kind[Any], ...] = (CLUSTER_ISSUERS, ISSUERS, *TRUST_KINDS)
"""Kinds that the API server may not serve, or that the operator may not read: they are listed, not watched."""

_MANAGED = f"{MANAGED_BY}={MANAGER}"
LABEL_SELECTORS = {
    SECRETS.plural: _MANAGED,
    ACCOUNTS.plural: CREDENTIAL_UID,
    **dict.fromkeys((each.plural for each in OPTIONAL_KINDS), _MANAGED),
}
"""Label selectors by plural: objects that the operator manages, and accounts that were opened with an EABCredential."""


async def list_kind(cluster: Cluster, kind: Kind[Any], settings: OperatorSettings) -> tuple[Sequence[Any], str]:
    """List all objects of a kind that concern the operator. Returns them and the resourceVersion of the list."""
    labels = LABEL_SELECTORS.get(kind.plural, "")
    if not settings.watch_namespaces:
        listing = await cluster.list(kind, labels=labels)
        return listing.items, listing.resource_version
    # The operator also owns Secrets of the release namespace. The oldest version holds for all lists.
    namespaces = dict.fromkeys((*settings.watch_namespaces, *([settings.namespace] if kind is SECRETS else [])))
    listings = [await cluster.list(kind, each, labels=labels) for each in namespaces]
    oldest = min(listings, key=lambda each: int(each.resource_version))
    return [item for each in listings for item in each.items], oldest.resource_version
