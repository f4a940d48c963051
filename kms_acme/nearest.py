"""What to say of an object that does not exist: the names that are nearest."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.resources.kinds import Kind
from kms.resources.meta import Key

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
        return f"there is no {kind.kind} {'/'.join(key)}"
    return sentence(kind, key, [f"{each.metadata.namespace}/{each.metadata.name}" for each in page.items])


def sentence(kind: Kind[Any], key: Key, names: list[str]) -> str:
    """`there is no CertificateProfile pki/wbe; the nearest is pki/web`."""
    wanted = "/".join(key)
    same = sorted(each for each in names if each.endswith(f"/{key[1]}"))
    near = list(dict.fromkeys((*get_close_matches(wanted, names), *same)))[:3]
    if near:
        return f"there is no {kind.kind} {wanted}; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"
    return f"there is no {kind.kind} {wanted}{'' if names else f', and there are no {kind.kinds} at all'}"
