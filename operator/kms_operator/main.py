"""Wiring: what runs beside what, how it starts and how it stops.

Of several replicas one acts, elected by a Lease; the others stand by and hold nothing.

First everything is listed, again and again until the API server answers and serves our kinds; so the operator may be
started before either is there. Then three things run until the stop: the workers, kopf's watches in their thread, and a
list of everything every ten minutes and after each gap in a watch, because what was deleted in a gap is in no event.
Kinds that need not be there are not watched but listed from time to time (`kms_operator.optional_kinds`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from kms.clock import system_clock, system_entropy
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Misconfigured, NotFound, Unavailable
from kms.cluster.leader_election import LeaderElection
from kms.resources.kinds import NAMESPACES, Kind
from kms.resources.meta import Resource
from kms_operator.cache import WATCHED_KINDS
from kms_operator.controller import Controller
from kms_operator.health import application, serving
from kms_operator.kopf_watch import KopfWatch, Login, login
from kms_operator.metrics import Metrics
from kms_operator.optional_kinds import OptionalKinds, complete
from kms_operator.server_token import renewing_server_token
from kms_operator.settings import OperatorSettings

T = TypeVar("T")

REFRESH_SECONDS = 600.0
LOOK_SECONDS = 60.0
LOOK_SOON_SECONDS = 10.0
"""Seconds between two looks for kinds of others, and where one of them is missing that somebody asks for."""
GAP_SECONDS = 2.0
"""How long after the first sign of a gap: a watch that begins anew tells of many objects at once."""
FIRST_BACKOFF, LAST_BACKOFF = 1.0, 30.0
STEADY_SECONDS = 60.0
"""KopfWatch that have lasted that long begin with the first backoff again."""
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


def run(settings: OperatorSettings, *, stop: threading.Event | None = None) -> int:
    """Run the operator until SIGTERM, SIGINT or `stop`. Returns the exit code: 0, or 1 where it could not run."""
    try:
        asyncio.run(_run(settings, stop or threading.Event()))
    except (Misconfigured, OSError) as error:
        logger.error("the operator cannot run", extra={"error": str(error)})
        return 1
    return 0


async def _run(settings: OperatorSettings, stop: threading.Event) -> None:
    metrics = Metrics()
    with _signals(stop):
        cluster = await Cluster.connect(kubeconfig=settings.kubeconfig, context=settings.context, metrics=metrics.api)
        candidate = ElectedOperator(settings, cluster, metrics, login=login(settings))
        try:
            async with (
                serving(application(metrics, ready=candidate.missing), settings.metrics_listen),
                renewing_server_token(settings, cluster, metrics, stop=stop),
            ):
                await _until(stop, candidate)
        finally:
            await cluster.close()


async def _until(stop: threading.Event, candidate: ElectedOperator) -> None:
    logger.info("operator started")
    task = asyncio.create_task(candidate.run())
    while not stop.is_set() and not task.done():  # noqa: ASYNC110 - a threading.Event cannot be awaited
        await asyncio.sleep(POLL_SECONDS)
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
        logger.info("operator stopped")
    if not task.cancelled():
        task.result()


class ElectedOperator:
    """Stands for election, and operates while it is elected."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster, metrics: Metrics, *, login: Login) -> None:
        self._begin = partial(Operator, settings, cluster, metrics, login=login)
        self._operator: Operator | None = None
        # Of two operators on one machine each has a port of its own; in a pod the host is called like the pod.
        self._election = LeaderElection(
            cluster,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=f"{socket.gethostname()}:{settings.metrics_listen.port}",
        )
        metrics.leading.set_function(lambda: self._election.leading)

    def missing(self) -> str | None:
        """What readiness waits for; None where nothing. Who stands by is ready."""
        if self._operator is not None:
            return self._operator.missing()
        return None if self._election.has_read_lease else "the lease has not been seen yet"

    async def run(self) -> None:
        """Operate whenever elected, until cancelled."""
        await self._election.run(self._operate)

    async def _operate(self) -> None:
        self._operator = self._begin()  # nothing is kept from the term before: others have acted since
        try:
            await self._operator.run()
        finally:
            self._operator = None


