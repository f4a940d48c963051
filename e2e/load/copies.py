"""Copy an ACMEOrder directly in etcd."""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec

from e2e.load.measure import ZONE
from e2e.load.writes import NAMESPACE

PREFIX = f"/registry/pki.kms.hanzo.ai/acmeorders/{NAMESPACE}/"
BATCH = 100
"""Writes per transaction; etcd allows 128."""
AT_ONCE = 4
EXPIRED, RETAINED = "zz", "aa"
"""Prefixes of the names of expired and of valid orders, so that etcd can count each kind."""
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

Stored = Mapping[str, Any]
"""An object as etcd stores it."""


@dataclass(frozen=True, slots=True)
class Etcd:
    """Reads and writes orders through the JSON gateway of etcd."""

    session: aiohttp.ClientSession
    url: str

    async def first(self) -> Stored:
        """The first order of the namespace."""
        found = await self._send("kv/range", {**_range(PREFIX), "limit": 1})
        stored: Stored = msgspec.json.decode(base64.b64decode(found["kvs"][0]["value"]))
        return stored

    async def count(self, prefix: str = "") -> int:
        """The number of orders whose name starts with this prefix."""
        return int((await self._send("kv/range", {**_range(PREFIX + prefix), "count_only": True})).get("count", 0))

    async def size(self, key: str) -> int:
        """The length of the value of this key in bytes.

        Raises:
            LookupError: if there is none.
        """
        found = await self._send("kv/range", {"key": base64.b64encode(key.encode()).decode()})
        if not found.get("kvs"):
            raise LookupError(f"etcd has no {key}")
        return len(base64.b64decode(found["kvs"][0]["value"]))

    async def write(self, orders: Iterator[Stored]) -> None:
        """Write all orders, AT_ONCE batches concurrently."""
        batches = iter(lambda: list(itertools.islice(orders, BATCH)), [])

        async def worker() -> None:
            for batch in batches:
                await self._send("kv/txn", {"success": [_put(each) for each in batch]})

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(worker())

    async def _send(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        async with self.session.post(f"{self.url}/v3/{path}", data=msgspec.json.encode(body)) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = msgspec.json.decode(await answer.read())
        return found


def copies(order: Stored, count: int, *, expired: bool = False) -> Iterator[Stored]:
    """Copies of an order, each with its own name, serial number and identifier."""
    ended = f"{datetime.now(UTC) - timedelta(days=400):%Y-%m-%dT%H:%M:%SZ}"
    metadata, spec, status = (order[each] for each in ("metadata", "spec", "status"))
    (authorization,) = status["authorizations"]
    past_spec, past_status, past_authorization = {}, {}, {}
    if expired:
        past_spec = past_authorization = {"expires": ended}
        past_status = {"notBefore": ended, "notAfter": ended}
    for number in range(count):
        name = "".join(secrets.choice(LETTERS) for _ in range(32))
        identifier = {"type": "dns", "value": f"{'expired' if expired else 'retained'}-{number}.{ZONE}"}
        yield {
            **order,
            "metadata": {**metadata, "name": (EXPIRED if expired else RETAINED) + name[2:], "uid": str(uuid.uuid4())},
            "spec": {**spec, "identifiers": [identifier], **past_spec},
            "status": {
                **status,
                "authorizations": [{**authorization, "identifier": identifier, **past_authorization}],
                "serialNumber": secrets.token_hex(16).replace("0", "1"),
                "publicKeyDigest": secrets.token_hex(32),
                **past_status,
            },
        }


def _put(order: Stored) -> dict[str, Any]:
    key = f"{PREFIX}{order['metadata']['name']}".encode()
    return {"requestPut": {"key": key, "value": msgspec.json.encode(order)}}


def _range(prefix: str) -> dict[str, bytes]:
    """The range of all keys with this prefix. The gateway expects bytes in base64, as msgspec encodes them."""
    return {"key": prefix.encode(), "range_end": (prefix[:-1] + chr(ord(prefix[-1]) + 1)).encode()}
