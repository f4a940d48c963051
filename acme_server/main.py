"""The process: what is built from what, in which order things start, and how they end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import uvloop
from aiohttp import web

from acme_server.api.application import acme_application, internal_application, plain_application
from acme_server.api.listener import KEEP_ALIVE, SILENT, HTTPLog, Listener, listen
from acme_server.api.readiness import Readiness
from acme_server.api.tls import ServingCertificate
from acme_server.informers import Informers
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.replicas import Replicas
from acme_server.settings import ServerSettings, default_http_url
from acme_server.tasks import BackgroundTasks, Work
from acme_server.urls import URLs
from acme_server.validation.dns.client import Resolver
from acme_server.validation.dns01 import DNS01
from acme_server.validation.http01 import HTTP01
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.tlsalpn01 import TLSALPN01
from acme_server.wiring import ObjectLimits, Services
from kms.clock import Clock, Entropy, system_clock, system_entropy
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.cluster.leader_election import LeaderElection
from kms.cluster.service_account_token import wait_for_token
from kms.contract import lease_name
from kms.resources import Secret
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms.resources.secret_names import NONCE_SECRET

logger = logging.getLogger(__name__)

_LEAVING = 2.0
"""Seconds in which a replica that is to end still serves, until nobody sends it clients any more."""
_DRAIN = 8.0
"""Seconds for requests to end by themselves, and as many again after they were cancelled: 25 in all with the rest."""
_OUTCOMES_DRAIN = 4.0
"""Seconds for validations to end and to be written down."""
_INTERNAL_DRAIN = 1.0
_PLAIN_DRAIN = 0.5
"""Short: what is served without TLS can be asked for again."""
_COLLECT_AFTER = (10_000, 20, 50)
"""Thresholds of the garbage collector: a request makes hundreds of objects and hardly a cycle."""


@dataclass(frozen=True, slots=True)
class Server:
    """All that runs in the process. `acme` and `plain` are for the world, `internal` for the cluster."""

    acme: web.Application
    plain: web.Application
    internal: web.Application
    certificate: ServingCertificate
    metrics: Metrics
    readiness: Readiness
    services: Services
    works: dict[str, Work]


def build(
    settings: ServerSettings,
    cluster: Cluster,
    *,
    metrics: Metrics,
    session: aiohttp.ClientSession,
    clock: Clock = system_clock,
    entropy: Entropy = system_entropy,
) -> Server:
    """Wire everything up. Nothing is sent or listened to before `works` are begun. Needs the running event loop."""
    urls = URLs(settings.external_url)
    nonces = Nonces(clock=clock, entropy=entropy)
    certificate = ServingCertificate()
    readiness = Readiness()

    def on_secret(secret: Secret, deleted: bool) -> None:  # noqa: FBT001 - the signature that informers call
        if secret.metadata.namespace != settings.namespace or deleted:
            return
        if secret.metadata.name == settings.nonce_secret:
            nonces.use(secret.data.get(NONCE_SECRET, b""))
        elif secret.metadata.name == settings.serving_secret and settings.tls_certificate is None:
            certificate.load_secret(secret)

    http_url = settings.http_url or default_http_url(settings.external_url, settings.http_listen)
    urls = URLs(settings.external_url, http_url=http_url)
    sources = Informers(settings, cluster, on_secret=on_secret)
    replicas = Replicas(
        nonces=nonces,
        slices=sources.replicas.values if sources.replicas is not None else None,
        session=session,
        clock=clock,
        entropy=entropy,
    )
    services = Services.build(
        cluster=cluster,
        namespace=settings.namespace,
        namespaces=settings.watch_namespaces,
        configuration=sources.configuration,
        validators={
            "http-01": HTTP01.build(settings.validation),
            "dns-01": DNS01.build(settings.validation),
            "tls-alpn-01": TLSALPN01.build(settings.validation),
        },
        lookup_caa=Resolver.build(settings.validation.resolvers).caa,
        urls=urls,
        replica=_place(settings),
        is_sole_writer=replicas.is_sole_writer,
        limits=ObjectLimits(orders=settings.maximum_orders, accounts=settings.maximum_accounts),
        objection=AddressFilter(settings.validation).objection,
        metrics=metrics,
        clock=clock,
        entropy=entropy,
    )
    readiness.require(
        sources.conditions
        | {
            "changes of accounts": services.account_feed.following.is_set,
            "changes of orders": services.order_feed.following.is_set,
            "the list of accounts": services.account_sync.done.is_set,
            "the list of orders": services.order_sync.done.is_set,
            "the nonce key": lambda: nonces.ready,
            "the serving certificate": certificate.loaded.is_set,
        }
    )
    sources.watched_by(metrics)
    metrics.watch_cache("accounts", services.account_store.__len__, services.account_feed.last_activity)
    metrics.watch_cache("orders", services.order_store.__len__, services.order_feed.last_activity)
    metrics.watch_objects(ORDERS.plural, services.order_quota.__len__, settings.maximum_orders)
    metrics.watch_objects(ACCOUNTS.plural, services.account_quota.__len__, settings.maximum_accounts)
    election = LeaderElection(
        cluster,
        namespace=settings.namespace,
        name=lease_name(settings.service_name, "server"),
        identity=_place(settings),
        clock=clock,
    )
    metrics.watch_leading(lambda: election.leading)
    works = sources.works | {
        "sweep": partial(election.run, services.garbage_collector.run),
        "unfinished orders": partial(services.unfinished_orders.run, services.orders.finish),
        "accounts": services.account_feed.run,
        "orders": services.order_feed.run,
        "survey of accounts": services.account_sync.run,
        "survey of orders": services.order_sync.run,
        "end of orders": services.cancellation.run,
        "peers": replicas.run,
        "event loop": metrics.measure_loop_delay,
    }
    if settings.tls_certificate is not None and settings.tls_private_key is not None:
        works["serving certificate"] = partial(
            certificate.follow_files, settings.tls_certificate, settings.tls_private_key
        )
    acme = acme_application(
        urls=urls,
        nonces=nonces,
        redeemer=replicas,
        profiles=services.profiles,
        accounts=services.accounts,
        credentials=services.credentials,
        orders=services.orders,
        renewals=services.renewals,
        revocations=services.revocations,
        publication=services.publication,
        metrics=metrics,
        readiness=readiness,
    )
    plain = plain_application(publication=services.publication, metrics=metrics, readiness=readiness)
    internal = internal_application(replicas=replicas, metrics=metrics, readiness=readiness)
    return Server(acme, plain, internal, certificate, metrics, readiness, services, works)


def _place(settings: ServerSettings) -> str:
    """Where this process runs, the same after a restart: in a pod, the host is called like the pod."""
    return f"{socket.gethostname()}:{settings.listen.port}"


def _warn_of_test_settings(settings: ServerSettings) -> None:
    """RFC 8555 and 8737 fix the ports of challenges: elsewhere, whoever may open a high port could answer them."""
    for option, port, standard in (
        ("--http01-port", settings.validation.http01_port, 80),
        ("--tls-alpn01-port", settings.validation.tls_alpn01_port, 443),
    ):
        if port != standard:
            logger.warning("%s is for tests only", option, extra={"port": port, "standard": standard})


async def serve(settings: ServerSettings, *, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then end within 25 seconds. Raises OSError and ClusterError where it cannot begin."""
    _warn_of_test_settings(settings)
    if not await _is_handed_a_token(settings, stop):
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
        server = build(settings, cluster, metrics=metrics, session=session)
        background = BackgroundTasks()
        stack.push_async_callback(background.stop)
        stack.push_async_callback(server.services.worker.drain, _OUTCOMES_DRAIN)
        internal = await stack.enter_async_context(_runner(server.internal, drain=_INTERNAL_DRAIN))
        await web.TCPSite(internal, settings.metrics_listen.host or None, settings.metrics_listen.port).start()
        background.start(server.works)
        await _until_one(server.certificate.loaded, stop)
        if not stop.is_set():
            await _serve_acme(settings, server, stop)


