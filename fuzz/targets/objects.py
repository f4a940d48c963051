"""Objects, lists and watch events as an API server sends them, with parts that tenants have written."""

from __future__ import annotations

from fuzz.target import Target
from kms.cluster.codec import decode_event, decode_items, decode_page
from kms.cluster.errors import ClusterError
from kms.resources.kinds import PROFILES


def read(data: bytes) -> None:
    """Decode a watch event, or else a list."""
    try:
        decode_event(PROFILES, data)
    except ClusterError:
        decode_items(PROFILES, decode_page(data).items)


TARGET = Target(read, (ClusterError,))
