"""The retries of a client that conforms to RFC 8555: after no answer, 503 and badNonce.

They match those of cert-manager: five more attempts after badNonce, and exponential back-off after 503 or no answer.
The caller limits the total time. Other errors reach the test.
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
    """Run a step with retries; `met` counts their reasons.

    Raises:
        Refused: the server answers with another problem, or too often with badNonce.
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
    """Obtain a certificate; the URL of the order, and the chain.

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