class Operator:
    """One term of the operator, in one event loop."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster, metrics: Metrics, *, login: Login) -> None:
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._login = login
        self._loop = asyncio.get_running_loop()
        self._listed = False
        self._gap = asyncio.Event()
        self._controller = Controller(
            settings, cluster, metrics, clock=system_clock, entropy=system_entropy, instance=socket.gethostname()
        )
        self._others = OptionalKinds(settings, cluster, self._controller)
        # Labels of namespaces need a right on the whole cluster, which an operator of a few namespaces does not have.
        self._kinds = tuple(each for each in WATCHED_KINDS if each is not NAMESPACES or not settings.watch_namespaces)

    def missing(self) -> str | None:
        """What readiness waits for; None where nothing."""
        return None if self._listed else "not everything has been listed yet"

    async def run(self) -> None:
        """List, then watch and reconcile until cancelled."""
        await self._list()
        settled = await self._others.look(first=True)
        self._listed = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._controller.run())
            group.create_task(self._keep_watching())
            group.create_task(self._keep_listing())
            group.create_task(self._keep_looking(settled=settled))

    async def _keep_listing(self) -> None:
        while True:
            if await _happens(self._gap, within=REFRESH_SECONDS):
                await asyncio.sleep(GAP_SECONDS)
            self._gap.clear()
            await self._list()

    async def _list(self) -> None:
        """List everything. Of a list that fails only that one is taken again.

        Else an API server that refuses every third request would hardly ever let all of them through in a row.
        """
        for kind in self._kinds:
            self._controller.handle_list(
                kind, *await _insisting(partial(complete, self._cluster, kind, self._settings))
            )
        await _insisting(self._learn_labels)
        self._controller.enqueue_all()
        self._metrics.refreshes.inc()

    async def _keep_looking(self, *, settled: bool) -> None:
        while True:
            await _happens(self._controller.asked, within=LOOK_SECONDS if settled else LOOK_SOON_SECONDS)
            self._controller.asked.clear()
            settled = await self._others.look()

    async def _learn_labels(self) -> None:
        """Read the few namespaces that we watch, where all of them together are none of our business."""
        for name in self._settings.watch_namespaces:
            try:
                namespace = await self._cluster.get(NAMESPACES, "", name)
            except NotFound:
                logger.warning("no such namespace", extra={"namespace": name})
            else:
                self._controller.remember(NAMESPACES, namespace, live=True)

    async def _keep_watching(self) -> None:
        """Have kopf watch; whenever it gives up, start it again and list what it has missed."""
        delays = _backoff()
        while True:
            began = self._loop.time()
            with self._metrics.watching.track_inprogress():
                error = await self._watch()
            if self._loop.time() - began > STEADY_SECONDS:
                delays = _backoff()
            delay = next(delays)
            logger.warning("watches ended", extra={"error": repr(error), "again_in_seconds": round(delay, 1)})
            await asyncio.sleep(delay)
            self._gap.set()

    async def _watch(self) -> BaseException | None:
        """Watch in a thread until kopf gives up, and say why it did."""
        watches = KopfWatch(self._settings, self._kinds, deliver=self._deliver, login=self._login)
        thread = asyncio.ensure_future(asyncio.to_thread(watches.run))
        try:
            await asyncio.wait((thread,))
        finally:
            watches.stop()
        return thread.exception()

    def _deliver(self, kind: Kind[Any], type_: str | None, resource: Resource) -> None:
        """From kopf's thread to our loop."""
        self._loop.call_soon_threadsafe(self._take, kind, type_, resource)

    def _take(self, kind: Kind[Any], type_: str | None, resource: Resource) -> None:
        if type_ == "DELETED":
            self._controller.forget(kind, resource)
            return
        self._controller.remember(kind, resource)
        if type_ is None:
            self._gap.set()  # a list: the watch has begun anew


async def _insisting(step: Callable[[], Awaitable[T]]) -> T:
    """What the step comes to, as often as it has to be tried."""
    delays = _backoff()
    while True:
        try:
            return await step()
        except ClusterError as error:
            asked_for = error.retry_after if isinstance(error, Unavailable) else None
            delay = max(next(delays), asked_for or 0.0)
            logger.warning("listing failed", extra={"error": str(error), "again_in_seconds": round(delay, 1)})
            await asyncio.sleep(delay)


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGTERM and SIGINT; Python gives signals to the main thread only."""
    caught = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    loop = asyncio.get_running_loop()
    for each in caught:
        loop.add_signal_handler(each, stop.set)
    try:
        yield
    finally:
        for each in caught:
            loop.remove_signal_handler(each)


async def _happens(event: asyncio.Event, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _backoff() -> Iterator[float]:
    """Seconds to wait after the first failure, the second and so on, spread so that many do not come at once."""
    delay = FIRST_BACKOFF
    while True:
        yield delay * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, hides nothing
        delay = min(delay * 2, LAST_BACKOFF)
