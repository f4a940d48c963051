"""The kinds that the operator reads: which are watched, which are optional, and how they are filtered."""

from __future__ import annotations

from typing import Any

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
