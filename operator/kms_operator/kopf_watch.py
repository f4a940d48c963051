"""kopf, as far as we use it: it watches, and tells of every event. It decides nothing and writes nothing.

It has a thread and an event loop of its own, because when it stops it cancels every task of the loop it runs in. It
ends itself on many faults of the API server by design; then it is started again, and everything is listed anew, since
what happened in between is lost. No handlers but `on.event`: those keep no progress in annotations, add no finalizers,
and copy no Secrets into annotations.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
import msgspec

from kms.cluster.auth import source_of
from kms.resources.kinds import ACCOUNTS, SECRETS, Kind
from kms.resources.meta import Resource
from kms.resources.secret_names import CREDENTIAL_UID, MANAGED_BY, MANAGER
from kms_operator.cache import OPTIONAL_KINDS
from kms_operator.settings import OperatorSettings

Deliver = Callable[[Kind[Any], str | None, Resource], None]
"""Told of each event: kind, type (None: from a list, else ADDED, MODIFIED, DELETED) and the object."""
Login = Callable[[], Awaitable[kopf.ConnectionInfo]]

_OURS = f"{MANAGED_BY}={MANAGER}"
LABELS = {
    SECRETS.plural: _OURS,
    ACCOUNTS.plural: CREDENTIAL_UID,
    **dict.fromkeys((each.plural for each in OPTIONAL_KINDS), _OURS),
}
"""What the API server filters for us: what is ours of Secrets and of kinds of others, accounts that an EABCredential
has opened."""
PAGE_SIZE = 500
SERVER_TIMEOUT = 600
CONNECT_TIMEOUT = 10
REQUEST_TIMEOUT = 60
STOP_SECONDS = 5.0
ATTEMPTS = 10
"""How long kopf's tasks may take to end, and how often within that time those that do not want to are told."""
TOKEN_LIFETIME = timedelta(minutes=10)
"""After which kopf asks for the credentials again; else it would use a token until the API server refuses it."""

logger = logging.getLogger(__name__)


class KopfWatch:
    """The watches of some kinds, in a thread; `run` may be called again after it has returned."""

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
        """Watch until `stop`. Raises what kopf raises when it gives up."""
        # Not asyncio.run: it would wait for ever for a task that cannot be cancelled.
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(_note)
        try:
            loop.run_until_complete(self._watch())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def stop(self) -> None:
        """End `run`, from any thread; it will not start again."""
        self._stopping.set()
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _watch(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._stopping.is_set():
            return
        namespaces = dict.fromkeys((*self._settings.watch_namespaces, self._settings.namespace))
        clusterwide = not self._settings.watch_namespaces
        # It warns that it leaves signals alone, which is what we want.
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
        await _end(roots)
        for each in ended:
            each.result()


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio says of tasks that kopf leaves unattended: kopf has logged already what they failed of."""
    logger.debug("kopf left a task unattended", extra={"said": context["message"]})


async def _end(roots: Collection[asyncio.Task[Any]]) -> None:
    """End all that kopf has begun. Its own run_tasks waits for ever if a watch was just logging in when it gave up."""
    for each in roots:
        each.cancel()
    # One of them closes the connections once the others have ended, so they are asked only once.
    await asyncio.wait(roots, timeout=STOP_SECONDS)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(ATTEMPTS):
        for each in left:
            each.cancel()
        if not left:
            return
        _, left = await asyncio.wait(left, timeout=STOP_SECONDS / ATTEMPTS)
    logger.warning("tasks left behind", extra={"tasks": ", ".join(each.get_name() for each in left)})


def registry(kinds: Iterable[Kind[Any]], *, deliver: Deliver, login: Login) -> kopf.OperatorRegistry:
    """Handlers for the events of these kinds, and one that logs in."""
    handlers = kopf.OperatorRegistry()
    for kind in kinds:
        _on_event(kind, handlers, deliver)

    @kopf.on.login(registry=handlers, id="login", backoff=5.0)
    async def _logged_in(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    return handlers


def settings() -> kopf.OperatorSettings:
    """What kopf must not do, and how long it waits."""
    chosen = kopf.OperatorSettings()
    chosen.process.ultimate_exiting_timeout = None  # else it kills this process ten minutes after an unclean end
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = SERVER_TIMEOUT
    chosen.watching.client_timeout = SERVER_TIMEOUT + CONNECT_TIMEOUT
    chosen.watching.connect_timeout = CONNECT_TIMEOUT
    chosen.watching.chunk_size = PAGE_SIZE
    chosen.networking.request_timeout = REQUEST_TIMEOUT
    chosen.networking.connect_timeout = CONNECT_TIMEOUT
    for kind in (SECRETS, ACCOUNTS):
        chosen.watching.label_selectors[kind.group, kind.version, kind.plural] = LABELS[kind.plural]
    return chosen


def login(chosen: OperatorSettings) -> Login:
    """The credentials that the API client uses too, read anew each time."""

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


def _on_event(kind: Kind[Any], handlers: kopf.OperatorRegistry, deliver: Deliver) -> None:
    @kopf.on.event(group=kind.group, version=kind.version, plural=kind.plural, registry=handlers, id=kind.plural)
    async def _seen(event: kopf.RawEvent, **_: Any) -> None:
        body = event["object"]
        try:
            resource = msgspec.convert(dict(body), kind.model)
        except msgspec.ValidationError as error:
            # It must not stop the watch of the others; the message names a field, never a value.
            name = body.get("metadata", {}).get("name")
            logger.warning("event skipped", extra={"kind": kind.kind, "name_": name, "error": str(error)})
            return
        deliver(kind, event["type"], resource)
