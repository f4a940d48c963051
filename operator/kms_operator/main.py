"""Wiring: what the operator consists of, how it starts and how it stops.

Of several replicas the one that holds a Lease acts; the others are on standby with an empty cache. Every replica serves
its probes and renews the token of the server beside it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from kms import stop_signals
from kms.clock import system_clock, system_entropy
from kms.cluster.client import Cluster
from kms.cluster.errors import Misconfigured
from kms.cluster.leader_election import LeaderElection
from kms.issuers import KeyStores
from kms_operator.controller import Controller
from kms_operator.health import application, serving
from kms_operator.kopf_watch import Login, login
from kms_operator.list_watch import ListWatch
from kms_operator.looks import looks_of
from kms_operator.metrics import Metrics
from kms_operator.server_token import renewing_server_token
from kms_operator.settings import Intervals, OperatorSettings

POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


_NESTING = 25_000
"""Depth of recursion: the API server stores ten thousand levels, and kopf parses and copies every object as a whole."""
_STACK_OCTETS = 32 * 2**20
"""The stack of a thread that parses as many levels; 4 MB are needed. Memory is taken as it is used."""


def run(settings: OperatorSettings, *, stop: threading.Event | None = None, intervals: Intervals | None = None) -> int:
    """Run the operator until SIGTERM, SIGINT or `stop`. Returns the exit code: 0, or 1 if it cannot run."""
    try:
        with _parsing_deep_objects():
            asyncio.run(_run(settings, stop or threading.Event(), intervals or Intervals()))
    except (Misconfigured, OSError) as error:
        logger.error("the operator cannot run", extra={"error": str(error)})
        return 1
    return 0


@contextmanager
def _parsing_deep_objects() -> Iterator[None]:
    """One deep object, which any tenant can write, must not end the watch of all.

    The operator parses nothing but what an API server has taken. Where strangers' documents are parsed, Python's own
    limit must stay.
    """
    limit, size = sys.getrecursionlimit(), threading.stack_size(_STACK_OCTETS)
    sys.setrecursionlimit(_NESTING)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(size)


async def _run(settings: OperatorSettings, stop: threading.Event, intervals: Intervals) -> None:
    metrics = Metrics()
    with _stop_on_signals(stop):
        cluster = await Cluster.connect(kubeconfig=settings.kubeconfig, context=settings.context, metrics=metrics.api)
        operator = ElectedOperator(settings, cluster, metrics, login=login(settings), intervals=intervals)
        try:
            async with (
                serving(application(metrics, not_ready=operator.not_ready), settings.metrics_listen),
                renewing_server_token(settings, cluster, metrics, stop=stop),
            ):
                await _run_until(stop, operator)
        finally:
            await cluster.close()


async def _run_until(stop: threading.Event, operator: ElectedOperator) -> None:
    logger.info("operator started")
    task = asyncio.create_task(operator.run())
    while not stop.is_set() and not task.done():  # noqa: ASYNC110 - a threading.Event cannot be awaited
        await asyncio.sleep(POLL_SECONDS)
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
        logger.info("operator stopped")
    if not task.cancelled():
        task.result()


class ElectedOperator:
    """Takes part in the leader election, and operates while it leads."""

    def __init__(
        self, settings: OperatorSettings, cluster: Cluster, metrics: Metrics, *, login: Login, intervals: Intervals
    ) -> None:
        self._settings = settings
        self._intervals = intervals
        self._cluster = cluster
        self._metrics = metrics
        self._login = login
        self._list_watch: ListWatch | None = None
        # In a pod the host name is the name of the pod; two operators on one machine differ in the port.
        self._election = LeaderElection(
            cluster,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=f"{socket.gethostname()}:{settings.metrics_listen.port}",
        )
        metrics.leading.set_function(lambda: self._election.leading)

    def not_ready(self) -> str | None:
        """Return why this replica is not ready; None if it is. A replica on standby is ready."""
        if self._list_watch is not None:
            return None if self._list_watch.synced else "waiting for the first list of all resources"
        return None if self._election.has_read_lease else "waiting for the leader election"

    async def run(self) -> None:
        """Operate whenever elected, until cancelled."""
        await self._election.run(self._operate)

    async def _operate(self) -> None:
        key_stores = KeyStores.build(pkcs11_modules=self._settings.pkcs11_modules)
        # A new cache for each term: another replica has written in between.
        controller = Controller(
            self._settings,
            self._cluster,
            self._metrics,
            clock=system_clock,
            entropy=system_entropy,
            instance=socket.gethostname(),
            max_requeue_seconds=self._intervals.longest_requeue,
            looks=looks_of(self._settings, self._cluster),
            look_every=timedelta(seconds=self._intervals.look),
            key_stores=key_stores,
        )
        self._list_watch = ListWatch(
            self._settings,
            self._cluster,
            controller,
            self._metrics,
            login=self._login,
            compare_seconds=self._intervals.compare,
            optional_seconds=self._intervals.optional,
            optional_present_seconds=self._intervals.optional_present,
            optional_soon_seconds=self._intervals.optional_missing,
        )
        try:
            await self._list_watch.sync()
            async with asyncio.TaskGroup() as group:
                group.create_task(controller.run())
                group.create_task(self._list_watch.run())
        finally:
            self._list_watch = None
            await key_stores.close()


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGTERM and SIGINT; Python delivers signals to the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for each in stop_signals.STOP_SIGNALS:
        loop.add_signal_handler(each, stop.set)
    try:
        with stop_signals.unblocked():
            yield
    finally:
        for each in stop_signals.STOP_SIGNALS:
            loop.remove_signal_handler(each)
