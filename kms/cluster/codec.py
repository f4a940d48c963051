"""Encodes and decodes the objects, lists and watch events of the Kubernetes API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Generic, Literal, TypeVar

import msgspec

from kms.cluster.errors import Undecodable, watch_error_of
from kms.cluster.unreadable import cut, is_cut, unreadable
from kms.resources.kinds import Kind
from kms.resources.meta import Resource, Unreadable

T = TypeVar("T", bound=Resource)
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""The annotation of the bookmark after which a watch with sendInitialEvents has sent all objects."""

logger = logging.getLogger(__name__)


class Listing(msgspec.Struct, Generic[T], frozen=True):
    """Objects at `resource_version`, from which a watch can go on.

    `unreadable` are the objects that do not fit their model. Of a single page: `continue_token` leads to the next one;
    it is empty on the last.
    """

    items: tuple[T, ...]
    resource_version: str
    continue_token: str = ""
    unreadable: tuple[Unreadable, ...] = ()


class WatchEvent(msgspec.Struct, Generic[T], frozen=True):
    """One change. `unreadable` is an object that does not fit its model.

    A BOOKMARK has no object, only a version, and so has a version that was known before.
    `ends_initial_events` is true for the bookmark that follows all objects that existed when the watch began.
    """

    type: EventType
    object: T | None
    resource_version: str
    unreadable: Unreadable | None = None
    ends_initial_events: bool = False


class Page(msgspec.Struct, frozen=True):
    """One page of a list, its items not decoded yet. `octets` is its length on the wire."""

    items: tuple[msgspec.Raw | Unreadable, ...]
    resource_version: str
    continue_token: str
    octets: int


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] | None = ()


class _BookmarkMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: _BookmarkMeta = _BookmarkMeta()


class Identity(msgspec.Struct, frozen=True, rename="camel"):
    """Which version of which object an event is about."""

    namespace: str = ""
    name: str = ""
    resource_version: str = ""


class _Identified(msgspec.Struct, frozen=True):
    metadata: Identity


class _IdentifiedEvent(msgspec.Struct, frozen=True):
    type: Literal["ADDED", "MODIFIED"]
    object: _Identified


class _Event(msgspec.Struct, frozen=True):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


_list = msgspec.json.Decoder(_List)
_event = msgspec.json.Decoder(_Event)
_identified_event = msgspec.json.Decoder(_IdentifiedEvent)
_bookmark = msgspec.json.Decoder(_Bookmark)
_encoder = msgspec.json.Encoder()


@cache
def _decoder(model: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(model)


@cache
def _preamble(kind: Kind[T]) -> bytes:
    return _encoder.encode({"apiVersion": kind.api_version, "kind": kind.kind})[:-1] + b","


def encode(kind: Kind[T], body: T | Mapping[str, Any]) -> bytes:
    """The object as JSON, with apiVersion and kind first."""
    if isinstance(body, Mapping):
        return _encoder.encode({**body, "apiVersion": kind.api_version, "kind": kind.kind})
    return _preamble(kind) + _encoder.encode(body)[1:]


def decode(kind: Kind[T], body: bytes | msgspec.Raw) -> T:
    """The object in `body`. Raises Undecodable if it does not fit the model."""
    try:
        object_: T = _decoder(kind.model).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _undecodable(kind, unreadable(body, error)) from error
    return object_


def convert(kind: Kind[T], body: Mapping[str, Any]) -> T:
    """The object that somebody else has decoded from JSON. Raises Undecodable if it does not fit the model."""
    plain = dict(body)
    try:
        object_: T = msgspec.convert(plain, kind.model)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _undecodable(kind, unreadable(plain, error)) from error
    return object_


def decode_page(body: bytes) -> Page:
    """The page in `body`. Raises Undecodable if it is not a list."""
    try:
        try:
            page = _list.decode(body)
        except RecursionError:
            # One object is nested so deeply that not even the page can be taken apart.
            page = _list.decode(cut(body))
            return _page(page, tuple(_too_deep(each) if is_cut(each) else each for each in page.items or ()), body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(f"the API server's answer is not a list: {error}") from error
    return _page(page, page.items or (), body)


def decode_items(
    kind: Kind[T], items: Iterable[msgspec.Raw | Unreadable]
) -> tuple[tuple[T, ...], tuple[Unreadable, ...]]:
    """The items that fit their model, and the others, so that they do not hide the rest."""
    found: list[T] = []
    others: list[Unreadable] = []
    for item in items:
        if isinstance(item, Unreadable):
            others.append(item)
            continue
        try:
            found.append(decode(kind, item))
        except Undecodable as error:
            others += (error.unreadable,) if error.unreadable is not None else ()
    for each in others:
        _log(kind, each)
    return tuple(found), tuple(others)


def decode_known_event(line: bytes, is_known: Callable[[Identity], bool]) -> WatchEvent[Any] | None:
    """The event on one line of a watch without its object, if that version is known; else None.

    To see that takes a quarter of the time of `decode_event`, and most events are a program's own writes.
    """
    try:
        event = _identified_event.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # a deletion, a bookmark, or what `decode_event` is to refuse
    identity = event.object.metadata
    return WatchEvent(event.type, None, identity.resource_version) if is_known(identity) else None


def decode_event(kind: Kind[T], line: bytes) -> WatchEvent[T]:
    """The event on one line of a watch.

    Raises Gone or Unavailable for an ERROR event, Undecodable for a line that is not an event.
    """
    try:
        try:
            event, too_deep = _event.decode(line), False
        except RecursionError:
            event, too_deep = _event.decode(cut(line)), True
        if event.type == "ERROR":
            raise watch_error_of(bytes(event.object))
        if event.type == "BOOKMARK":
            bookmark = _bookmark.decode(event.object).metadata
            ends = (bookmark.annotations or {}).get(INITIAL_EVENTS_END) == "true"
            return WatchEvent("BOOKMARK", None, bookmark.resource_version, ends_initial_events=ends)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(f"not a watch event: {error}") from error
    if too_deep:
        return _unreadable_event(kind, event.type, _too_deep(event.object))
    try:
        object_ = decode(kind, event.object)
    except Undecodable as error:
        if error.unreadable is None:
            raise
        return _unreadable_event(kind, event.type, error.unreadable)
    return WatchEvent(event.type, object_, object_.metadata.resource_version)


def _page(page: _List, items: tuple[msgspec.Raw | Unreadable, ...], body: bytes) -> Page:
    return Page(items, page.metadata.resource_version, page.metadata.continue_, len(body))


def _too_deep(body: msgspec.Raw) -> Unreadable:
    return unreadable(body, RecursionError())


def _unreadable_event(kind: Kind[T], type_: EventType, found: Unreadable) -> WatchEvent[T]:
    _log(kind, found)
    return WatchEvent(type_, None, found.metadata.resource_version, found)


def _undecodable(kind: Kind[Any], found: Unreadable) -> Undecodable:
    name = f"{found.metadata.namespace}/{found.metadata.name}".lstrip("/") or "without a name"
    return Undecodable(f"{kind.kind} {name} does not fit its model: {found}", found)


def _log(kind: Kind[Any], found: Unreadable) -> None:
    name = f"{found.metadata.namespace}/{found.metadata.name}".lstrip("/")
    logger.warning(
        "object cannot be read; it counts as absent",
        extra={"kind": kind.kind, "object": name, "field": found.field, "error": found.problem},
    )
