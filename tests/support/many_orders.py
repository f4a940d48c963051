"""Stands in for an API server with many orders, without the time that one takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import msgspec

from kms.cluster.codec import Page, WatchEvent
from kms.resources.kinds import Kind
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import Identifier
from kms_acme.certificates import LISTED_ORDERS, ListedOrder
from tests.support.shown_cluster import AT

CA = "ab" * 20
PROFILES, ACCOUNTS = 4, 500


def listed(number: int) -> ListedOrder:
    """An order; every tenth has failed. Certificates end within 80 days."""
    order = LISTED_ORDERS.model(
        metadata=ObjectMeta(namespace="pki", name=f"{number:0>32}", creation_timestamp=AT - timedelta(minutes=number)),
        spec=_SPEC(
            account_ref=LocalRef(name=f"account-{number % ACCOUNTS:0>24}"),
            profile_ref=LocalRef(name=f"profile-{number % PROFILES}"),
            identifiers=(Identifier(type="dns", value=f"host-{number}.apps.example.com"),),
            expires=AT + timedelta(days=1),
        ),
    )
    if number % 10 == 9:
        error = {"type": "connection", "detail": f"Connecting to host-{number}.apps.example.com port 80 failed"}
        status = msgspec.convert({"state": "invalid", "error": error}, _STATUS)
    else:
        status = _STATUS(
            state="valid",
            serial_number=f"{number:032x}",
            authority_key_id=CA,
            issued_at=AT - timedelta(minutes=number),
            not_before=AT - timedelta(minutes=number),
            not_after=AT + timedelta(days=number % 80, minutes=1),
        )
    return msgspec.structs.replace(order, status=status)


_FIELDS = {each.name: each.type for each in msgspec.structs.fields(ListedOrder)}
_SPEC, _STATUS = _FIELDS["spec"], _FIELDS["status"]


class ManyOrders:
    """The part of a cluster's interface that the console uses. All lists but that of orders are empty.

    A list waits before each page after the first `free` ones until `release` is set.
    """

    def __init__(self, number: int, *, free: int = 1_000_000) -> None:
        self.number = number
        self.release = asyncio.Event()
        self.largest = 0
        self._free = free

    async def version(self, *_: object) -> str:
        return "1"

    async def raw_page(
        self, kind: Kind[Any], _namespace: str | None = None, *, limit: int, token: str = "", **_: object
    ) -> Page:
        if kind.plural != LISTED_ORDERS.plural:
            return Page(items=(), resource_version="1", continue_token="", octets=0)
        self._free -= 1
        if self._free < 0:
            await self.release.wait()
        first = int(token or 0)
        last = min(first + limit, self.number)
        self.largest = max(self.largest, last - first)
        items = tuple(msgspec.Raw(msgspec.json.encode(listed(number))) for number in range(first, last))
        octets = 4 * sum(map(len, items))  # stored orders are longer
        return Page(items, "1", str(last) if last < self.number else "", octets)

    async def watch(self, *_: object, **__: object) -> AsyncGenerator[WatchEvent[Any], None]:
        await asyncio.Event().wait()
        yield WatchEvent("BOOKMARK", None, "1")