async def _is_handed_a_token(settings: ServerSettings, stop: asyncio.Event) -> bool:
    """Wait for the operator's first token, where it is to come from there; False where `stop` came first."""
    if settings.token_directory is None:
        return True
    waiting = asyncio.create_task(wait_for_token(settings.token_directory))
    await _until_one(waiting, stop)
    return not waiting.cancel()


async def _serve_acme(settings: ServerSettings, server: Server, stop: asyncio.Event) -> None:
    """Accept connections from the world until `stop` is set; then let what was begun come to its end."""
    async with AsyncExitStack() as stack:
        acme = await _listener(stack, server.acme, server.certificate.context, server.metrics, drain=_DRAIN)
        plain = await _listener(stack, server.plain, None, server.metrics, drain=_PLAIN_DRAIN)
        server.metrics.watch_connections(lambda: acme.count() + plain.count())
        sockets = [stack.enter_context(listen(each)) for each in (settings.listen, settings.http_listen)]
        accepting = [
            asyncio.create_task(listener.accept(listening))
            for listener, listening in zip((acme, plain), sockets, strict=True)
        ]
        logger.info(
            "serving",
            extra={
                "url": settings.external_url,
                "listen": str(settings.listen),
                "http_listen": str(settings.http_listen),
            },
        )
        await _until_one(stop, *accepting)
        for each in accepting:
            if each.done():
                each.result()  # raises: accepting never ends by itself
        server.readiness.shutting_down = True
        logger.info("shutting down")
        if settings.peer_service is not None:
            # Others can take over. From now on each answer closes its connection, so that clients go there.
            await asyncio.sleep(_LEAVING)
        for each in accepting:
            each.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)


async def _listener(
    stack: AsyncExitStack,
    application: web.Application,
    context: ssl.SSLContext | None,
    metrics: Metrics,
    *,
    drain: float,
) -> Listener:
    """What accepts connections for an application that runs until the stack ends."""
    runner = await stack.enter_async_context(_runner(application, drain=drain))
    if runner.server is None:
        raise RuntimeError("the runner has not been set up")
    return Listener(
        server=runner.server, context=context, silent=application[SILENT], on_refused=metrics.count_refused_connection
    )


@asynccontextmanager
async def _runner(application: web.Application, *, drain: float) -> AsyncIterator[web.AppRunner]:
    """A running application, with the limits that keep slow and greedy clients at bay."""
    runner = web.AppRunner(
        application,
        access_log=None,
        logger=HTTPLog(logger),
        shutdown_timeout=drain,
        keepalive_timeout=KEEP_ALIVE,
        max_line_size=4096,
        max_field_size=4096,
        max_headers=64,
        lingering_time=2.0,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


async def _until_one(*things: asyncio.Event | asyncio.Task[None]) -> None:
    """Wait until one of the events is set or one of the tasks ends."""
    waits = [asyncio.ensure_future(each.wait()) if isinstance(each, asyncio.Event) else each for each in things]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait, thing in zip(waits, things, strict=True):
        if wait is not thing:
            wait.cancel()


def run(settings: ServerSettings) -> int:
    """Run the server until SIGTERM or Ctrl-C. The exit code: 0, or 1 where it could not begin or broke down."""
    # What is imported by now stays; collecting it again and again would only cost time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_until_signal(settings))
        except (OSError, ClusterError) as error:
            logger.error("cannot serve", extra={"error": str(error)})
            return 1
    return 0


async def _until_signal(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop=stop)
