"""The process: it serves until it is told to stop, and then drains."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import aiohttp
import uvloop

from acme_server.api.problems import malformed_http
from acme_server.audit.log import decisions
from acme_server.metrics import Metrics
from acme_server.server import Server
from acme_server.settings import ServerSettings
from acme_server.tasks import BackgroundTasks
from kms import stop_signals
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.cluster.service_account_token import wait_for_token
from kms.connections import ConnectionLimits
from kms.issuers import KeyStores
from kms.listener import accepting, allow_open_files, running_listener

logger = logging.getLogger(__name__)

_INTERNAL = ConnectionLimits(maximum=512, per_address=64)
"""For probes, metrics and the other replicas."""
_OTHER_FILES = 1024
"""Besides those for connections of clients: validation, DNS, the API server."""


@dataclass(frozen=True, slots=True)
class ShutdownTimes:
    """Seconds that each step of a shutdown may take.

    A replica among others still serves while it is `leaving` the EndpointSlices. Then `requests` may end by themselves,
    and take as long again after they were cancelled; `validations` end, and their results are written.
    `plain_requests` have little time: clients can repeat them.
    """

    leaving: float = 2.0
    requests: float = 8.0
    validations: float = 4.0
    plain_requests: float = 0.5
    internal_requests: float = 1.0

    @property
    def longest(self) -> float:
        """How long a shutdown takes at most."""
        requests = self.requests + self.plain_requests + self.internal_requests
        return self.leaving + 2 * requests + self.validations


def _warn_of_test_settings(settings: ServerSettings) -> None:
    """RFC 8555 and 8737 fix the ports of challenges: on another port, unprivileged processes could answer them."""
    for option, port, standard in (
        ("--http01-port", settings.validation.http01_port, 80),
        ("--tls-alpn01-port", settings.validation.tls_alpn01_port, 443),
    ):
        if port != standard:
            logger.warning("%s is for tests only", option, extra={"port": port, "standard": standard})


async def serve(settings: ServerSettings, *, stop: asyncio.Event, times: ShutdownTimes | None = None) -> None:
    """Serve until `stop` is set, then drain. Raises OSError and ClusterError if the server cannot start."""
    times = times or ShutdownTimes()
    _warn_of_test_settings(settings)
    if not await _wait_for_token(settings, stop):
        return
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        cluster = await Cluster.connect(
            kubeconfig=settings.kubeconfig,
            context=settings.context,
            token_directory=settings.token_directory,
            metrics=metrics.api,
        )
        stack.push_async_callback(cluster.close)
        session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        key_stores = KeyStores.build(pkcs11_modules=settings.pkcs11_modules)
        stack.push_async_callback(key_stores.close)
        server = Server.build(settings, cluster, metrics=metrics, session=session, key_stores=key_stores)
        stack.callback(server.audit.close)
        stack.push_async_callback(server.services.external.close)  # after the task that follows the CAs
        background = BackgroundTasks()
        stack.push_async_callback(background.stop)
        stack.push_async_callback(server.services.worker.drain, times.validations)
        stack.push_async_callback(server.services.issuance.drain, times.validations)
        internal = await stack.enter_async_context(
            running_listener(server.internal, drain=times.internal_requests, limits=_INTERNAL)
        )
        accepting_internal = await stack.enter_async_context(accepting(internal, settings.metrics_listen))
        background.start(server.works)
        await _wait_for_any(server.certificate.loaded, stop)
        if not stop.is_set():
            await _serve_acme(settings, server, stop, accepting_internal, times)


async def _wait_for_token(settings: ServerSettings, stop: asyncio.Event) -> bool:
    """Wait for the first token from the operator, if the operator supplies tokens. False: `stop` was set first."""
    if settings.token_directory is None:
        return True
    waiting = asyncio.create_task(wait_for_token(settings.token_directory))
    await _wait_for_any(waiting, stop)
    return not waiting.cancel()


async def _serve_acme(
    settings: ServerSettings,
    server: Server,
    stop: asyncio.Event,
    accepting_internal: asyncio.Task[None],
    times: ShutdownTimes,
) -> None:
    """Accept connections until `stop` is set; then let requests end."""
    async with AsyncExitStack() as stack:
        limited = partial(
            running_listener,
            limits=settings.connections,
            answer_error=malformed_http,
            on_refused=server.metrics.count_refused_connection,
            on_evicted=server.metrics.count_evicted_connection,
        )
        acme = await stack.enter_async_context(
            limited(server.acme, context=server.certificate.context, drain=times.requests)
        )
        plain = await stack.enter_async_context(limited(server.plain, drain=times.plain_requests))
        server.metrics.watch_connections(lambda: acme.count() + plain.count())
        tasks = [
            await stack.enter_async_context(accepting(acme, settings.listen, shared=settings.workers > 1)),
            await stack.enter_async_context(accepting(plain, settings.http_listen, shared=settings.workers > 1)),
            accepting_internal,
        ]
        logger.info(
            "serving",
            extra={
                "url": settings.external_url,
                "listen": str(settings.listen),
                "http_listen": str(settings.http_listen),
            },
        )
        await _wait_for_any(stop, *tasks)
        for each in tasks:
            if each.done():
                each.result()  # raises: a listener accepts forever
        server.readiness.shutting_down = True
        logger.info("shutting down")
        if settings.peer_service is not None:
            # From now on each answer closes its connection, so that clients go to the other replicas.
            await asyncio.sleep(times.leaving)


async def _wait_for_any(*things: asyncio.Event | asyncio.Task[None]) -> None:
    """Wait until one of the events is set or one of the tasks ends."""
    waits = [asyncio.ensure_future(each.wait()) if isinstance(each, asyncio.Event) else each for each in things]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait, thing in zip(waits, things, strict=True):
        if wait is not thing:
            wait.cancel()


def run(
    settings: ServerSettings,
    *,
    gc_thresholds: tuple[int, int, int] = (10_000, 20, 50),
    parent: int | None = None,
) -> int:
    """Run the server until SIGTERM or Ctrl-C. Returns the exit code: 0, or 1 if it could not start or broke down.

    It also stops when `parent`, a file descriptor of a pipe, is closed at its other end. `gc_thresholds` make Python
    collect rarely: a request creates hundreds of objects and hardly a cycle.
    """
    with stop_signals.blocked():
        # The imported modules stay. Collecting them again and again would only cost time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*gc_thresholds)
        allow_open_files(2 * settings.connections.maximum + _INTERNAL.maximum + _OTHER_FILES)
        if settings.audit_log:
            decisions.setLevel(logging.WARNING)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(_until_signal(settings, parent))
            except (OSError, ClusterError) as error:
                logger.error("cannot serve", extra={"error": str(error)})
                return 1
    return 0


async def _until_signal(settings: ServerSettings, parent: int | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if parent is not None:

        def on_parent_ended() -> None:
            loop.remove_reader(parent)
            stop.set()

        loop.add_reader(parent, on_parent_ended)
    for number in stop_signals.STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    with stop_signals.unblocked():
        await serve(settings, stop=stop)
