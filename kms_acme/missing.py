"""Tells an object that does not exist from one that has nothing to show."""

from __future__ import annotations

from typing import Any

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.resources.kinds import Kind
from kms.resources.meta import Key, key_of
from kms_acme.nearest import no_such

_MOST_NAMES = 5_000
"""Names that are compared."""


async def find_missing(cluster: Cluster, kind: Kind[Any], key: Key) -> str | None:
    """A sentence that names the nearest ones; None if the object exists, or may not be read. Raises ClusterError."""
    try:
        await cluster.get(kind, *key)
    except errors.NotFound:
        pass
    except (errors.Forbidden, errors.Undecodable):
        return None
    else:
        return None
    try:
        page = await cluster.metadata_page(kind, None, limit=_MOST_NAMES, token="")
    except (errors.Forbidden, errors.NotFound):
        return no_such(kind.kind, key, ())
    return no_such(kind.kind, key, map(key_of, page.items))
