"""A Kubernetes API server in memory with a real HTTP interface, for unit tests and for injected faults.

    async with running_api() as api:
        cluster = await api.cluster()
        api.fail_next("update", "acmeorders", 409)
        ...
        assert [each.verb for each in api.requests] == ["create", "update"]

It has no schemas, no admission and no RBAC, and accepts any group, version and kind.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from kubernetes.aio.client import Configuration

from kms.cluster.auth import Connection
from kms.cluster.client import Cluster
from kms.cluster.codec import decode, encode
from kms.cluster.metrics import APIMetrics
from kms.cluster.retry import Timing
from kms.resources.kinds import Kind
from kms.resources.meta import Resource
from tests.support.apiobjects import (
    JSON,
    Change,
    ObjectKey,
    Objects,
    Refusal,
    field_selector,
    label_selector,
    merge_patched,
)

T = TypeVar("T", bound=Resource)

TOKEN = "test-token"


class Seen(NamedTuple):
    """One request as the API server understood it. `verb` as in RBAC: get list watch create update patch delete.

    `limit` is how many objects a list asks for at most; 0: all. `fields` is its field selector. `streams` is whether a
    watch asks for all objects first (sendInitialEvents).
    """

    verb: str
    plural: str
    namespace: str
    name: str
    subresource: str
    limit: int = 0
    fields: str = ""
    streams: bool = False


@dataclass
class Fault:
    """A fault for the next requests of a kind."""

    verb: str
    plural: str
    status: int
    times: int
    retry_after: int | None
    done: bool
    delay: float
    message: str


class FakeApiServer:
    """The server. `store` has its objects, `requests` all requests, including those with faults."""

    def __init__(self) -> None:
        self.store = Objects()
        self.requests: list[Seen] = []
        self.tokens: set[str] | None = None
        """The accepted bearer tokens; None accepts any."""
        self.unserved: set[str] = set()
        """The plurals of missing CRDs."""
        self.token_seconds = 3600.0
        """How long tokens last that are asked for. They are `<ServiceAccount>-1`, `<ServiceAccount>-2` and so on."""
        self.token_answer: JSON | None = None
        """The pending faults."""
        self.bookmark_seconds = 60.0
        self.mutate: Callable[[Seen, JSON], None] | None = None
        """A mutating webhook: changes the body of a write before it is stored."""
        self.allows: Callable[[JSON], bool] = lambda _: True
        """The answers to SubjectAccessReviews, by their spec."""
        self.streams = True
        """Whether watches may begin with all objects (feature gate WatchList)."""
        self.cut_streams_after: int | None = None
        """After so many objects, a stream of all objects is cut, as a proxy may do it."""
        self.endless = False
        """While True, a stream of all objects does not come to its end: it goes on as any watch."""
        self.drip: float | None = None
        """Seconds between single octets, in which a stream of all objects arrives, without an end of a line."""
        self.mute = False
        """While True, watches stay open and send nothing."""
        self.watch_delay = 0.0
        """Seconds by which watches are late."""
        self.loses: Callable[[JSON], bool] = lambda _: False
        """Says of the event of a watch whether it is lost on its way, while later ones arrive."""
        self.port = 0
        self._faults: list[Fault] = []
        self._clusters: list[Cluster] = []
        self._runner: web.AppRunner | None = None
        self._watches: set[asyncio.Transport] = set()
        self._streams: set[asyncio.Transport] = set()
        self._bookmarks = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def writes(self) -> list[Seen]:
        """The writing requests."""
        return [each for each in self.requests if each.verb not in {"get", "list", "watch"}]

    @property
    def watching(self) -> int:
        """The number of open watches, without those that begin with all objects."""
        return len(self._watches)

    @property
    def streaming(self) -> int:
        """The number of open watches that began with all objects."""
        return len(self._streams)

    async def cluster(
        self,
        *,
        metrics: APIMetrics | None = None,
        deadline: float = 10.0,
        silence: float = 70.0,
        timing: Timing | None = None,
    ) -> Cluster:
        """A client of this server; closed with it."""
        configuration = Configuration(host=self.url, api_key={"BearerToken": f"Bearer {TOKEN}"})
        cluster = Cluster(
            Connection(configuration),
            metrics=metrics,
            deadline=deadline,
            silence=silence,
            timing=timing,
        )
        self._clusters.append(cluster)
        return cluster

    def write_kubeconfig(self, path: Path, *, user: dict[str, Any] | None = None) -> Path:
        """A kubeconfig for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": TOKEN} if user is None else user}],
        }
        path.write_text(json.dumps(config))
        return path

    def put(self, kind: Kind[T], object_: T) -> T:
        """Store an object including its status, as if another client wrote it; replaces an existing object."""
        body = msgspec.json.decode(encode(kind, object_))
        metadata = object_.metadata
        key = ObjectKey(kind.plural, metadata.namespace, metadata.name)
        for field in ("uid", "resourceVersion", "generation", "creationTimestamp"):
            body["metadata"].pop(field, None)
        if key not in self.store.by_key:
            stored = self.store.create(kind.plural, metadata.namespace, body, keep_status=True)
            if metadata.uid:  # a test may want to know it beforehand
                stored["metadata"]["uid"] = metadata.uid
            return _decoded(kind, stored)
        body["metadata"]["resourceVersion"] = self.store.get(key)["metadata"]["resourceVersion"]
        self.store.replace(key, body, status=False)
        body["metadata"]["resourceVersion"] = self.store.get(key)["metadata"]["resourceVersion"]
        return _decoded(kind, self.store.replace(key, body, status=True))

    def read(self, kind: Kind[T], namespace: str, name: str) -> T | None:
        """Read a stored object without a request."""
        body = self.store.by_key.get(ObjectKey(kind.plural, namespace, name))
        return None if body is None else _decoded(kind, body)

    def remove(self, kind: Kind[T], namespace: str, name: str) -> None:
        """Delete an object as if another client did."""
        self.store.delete(ObjectKey(kind.plural, namespace, name), {})

    def fail_next(
        self,
        verb: str,
        plural: str,
        status: int,
        times: int = 1,
        retry_after: int | None = None,
        *,
        done: bool = False,
        delay: float = 0.0,
        message: str = "",
    ) -> None:
        """Answer the next `times` requests of that sort ("*" is any) with `status`, or not at all with status 0.

        With `done` the request is carried out first: the answer that says so is what gets lost. Status 200 fails
        nothing and only waits for `delay` seconds.
        """
        self._faults.append(Fault(verb, plural, status, times, retry_after, done, delay, message))

    def succeed(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def drop_watches(self) -> None:
        """Abort the connections of all watches."""
        for transport in (*self._watches, *self._streams):
            transport.abort()

    def send_bookmarks(self) -> None:
        """Send a bookmark with the newest version to all watches."""
        self.store.version += 1
        self._bookmarks += 1
        self.store.wake()

    async def start(self) -> None:
        """Listen; after `stop` on the same port as before, with the same objects."""
        application = web.Application(client_max_size=2**21)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self.port or self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def close(self) -> None:
        """Stop for good and close the clients that were made here."""
        for cluster in self._clusters:
            await cluster.close()
        await self.stop()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        seen = _understood(request)
        self.requests.append(seen)
        if self.tokens is not None and request.headers.get("Authorization", "")[7:] not in self.tokens:
            return _refused(Refusal(401, "Unauthorized", "Unauthorized"), seen)
        if seen.plural in self.unserved:
            return web.Response(status=404, text="404 page not found\n")
        fault = self._fault(seen)
        if fault is None:
            return await self._answer(request, seen)
        await asyncio.sleep(fault.delay)
        answer = await self._answer(request, seen) if fault.done or fault.status == _OK else None
        if answer is not None and fault.status == _OK:
            return answer
        if fault.status == 0:
            assert request.transport is not None
            request.transport.abort()
        # As webhooks that name a moment: never the same.
        said = fault.message or f"injected fault of request {len(self.requests)}"
        refusal = Refusal(fault.status, _REASONS.get(fault.status, ""), said)
        return _refused(refusal, seen, retry_after=fault.retry_after)

    def _fault(self, seen: Seen) -> Fault | None:
        for fault in self._faults:
            if fault.verb in {"*", seen.verb} and fault.plural in {"*", seen.plural}:
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                return fault
        return None

    async def _answer(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        body = json.loads(await request.read() or b"{}")
        try:
            if seen.verb == "watch":
                return await self._watch(request, seen)
            result = self._list(request, seen) if seen.verb == "list" else self._carry_out(request, seen, body)
        except Refusal as refusal:
            return _refused(refusal, seen)
        return web.json_response(result, status=201 if seen.verb == "create" else _OK)

    def _carry_out(self, request: web.Request, seen: Seen, body: JSON) -> JSON:
        key = ObjectKey(seen.plural, seen.namespace, seen.name)
        status = seen.subresource in {"status", "approval"}
        if self.mutate is not None and seen.verb in {"create", "update", "patch"}:
            self.mutate(seen, body)
        match seen.verb:
            case "get":
                return self.store.get(key)
            case "create":
                return self._create(seen, body)
            case "update":
                return self.store.replace(key, body, status=status)
            case "patch":
                return self._patch(request, key, body, status=status)
            case _:
                self.store.delete(key, body.get("preconditions", {}))
                return {"apiVersion": "v1", "kind": "Status", "status": "Success"}

    def _create(self, seen: Seen, body: JSON) -> JSON:
        if seen.subresource == "token":
            return self._token(seen)
        if seen.plural == "subjectaccessreviews":
            return {**body, "status": {"allowed": self.allows(body["spec"])}}
        return self.store.create(seen.plural, seen.namespace, body)

    def _patch(self, request: web.Request, key: ObjectKey, body: JSON, *, status: bool) -> JSON:
        if request.content_type == "application/apply-patch+yaml":
            return self.store.apply(key, body, manager=request.query["fieldManager"], status=status)
        if request.content_type == "application/merge-patch+json" and not status:
            return self.store.replace(key, merge_patched(self.store.get(key), body), status=False)
        raise Refusal(415, "UnsupportedMediaType", "this server knows apply and merge patches only")

    def _token(self, seen: Seen) -> JSON:
        if self.token_answer is not None:
            return self.token_answer
        number = len([each for each in self.requests if each == seen])
        expires = datetime.now(UTC) + timedelta(seconds=self.token_seconds)
        status = {"token": f"{seen.name}-{number}", "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "status": status}

    def _list(self, request: web.Request, seen: Seen) -> JSON:
        found = self.store.select(seen.plural, seen.namespace or None, _selector(request))
        version, start = self.store.version, 0
        if token := request.query.get("continue"):
            version, start = _continued(token)
            if version < self.store.oldest:
                raise Refusal(410, "Expired", "The provided continue parameter is too old")
        limit = int(request.query.get("limit", "0")) or len(found)
        metadata = {"resourceVersion": str(version)}
        if start + limit < len(found):
            metadata["continue"] = (
                base64.urlsafe_b64encode(f"{version} {start + limit:>12}".encode()).decode().rstrip("=")
            )
        items = found[start : start + limit]
        if "as=PartialObjectMetadataList" in request.headers.get("Accept", ""):
            items = [{"metadata": each["metadata"]} for each in items]
        return {"kind": "List", "metadata": metadata, "items": items}

    async def _watch(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        version = int(request.query.get("resourceVersion") or self.store.version)
        if seen.streams and not self.streams:
            raise Refusal(422, "Invalid", "sendInitialEvents: Forbidden: unless the WatchList feature gate is enabled")
        self.store.changes_after(version)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        transport = request.transport
        assert transport is not None
        (self._streams if seen.streams else self._watches).add(transport)
        try:
            if seen.streams and not await self._send_all(response, seen, _selector(request)):
                transport.abort()
                return response
            async for event in self._events(version, seen, _selector(request)):
                await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._watches.discard(transport)
            self._streams.discard(transport)
        return response

    async def _send_all(self, response: web.StreamResponse, seen: Seen, matches: Callable[[JSON], bool]) -> bool:
        """Send all objects and the bookmark that follows them; whether that was not cut."""
        version = self.store.version
        if self.mute:
            await asyncio.sleep(self.bookmark_seconds)
        while self.drip is not None:
            await response.write(b" ")
            await asyncio.sleep(self.drip)
        for number, body in enumerate(self.store.select(seen.plural, seen.namespace or None, matches)):
            if number == self.cut_streams_after:
                return False
            await response.write(json.dumps({"type": "ADDED", "object": body}).encode() + b"\n")
        if self.endless:
            return True
        metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
        await response.write(json.dumps({"type": "BOOKMARK", "object": {"metadata": metadata}}).encode() + b"\n")
        return True

    async def _events(self, version: int, seen: Seen, matches: Callable[[JSON], bool]) -> AsyncIterator[JSON]:
        """The events of a watch: changes after `version`, bookmarks when due, and an error when it falls behind."""
        bookmarks = self._bookmarks
        while True:
            changed = self.store.changed
            try:
                changes = [] if self.mute else self.store.changes_after(version, running=True)
            except Refusal as refusal:
                yield {"type": "ERROR", "object": _status_body(refusal)}
                return
            for change in changes:
                version = change.version
                if (event := _event(change, seen, matches)) and not self.loses(event):
                    yield event
            if bookmarks != self._bookmarks and not self.mute:
                bookmarks, version = self._bookmarks, self.store.version
                yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}
            try:
                async with asyncio.timeout(self.bookmark_seconds):
                    await changed.wait()
                await asyncio.sleep(self.watch_delay)
            except TimeoutError:
                bookmarks = -1


def spoil(api: FakeApiServer, kind: Kind[Any], name: str, path: str, value: object, *, namespace: str = "pki") -> None:
    """Write a value that the model does not admit, as if an API server with another schema had admitted it."""
    key = ObjectKey(kind.plural, namespace, name)
    body = json.loads(json.dumps(api.store.get(key)))
    *parents, last = path.split(".")
    node = body
    for each in parents:
        node = node.setdefault(each, {})
    node[last] = value
    api.store.replace(key, body, status=False)
    body["metadata"]["resourceVersion"] = api.store.get(key)["metadata"]["resourceVersion"]
    api.store.replace(key, body, status=True)


@asynccontextmanager
async def running_api() -> AsyncIterator[FakeApiServer]:
    """A server on a free port of the loopback interface."""
    api = FakeApiServer()
    await api.start()
    try:
        yield api
    finally:
        await api.close()


_OK = 200
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def _understood(request: web.Request) -> Seen:
    """/api/v1/... or /apis/<group>/<version>/..., then [namespaces/<ns>/]<plural>[/<name>[/<subresource>]]."""
    parts = request.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource = itertools.islice(itertools.chain(parts, ["", ""]), 3)
    reading = "get" if name else "watch" if request.query.get("watch") == "true" else "list"
    limit = int(request.query.get("limit", "0"))
    fields = request.query.get("fieldSelector", "")
    streams = request.query.get("sendInitialEvents") == "true"
    return Seen(_VERBS.get(request.method, reading), plural, namespace, name, subresource, limit, fields, streams)


def _continued(token: str) -> tuple[int, int]:
    """The version and position in a continue token, which is unpadded base64url as in Kubernetes."""
    try:
        version, start = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().split()
        return int(version), int(start)
    except ValueError:
        raise Refusal(400, "BadRequest", "continue key is not valid") from None


def _selector(request: web.Request) -> Callable[[JSON], bool]:
    labels = label_selector(request.query.get("labelSelector", ""))
    fields = field_selector(request.query.get("fieldSelector", ""))
    return lambda body: labels(body) and fields(body)


def _event(change: Change, seen: Seen, matches: Callable[[JSON], bool]) -> JSON | None:
    """The event for a change: an object that begins to match is ADDED, one that ceases to match is DELETED."""
    if change.key.plural != seen.plural or seen.namespace not in {"", change.key.namespace}:
        return None
    before = change.before if change.before is not None and matches(change.before) else None
    after = change.after if change.after is not None and matches(change.after) else None
    if before is None and after is None:
        return None
    if after is None:
        assert before is not None
        gone = before | {"metadata": before["metadata"] | {"resourceVersion": str(change.version)}}
        return {"type": "DELETED", "object": gone}
    return {"type": "ADDED" if before is None else "MODIFIED", "object": after}


def _refused(refusal: Refusal, seen: Seen, *, retry_after: int | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = _status_body(refusal) | {"details": {"name": seen.name, "kind": seen.plural}}
    return web.json_response(body, status=refusal.code, headers=headers)


def _status_body(refusal: Refusal) -> JSON:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": refusal.code,
        "reason": refusal.reason,
        "message": refusal.message,
    }


def _decoded(kind: Kind[T], body: JSON) -> T:
    return decode(kind, msgspec.json.encode(body))
