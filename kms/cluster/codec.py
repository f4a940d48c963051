"""Encodes and decodes the objects, lists and watch events of the Kubernetes API."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Literal, TypeVar

import msgspec

from kms.cluster.errors import Undecodable, watch_error_of
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """Objects at `resource_version`, from which a watch can go on.

    Of a single page: `continue_token` leads to the next one; it is empty on the last.
    """

    items: tuple[T, ...]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """One change. A BOOKMARK, and an event whose object does not decode, have no object, only a version."""

    type: EventType
    object: T | None
    resource_version: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, its items not decoded yet. `octets` is its length on the wire."""

    items: tuple[msgspec.Raw, ...]
    resource_version: str
    continue_token: str
    octets: int


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] | None = ()


class _Identity(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Bare(msgspec.Struct, frozen=True):
    """The part that is read of an object that does not fit its model."""

    metadata: _Identity = _Identity()


class _Event(msgspec.Struct, frozen=True):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


_list = msgspec.json.Decoder(_List)
_event = msgspec.json.Decoder(_Event)
_bare = msgspec.json.Decoder(_Bare)
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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(f"{kind.kind} {_name(body)} does not fit its model: {error}") from error
    return object_


def decode_page(body: bytes) -> Page:
    """The page in `body`. Raises Undecodable if it is not a list."""
    try:
        page = _list.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(f"the API server's answer is not a list: {error}") from error
    return Page(page.items or (), page.metadata.resource_version, page.metadata.continue_, len(body))


def decode_items(kind: Kind[T], items: Sequence[msgspec.Raw]) -> tuple[T, ...]:
    """The items that fit their model. Others are logged and left out, so that they do not hide the rest."""
    found: list[T] = []
    for item in items:
        try:
            found.append(decode(kind, item))
        except Undecodable as error:
            logger.warning("invalid object skipped", extra={"kind": kind.kind, "error": str(error)})
    return tuple(found)


def decode_event(kind: Kind[T], line: bytes) -> WatchEvent[T]:
    """The event on one line of a watch.

    An object that does not fit its model is logged and left out; the event keeps its version.

    Raises Gone or Unavailable for an ERROR event, Undecodable for a line that is not an event.
    """
    try:
        event = _event.decode(line)
        if event.type == "ERROR":
            raise watch_error_of(bytes(event.object))
        if event.type == "BOOKMARK":
            return WatchEvent("BOOKMARK", None, _bare.decode(event.object).metadata.resource_version)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(f"not a watch event: {error}") from error
    try:
        object_ = decode(kind, event.object)
    except Undecodable as error:
        logger.warning("invalid event skipped", extra={"kind": kind.kind, "event": event.type, "error": str(error)})
        return WatchEvent(event.type, None, _identity(event.object).resource_version)
    return WatchEvent(event.type, object_, object_.metadata.resource_version)


def _identity(body: bytes | msgspec.Raw) -> _Identity:
    try:
        return _bare.decode(body).metadata
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Identity()


def _name(body: bytes | msgspec.Raw) -> str:
    identity = _identity(body)
    return f"{identity.namespace}/{identity.name}" if identity.name else "without a name"
