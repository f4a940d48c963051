"""Renews the token of the server's ServiceAccount, where server and operator share a pod.

A pod has one ServiceAccount, but the two programs must not share their permissions. So only the operator's container
gets the pod's token. It requests tokens of the server's ServiceAccount (TokenRequest API, permitted for that account
alone) and writes them to an in-memory volume that the server's container reads. Every replica does so, also on standby.
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

logger = logging.getLogger(__name__)


def renewal_delay(token: Token, *, clock: Clock, min_seconds: float = 10.0) -> float:
    """Return the seconds until a new token must be renewed; at least `min_seconds`, even if the clocks differ."""
    life = min(token.expiration_timestamp - clock(), timedelta(seconds=TOKEN_SECONDS))
    return max(min_seconds, life.total_seconds() * RENEWED_AFTER)


class ServerTokenRenewer:
    """Keeps a valid token in the folder that the server reads."""

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
        """Renew the token in time, until cancelled; retry soon after a failure."""
        backoff = Backoff()
        while True:
            try:
                token = await self._renew()
            except (ClusterError, OSError) as error:
                delay = backoff.next()
                logger.warning(
                    "renewing the server's token failed",
                    extra={"error": str(error), "retry_in_seconds": round(delay, 1)},
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
    settings: OperatorSettings,
    cluster: Cluster,
    metrics: Metrics,
    *,
    stop: threading.Event,
    clock: Clock = system_clock,
) -> AsyncIterator[None]:
    """Renew the server's token while the block runs, if the settings say so. If renewing fails for good, set `stop`."""
    if settings.server_identity is None:
        yield
        return
    task = asyncio.create_task(
        ServerTokenRenewer(settings.server_identity, settings, cluster, metrics, clock=clock).run()
    )
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
