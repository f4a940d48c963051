"""Reads what a backup has from a cluster, and writes the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kms.cluster.client import Cluster
from kms.cluster.errors import Unserved
from kms.cluster.list_all import list_all
from kms.resources.kinds import Kind
from kms.resources.meta import Unreadable
from kms.resources.secret_names import COMPONENT, MANAGED_BY, MANAGER, SERVING_AUTHORITY, serving_authority_name
from kms_acme.backup.contents import (
    CHAIN,
    CONFIGURATION,
    INVENTORY,
    KEY_COMPONENTS,
    RECORD,
    SECRET,
    Entry,
    Stored,
    component,
)
from kms_acme.backup.plan import Target

KEYS_SELECTOR = f"{MANAGED_BY}={MANAGER},{COMPONENT} in ({','.join(KEY_COMPONENTS)})"


async def collect(
    cluster: Cluster, source: Target, *, orders: bool, on_unreadable: Callable[[Unreadable], None]
) -> AsyncIterator[Entry]:
    """Configuration, then keys and revocations, then accounts, orders and chains if wanted. Raises ClusterError.

    The keys come after the configuration: a CA that is created meanwhile is in neither, not without its key. The chains
    come after the orders, so none is missing to which an order refers.
    """
    for kind in CONFIGURATION:
        async for each in list_all(cluster, kind, on_unreadable=on_unreadable):
            yield Entry(kind, each)
    async for page in cluster.list_pages(SECRET, source.namespace, labels=KEYS_SELECTOR):
        for unreadable in page.unreadable:
            on_unreadable(unreadable)
        for secret in (Entry(SECRET, one) for one in page.items):
            of_another = secret.object.metadata.name != serving_authority_name(source.service_name)
            if component(secret) != SERVING_AUTHORITY or not of_another:
                yield secret
    async for each in list_all(cluster, RECORD, source.namespace, on_unreadable=on_unreadable):
        yield Entry(RECORD, each)
    kinds = await _inventory(cluster) if orders else ()
    for kind in kinds:
        async for each in list_all(cluster, kind, on_unreadable=on_unreadable):
            yield Entry(kind, each)


async def _inventory(cluster: Cluster) -> tuple[Kind[Stored], ...]:
    """The kinds of accounts, orders and chains. With the CRDs of an earlier release, a cluster has no chains."""
    try:
        await cluster.version(CHAIN)
    except Unserved:
        return tuple(each for each in INVENTORY if each is not CHAIN)
    return INVENTORY


@contextmanager
def private_file(path: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """A file that only its owner can read and that has its name once it is complete.

    Raises FileExistsError at the end, unless it may `replace` a file of that name, and OSError.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # its mode is 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not replace:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # takes the name, or fails
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
