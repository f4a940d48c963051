"""What a client that conforms to RFC 8555 gets over by itself, and no more: no answer, "come again" (503), badNonce.

Its patience is that of cert-manager: five more attempts after a badNonce (C5), pauses that double where nobody answers
or the answer is 503 (C6). For how long altogether, its caller says. Everything else reaches the test.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp

from e2e.load.client import Client, OrderFailed, Refused, http01_of
from e2e.load.keys import certificate_key, certificate_request
from e2e.load.solvers import Publish

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_BAD_NONCES = 5
_POLL = 0.1


async def retried(step: Callable[[], Awaitable[T]], met: Counter[str] | None = None) -> T:
    """The answer of a step, which is tried again as a client would; `met` counts why.

    Raises:
        Refused: the answer is no, or badNonce once too often.
    """
    pause, nonces = _FIRST_PAUSE, 0
    while True:
        try:
            return await step()
        except (aiohttp.ClientError, OSError) as error:
            why = type(error).__name__
        except Refused as refused:
            nonces += refused.answer.problem_type == "badNonce"
            if nonces > _BAD_NONCES or (refused.answer.status != 503 and refused.answer.problem_type != "badNonce"):
                raise
            why = f"{refused.answer.status}, again and again"
        if met is not None:
            met[why] += 1
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def ordered(client: Client, name: str, publish: Publish, met: Counter[str]) -> tuple[str, str]:
    """From new-order to the certificate: the order's URL and the chain.

    Raises:
        OrderFailed: the order became invalid.
    """
    order = await retried(lambda: client.new_order([name]), met)
    for url in order.authorizations:
        challenge = http01_of(await retried(lambda url=url: client.authorization(url), met))  # type: ignore[misc]
        publish(challenge["token"], client.key.thumbprint)
        await retried(lambda challenge=challenge: client.respond(challenge), met)  # type: ignore[misc]
    request = certificate_request([name], certificate_key())
    while (order := await retried(lambda: client.order(order.url), met)).status != "valid":
        if order.status == "invalid":
            raise OrderFailed(f"{order.url}: {order.body}")
        if order.status == "ready":
            await retried(lambda: client.finalize(order, request), met)
        await asyncio.sleep(_POLL)
    return order.url, (await retried(lambda: client.certificate(order), met)).chain
