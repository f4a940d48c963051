"""The part of the Kubernetes API that this project uses: typed objects in, typed objects or typed errors out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec

from kms.cluster.auth import Connection
from kms.cluster.codec import (
    Identity,
    Listing,
    Page,
    WatchEvent,
    decode,
    decode_event,
    decode_items,
    decode_known_event,
    decode_page,
    encode,
)
from kms.cluster.errors import NotFound, Undecodable, Unserved
from kms.cluster.metrics import APIMetrics
from kms.cluster.requests import (
    EventFields,
    api_request,
    discovery_request,
    event_about,
    event_series,
    identity,
    resource_path,
    token_request,
)
from kms.cluster.retry import Timing
from kms.cluster.service_account_token import Token
from kms.cluster.transport import (
    APPLY,
    DEADLINE_SECONDS,
    JSON,
    MERGE,
    METADATA,
    SILENCE_SECONDS,
    Transport,
)
from kms.resources.kinds import Kind
from kms.resources.meta import ObjectMeta, PartialObjectMetadata, Resource, Unreadable

T = TypeVar("T", bound=Resource)
D = TypeVar("D")

_LONG = 64 * 1024
"""Octets beyond which a body is decoded in a thread: most objects are shorter, and a thread costs 0.1 ms."""

PAGE_SIZE = 500
_STREAM_SECONDS = 1800


class Selection(TypedDict, total=False):
    """Which objects a list has, at which version, and how many a page has."""

    labels: str
    fields: str
    limit: int
    resource_version: str | None


class _TokenRequest(msgspec.Struct, frozen=True):
    status: Token


_token_request = msgspec.json.Decoder(_TokenRequest)


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Group(msgspec.Struct, frozen=True, rename="camel"):
    """metav1.APIGroup."""

    preferred_version: _Version


class _Resource(msgspec.Struct, frozen=True):
    name: str
    kind: str
    namespaced: bool = False


class _Resources(msgspec.Struct, frozen=True):
    """metav1.APIResourceList."""

    resources: tuple[_Resource, ...] = ()


_group = msgspec.json.Decoder(_Group)
_resources = msgspec.json.Decoder(_Resources)


class Cluster:
    """A Kubernetes API server. Every method raises the errors of kms.cluster.errors and has a deadline of 9 s.

    Requests that the API server cannot serve now are sent again (kms.cluster.retry) before Unavailable is raised. A
    write that raises Unavailable may have happened: only a read can tell.

    `deadline` is for a call with all of its attempts. A watch that is silent for `silence` seconds is taken for dead;
    the API server ends it after `watch_seconds`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        metrics: APIMetrics | None = None,
        deadline: float = DEADLINE_SECONDS,
        silence: float = SILENCE_SECONDS,
        watch_seconds: int = 300,
        timing: Timing | None = None,
    ) -> None:
        self._watch_seconds = watch_seconds
        self._transport = Transport(connection, metrics=metrics, deadline=deadline, silence=silence, timing=timing)

    @classmethod
    async def connect(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        token_directory: Path | None = None,
        metrics: APIMetrics | None = None,
    ) -> Cluster:
        """Connect as kubectl would: to the kubeconfig's context, in a pod with its ServiceAccount.

        In a pod, `token_directory` replaces the directory in which the kubelet puts the token. Sends no request.

        Raises Misconfigured.
        """
        connection = await Connection.load(kubeconfig=kubeconfig, context=context, token_directory=token_directory)
        return cls(connection, metrics=metrics)

    async def close(self) -> None:
        """Close all connections; watches end with Unavailable."""
        await self._transport.close()

    async def get(self, kind: Kind[T], namespace: str, name: str) -> T:
        """The object as it is now: a quorum read, never from a stale cache. Raises NotFound."""
        body = await self._transport.send(api_request("get", kind, resource_path(kind, namespace, name)))
        return await _in_thread_if_long(partial(decode, kind), body)

    async def discover(self, group: str, kind: str, model: type[T]) -> Kind[T] | None:
        """The kind of that name in the version of the group that the API server prefers; None if it serves none.

        Its objects decode to `model`. Raises Forbidden where a caller may not ask what is served.
        """
        try:
            versions = _group.decode(await self._transport.send(discovery_request(group)))
            version = versions.preferred_version.version
            served = _resources.decode(await self._transport.send(discovery_request(group, version)))
        except (NotFound, Unserved):
            return None
        except msgspec.DecodeError:
            raise Undecodable(f"the answer does not tell which kinds {group} has") from None
        for each in served.resources:
            if each.kind == kind and "/" not in each.name:
                return Kind(group, version, kind, each.name, model, each.namespaced)
        return None

    async def list(
        self,
        kind: Kind[T],
        namespace: str | None = None,
        **selection: Unpack[Selection],
    ) -> Listing[T]:
        """All objects that the selectors choose, in one namespace or (None) everywhere, read page by page.

        Without `resource_version` the list is consistent and current; with "0" it comes from the API server's cache.
        Raises Gone if the list took so long that its snapshot was compacted away.
        """
        items: list[T] = []
        unreadable: list[Unreadable] = []
        version = ""
        async for page in self.list_pages(kind, namespace, **selection):
            items.extend(page.items)
            unreadable.extend(page.unreadable)
            version = page.resource_version
        return Listing(tuple(items), version, unreadable=tuple(unreadable))

    async def list_pages(
        self,
        kind: Kind[T],
        namespace: str | None = None,
        **selection: Unpack[Selection],
    ) -> AsyncIterator[Listing[T]]:
        """The pages of `list`, one at a time."""
        token = ""
        while True:
            page = await self.page(kind, namespace, **selection, token=token)
            yield page
            if not page.continue_token:
                return
            token = page.continue_token
            selection["resource_version"] = None  # the token says which version; both together are refused

    async def page(
        self,
        kind: Kind[T],
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = PAGE_SIZE,
        resource_version: str | None = None,
        token: str = "",
    ) -> Listing[T]:
        """One page of `list`: the first one, or the one that the `continue_token` of another led to.

        Raises Gone if the snapshot that the token belongs to was compacted away, Invalid if it is no token.
        """
        query = {"labelSelector": labels, "fieldSelector": fields, "resourceVersion": resource_version or ""}
        page = await self.raw_page(kind, namespace, limit=limit, token=token, query=query)
        items, unreadable = decode_items(kind, page.items)
        return Listing(items, page.resource_version, page.continue_token, unreadable)

    async def metadata_page(
        self, kind: Kind[T], namespace: str | None = None, *, labels: str = "", fields: str = "", limit: int, token: str
    ) -> Listing[PartialObjectMetadata]:
        """One page of the metadata of the objects that `page` returns whole. Raises what `page` raises."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        page = await self.raw_page(kind, namespace, limit=limit, token=token, query=query, accept=METADATA)
        identities = Kind(kind.group, kind.version, kind.kind, kind.plural, PartialObjectMetadata, kind.namespaced)
        items, unreadable = decode_items(identities, page.items)
        return Listing(items, page.resource_version, page.continue_token, unreadable)

    async def raw_page(
        self,
        kind: Kind[T],
        namespace: str | None = None,
        *,
        limit: int,
        token: str = "",
        query: Mapping[str, str] = MappingProxyType({}),
        accept: str = JSON,
        most: int | None = None,
    ) -> Page:
        """The same page, its items not decoded (kms.cluster.codec.decode_items). Raises what `page` raises.

        `query` are further parameters of the request. Raises TooLong if the page has more than `most` octets.
        """
        asked = {**query, "limit": str(limit), "continue": token}
        body = await self._transport.send(
            api_request("list", kind, resource_path(kind, namespace), query=asked, accept=accept, most=most)
        )
        return await _in_thread_if_long(decode_page, body)

    async def version(self, kind: Kind[T], namespace: str | None = None) -> str:
        """The current resourceVersion of the kind, from which to watch without a list."""
        return (await self.raw_page(kind, namespace, limit=1)).resource_version

    async def watch(
        self,
        kind: Kind[T],
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str = "",
        fields: str = "",
        on_open: Callable[[], None] | None = None,
        is_known: Callable[[Identity], bool] | None = None,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Every change after `resource_version`, and a bookmark about once a minute, for up to `watch_seconds`.

        `on_open` is called when the API server has accepted the watch, which may be long before the first event. Events
        about what `is_known` have no object.

        Raises Gone if that version has been compacted away, Unavailable after 70 s of silence.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(self._watch_seconds),
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        async with aclosing(
            self._transport.lines(
                api_request("watch", kind, resource_path(kind, namespace), query=query), on_open=on_open
            )
        ) as lines:
            async for line in lines:
                known = decode_known_event(line, is_known) if is_known is not None and len(line) <= _LONG else None
                yield await _in_thread_if_long(partial(decode_event, kind), line) if known is None else known

    async def initial_events(
        self, kind: Kind[T], namespace: str | None = None, *, silence: float
    ) -> AsyncGenerator[Sequence[bytes], None]:
        """The lines of a watch that begins with all objects (sendInitialEvents), as many at a time as have arrived.

        It goes on until it is closed, for up to half an hour: objects must not be sent again because there are many
        and the API server is busy. Raises Invalid where the API server does not offer this, and Unavailable after
        `silence` seconds without an event.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "timeoutSeconds": str(_STREAM_SECONDS),
        }
        request = api_request("watch", kind, resource_path(kind, namespace), query=query)
        async with aclosing(self._transport.batches(request, silence=silence)) as batches:
            async for lines in batches:
                yield lines

    async def create(self, kind: Kind[T], object_: T) -> T:
        """Create it; where the kind has a status subresource, the status is not stored. Raises AlreadyExists."""
        path = resource_path(kind, object_.metadata.namespace)
        return decode(kind, await self._transport.send(api_request("create", kind, path, body=encode(kind, object_))))

    async def replace(self, kind: Kind[T], object_: T) -> T:
        """Write all but the status, if it is still at `metadata.resourceVersion`. Raises Conflict, NotFound.

        What our model does not know is lost, so this is for kinds that only we write.
        """
        path = resource_path(kind, object_.metadata.namespace, object_.metadata.name)
        return decode(kind, await self._transport.send(api_request("update", kind, path, body=encode(kind, object_))))

    async def replace_status(
        self, kind: Kind[T], object_: T, *, subresource: str = "status", strict: bool = False
    ) -> T:
        """Write the status alone, if the object is still at `metadata.resourceVersion`. Raises Conflict, NotFound.

        `subresource` is another one that writes a part of the status, such as `approval`. A `strict` write raises
        Invalid for a field that the schema does not know; without, the API server leaves such a field out.
        """
        path = resource_path(kind, object_.metadata.namespace, object_.metadata.name, subresource)
        if strict:
            path += "?fieldValidation=Strict"
        request = api_request("update", kind, path, body=encode(kind, object_))
        return decode(kind, await self._transport.send(request))

    async def apply(
        self,
        kind: Kind[T],
        body: T | Mapping[str, Any],
        *,
        manager: str,
        subresource: str = "",
        force: bool = True,
    ) -> T:
        """Server-side apply: `manager` owns the fields in `body`, and those it left out since last time go.

        `body` names itself in its metadata. With a resourceVersion there, Conflict is raised where the object has
        changed; without `force` also where another manager owns one of the fields.
        """
        namespace, name = identity(body)
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        path = resource_path(kind, namespace, name, subresource)
        answer = await self._transport.send(
            api_request("patch", kind, path, query=query, body=encode(kind, body), content_type=APPLY)
        )
        return decode(kind, answer)

    async def patch_metadata(self, kind: Kind[T], metadata: ObjectMeta, changes: Mapping[str, Any]) -> T:
        """Change metadata of the object in exactly this version (JSON merge patch, RFC 7396): None removes a member.

        Raises Conflict, NotFound.
        """
        body = msgspec.json.encode({"metadata": {**changes, "resourceVersion": metadata.resource_version}})
        path = resource_path(kind, metadata.namespace, metadata.name)
        return decode(kind, await self._transport.send(api_request("patch", kind, path, body=body, content_type=MERGE)))

    async def delete(
        self,
        kind: Kind[T],
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete it, if it is still the one with this uid and at this version. Raises Conflict, NotFound."""
        wanted = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {key: value for key, value in wanted.items() if value is not None}
        body = msgspec.json.encode(
            {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
            | ({"preconditions": preconditions} if preconditions else {})
        )
        await self._transport.send(api_request("delete", kind, resource_path(kind, namespace, name), body=body))

    async def create_token(self, namespace: str, service_account: str, *, audiences: Sequence[str] = ()) -> Token:
        """A token of a ServiceAccount, valid for up to an hour (TokenRequest API).

        Without `audiences` it is for the API server. Raises NotFound, Forbidden.
        """
        answer = await self._transport.send(token_request(namespace, service_account, audiences))
        try:
            return _token_request.decode(answer).status
        except msgspec.DecodeError:
            raise Undecodable("the answer to a TokenRequest holds no token") from None

    async def create_event(self, kind: Kind[T], regarding: Resource, **fields: Unpack[EventFields]) -> None:
        """Create an Event about `regarding`."""
        await self._transport.send(event_about(kind, regarding, **fields))

    async def continue_event(self, namespace: str, name: str, *, count: int, time: datetime) -> None:
        """Say of an Event that it happened again; see event_series. Raises NotFound if it is gone."""
        await self._transport.send(event_series(namespace, name, count=count, time=time))


async def _in_thread_if_long(decode_body: Callable[[bytes], D], body: bytes) -> D:
    """Decode a long body beside the event loop: what tenants nest deeply is cut in Python, half a second for 3 MB."""
    return decode_body(body) if len(body) <= _LONG else await asyncio.to_thread(decode_body, body)
