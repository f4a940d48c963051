"""The server's identity: the operator asks for tokens of the server's ServiceAccount and hands them over.

A pod has one ServiceAccount, and the two programs that share a pod must not share their rights. So only the operator's
container gets the pod's token. It asks the TokenRequest API for tokens of the server's ServiceAccount, which it may do
for that one alone, and puts them into a folder in memory that the server's container may read. It does so in every
pod, whichever operator acts.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from kms.clock import Clock, system_clock
from kms.cluster.auth import authority_of, source_of
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.cluster.retry import Backoff, Sleep
from kms.cluster.service_account_token import RENEWED_AFTER, TOKEN_SECONDS, Token, hand_over
from kms_operator.metrics import Metrics
from kms_operator.settings import OperatorSettings, ServerIdentity

LEAST_SECONDS = 10.0
"""The least time between two tokens, whatever the clocks of this machine and of the API server say."""

logger = logging.getLogger(__name__)


def renewal_delay(token: Token, *, clock: Clock) -> float:
    """Seconds until a token that was given just now is to be replaced."""
    life = min(token.expiration_timestamp - clock(), timedelta(seconds=TOKEN_SECONDS))
    return max(LEAST_SECONDS, life.total_seconds() * RENEWED_AFTER)


class ServerTokenRenewer:
    """Keeps a token in the folder that the server reads."""

    def __init__(
        self,
        identity: ServerIdentity,
        settings: OperatorSettings,
        cluster: Cluster,
        metrics: Metrics,
        *,
        clock: Clock = system_clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Renew the token in time, again and again until cancelled; a failure is tried again soon."""
        backoff = Backoff()
        while True:
            try:
                token = await self._renew()
            except (ClusterError, OSError) as error:
                delay = backoff.next()
                logger.warning(
                    "the server gets no new token", extra={"error": str(error), "again_in_seconds": round(delay, 1)}
                )
            else:
                backoff.reset()
                delay = renewal_delay(token, clock=self._clock)
                self._metrics.server_token_expires.set(token.expiration_timestamp.timestamp())
            await self._sleep(delay)

    async def _renew(self) -> Token:
        source = source_of(kubeconfig=self._settings.kubeconfig, context=self._settings.context)
        authority = authority_of(await source(anew=True))
        token = await self._cluster.create_token(self._settings.namespace, self._identity.service_account)
        hand_over(self._identity.token_directory, token.token, authority=authority, namespace=self._settings.namespace)
        return token


@asynccontextmanager
async def renewing_server_token(
    settings: OperatorSettings, cluster: Cluster, metrics: Metrics, *, stop: threading.Event
) -> AsyncIterator[None]:
    """Keep the server's token while the block runs, where that is asked for. An end that nobody wanted sets `stop`."""
    if settings.server_identity is None:
        yield
        return
    task = asyncio.create_task(ServerTokenRenewer(settings.server_identity, settings, cluster, metrics).run())
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
