"""What a client that conforms to RFC 8555 gets over by itself: no answer, "come again" (503) and badNonce."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp

from e2e.load.client import Client, OrderFailed, Publish, Refused, http01_of
from e2e.load.keys import certificate_key, certificate_request

T = TypeVar("T")

_PAUSE = 0.1


async def insisting(step: Callable[[], Awaitable[T]], met: Counter[str] | None = None) -> T:
    """The answer of a step, which is tried until there is one; `met` counts why it was tried again."""
    while True:
        try:
            return await step()
        except (aiohttp.ClientError, OSError) as error:
            why = type(error).__name__
            await asyncio.sleep(_PAUSE)
        except Refused as refused:
            if refused.answer.status != 503 and refused.answer.problem_type != "badNonce":
                raise
            why = f"{refused.answer.status}, again and again"
        if met is not None:
            met[why] += 1


async def ordered(client: Client, name: str, publish: Publish, met: Counter[str]) -> tuple[str, str]:
    """From new-order to the certificate: the order's URL and the chain.

    Raises:
        OrderFailed: the order became invalid.
    """
    order = await insisting(lambda: client.new_order([name]), met)
    for url in order.authorizations:
        challenge = http01_of(await insisting(lambda url=url: client.authorization(url), met))  # type: ignore[misc]
        publish(challenge["token"], client.key.thumbprint)
        await insisting(lambda challenge=challenge: client.respond(challenge), met)  # type: ignore[misc]
    request = certificate_request([name], certificate_key())
    while (order := await insisting(lambda: client.order(order.url), met)).status != "valid":
        if order.status == "invalid":
            raise OrderFailed(f"{order.url}: {order.body}")
        if order.status == "ready":
            await insisting(lambda: client.finalize(order, request), met)
        await asyncio.sleep(_PAUSE)
    return order.url, (await insisting(lambda: client.certificate(order), met)).chain
