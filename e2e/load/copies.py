"""Copies of an order, written straight into etcd."""

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
"""Writes in one transaction: etcd takes 128."""
AT_ONCE = 4
EXPIRED, RETAINED = "zz", "aa"
"""What the names of expired orders begin with, so that etcd can count them, and those of the others."""
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

Stored = Mapping[str, Any]
"""An object as it lies in etcd."""


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
        """How many orders have a name that begins like that."""
        return int((await self._send("kv/range", {**_range(PREFIX + prefix), "count_only": True})).get("count", 0))

    async def write(self, orders: Iterator[Stored]) -> None:
        """Write all of them, some batches at once."""
        batches = iter(lambda: list(itertools.islice(orders, BATCH)), [])

        async def some() -> None:
            for batch in batches:
                await self._send("kv/txn", {"success": [_put(each) for each in batch]})

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(some())

    async def _send(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        async with self.session.post(f"{self.url}/v3/{path}", data=msgspec.json.encode(body)) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = msgspec.json.decode(await answer.read())
        return found


def copies(order: Stored, count: int, *, expired: bool = False) -> Iterator[Stored]:
    """Orders like this one, each with a name, a serial number and an identifier of its own."""
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
    """All keys that begin like that. Octets are in base64 in JSON, which is what the gateway wants and msgspec does."""
    return {"key": prefix.encode(), "range_end": (prefix[:-1] + chr(ord(prefix[-1]) + 1)).encode()}
