"""kopf, used as a watch: it delivers events and does nothing else. docs/design/2026-11-30-kopf-as-a-watch.md says why.

The only handlers are `on.event`. Handlers of changes, timers and daemons keep their progress in annotations, copy
Secrets into them, or add finalizers. kopf's indexes keep what was deleted in a gap, and learn of the operator's own
writes late; its probes answer in its own thread, even if the operator's loop hangs.

kopf runs in a thread with an event loop of its own, because it cancels every task of its loop when it stops. By design
it stops on many errors of the API server; `list_watch` then starts it again and lists what it missed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from kms.cluster.auth import source_of
from kms.cluster.codec import convert
from kms.cluster.errors import Undecodable
from kms.resources.kinds import ACCOUNTS, SECRETS, Kind
from kms.resources.meta import Resource, Unreadable
from kms_operator.kinds import LABEL_SELECTORS
from kms_operator.settings import OperatorSettings

Deliver = Callable[[Kind[Any], str | None, Resource | Unreadable], None]
"""Called for each event with kind, type (None: from a list; else ADDED, MODIFIED, DELETED) and object."""
Login = Callable[[], Awaitable[kopf.ConnectionInfo]]

PAGE_SIZE = 500
SERVER_TIMEOUT = 600
CONNECT_TIMEOUT = 10
REQUEST_TIMEOUT = 60
STOP_SECONDS = 5.0
STOP_ATTEMPTS = 10
"""How long kopf's tasks may take to end, and how often they are cancelled meanwhile."""
TOKEN_LIFETIME = timedelta(minutes=10)
"""After which kopf reads the credentials again; otherwise it uses a token until the API server refuses it."""

logger = logging.getLogger(__name__)


class KopfWatch:
    """Watches some kinds; `run` blocks the thread that calls it."""

    def __init__(
        self, settings: OperatorSettings, kinds: Iterable[Kind[Any]], *, deliver: Deliver, login: Login
    ) -> None:
        self._settings = settings
        self._kinds = tuple(kinds)
        self._deliver = deliver
        self._login = login
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def run(self) -> None:
        """Watch until `stop`. Raises kopf's error if it gives up."""
        # Not asyncio.run, which waits forever for a task that cannot be cancelled.
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(_log_unattended_task)
        try:
            loop.run_until_complete(self._watch())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def stop(self) -> None:
        """End `run`, from any thread; a later `run` returns at once."""
        self._stopping.set()
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _watch(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._stopping.is_set():
            return
        namespaces = dict.fromkeys((*self._settings.watch_namespaces, self._settings.namespace))
        clusterwide = not self._settings.watch_namespaces
        # kopf warns that it does not handle signals; the operator does.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        roots = await kopf.spawn_tasks(
            registry=registry(self._kinds, deliver=self._deliver, login=self._login),
            settings=settings(),
            standalone=True,
            clusterwide=clusterwide,
            namespaces=() if clusterwide else tuple(namespaces),
            stop_flag=self._stop,
        )
        ended, _ = await asyncio.wait(roots, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(roots)
        for each in ended:
            each.result()


def _log_unattended_task(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what asyncio reports of tasks that kopf left behind; kopf has logged their errors already."""
    logger.debug("kopf left a task behind", extra={"error": context["message"]})


async def _cancel(roots: Collection[asyncio.Task[Any]]) -> None:
    """Cancel all tasks of kopf. Its own run_tasks waits forever if a watch was logging in when kopf gave up."""
    for each in roots:
        each.cancel()
    # One of them closes the connections after the others have ended, so the roots are cancelled only once.
    await asyncio.wait(roots, timeout=STOP_SECONDS)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(STOP_ATTEMPTS):
        for each in left:
            each.cancel()
        if not left:
            return
        _, left = await asyncio.wait(left, timeout=STOP_SECONDS / STOP_ATTEMPTS)
    logger.warning("kopf's tasks did not end", extra={"tasks": ", ".join(each.get_name() for each in left)})


def registry(kinds: Iterable[Kind[Any]], *, deliver: Deliver, login: Login) -> kopf.OperatorRegistry:
    """Return the handlers for the events of these kinds, and the one that logs in."""
    handlers = kopf.OperatorRegistry()
    for kind in kinds:
        on_event = kopf.on.event(
            group=kind.group, version=kind.version, plural=kind.plural, registry=handlers, id=kind.plural
        )
        on_event(event_handler(kind, deliver=deliver))

    @kopf.on.login(registry=handlers, id="login", backoff=5.0)
    async def _login(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    return handlers


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: what it must not do, and how long it waits."""
    chosen = kopf.OperatorSettings()
    chosen.process.ultimate_exiting_timeout = None  # else kopf kills this process ten minutes after an unclean end
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = SERVER_TIMEOUT
    chosen.watching.client_timeout = SERVER_TIMEOUT + CONNECT_TIMEOUT
    chosen.watching.connect_timeout = CONNECT_TIMEOUT
    chosen.watching.chunk_size = PAGE_SIZE
    chosen.networking.request_timeout = REQUEST_TIMEOUT
    chosen.networking.connect_timeout = CONNECT_TIMEOUT
    for kind in (SECRETS, ACCOUNTS):
        chosen.watching.label_selectors[kind.group, kind.version, kind.plural] = LABEL_SELECTORS[kind.plural]
    return chosen


def login(chosen: OperatorSettings) -> Login:
    """Return a function that reads the credentials of the API client anew each time."""

    async def connect() -> kopf.ConnectionInfo:
        source = source_of(kubeconfig=chosen.kubeconfig, context=chosen.context)
        configuration = await source(anew=True)
        scheme, _, token = (configuration.api_key.get("BearerToken") or "").strip().rpartition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host.rstrip("/"),
            ca_path=configuration.ssl_ca_cert,
            ca_data=configuration.ca_cert_data,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme or None,
            token=token or None,
            proxy_url=configuration.proxy,
            expiration=datetime.now(UTC) + TOKEN_LIFETIME,
        )

    return connect


def event_handler(kind: Kind[Any], *, deliver: Deliver) -> Callable[..., Awaitable[None]]:
    """Return the function that kopf calls for each event of the kind."""

    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        try:
            resource: Resource | Unreadable = convert(kind, event["object"])
        except Undecodable as error:
            # One object must not stop the watch; the message names a field, never a value.
            logger.warning("object cannot be read; it counts as absent", extra={"error": str(error)})
            if error.unreadable is None:
                return
            resource = error.unreadable
        deliver(kind, event["type"], resource)

    return handle
