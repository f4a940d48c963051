"""Requests to the Kubernetes API: paths, queries and bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

import msgspec

from kms.cluster.errors import Invalid
from kms.cluster.service_account_token import TOKEN_SECONDS
from kms.cluster.transport import JSON, MERGE, Request, Verb
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names that a path contains as they are: those of nearly all objects."""
_MICROSECONDS = "%Y-%m-%dT%H:%M:%S.%fZ"
NOTE_BYTES = 1024
"""The API server's limit for the text of an Event."""


class EventFields(TypedDict):
    """What an Event says: CamelCase `reason` and `action`, and `note`, a sentence, which is cut if it is too long.

    `controller` and `instance` name the reporter (`pki.kms.hanzo.ai/operator`, the pod's name). `name` is that of the
    Event, for `event_series`; without it, the API server makes one.
    """

    type_: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str
    controller: str
    instance: str
    time: datetime
    name: NotRequired[str]


def api_request(
    verb: Verb,
    kind: Kind[T],
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: bytes | None = None,
    content_type: str = JSON,
    accept: str = JSON,
    most: int | None = None,
) -> Request:
    """Build a request for a kind; empty values of the query are left out."""
    if query:
        path += "?" + urlencode({key: value for key, value in query.items() if value})
    return Request(verb, kind.plural, path, body, content_type, accept, most)


def resource_path(kind: Kind[T], namespace: str | None, name: str | None = None, subresource: str = "") -> str:
    """The path of one object, of the objects of one namespace, or (namespace None) of all of the kind."""
    path = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    if kind.namespaced and namespace is not None:
        path += f"/namespaces/{_segment(namespace)}"
    path += f"/{kind.plural}"
    if name is not None:
        path += f"/{_segment(name)}"
    return f"{path}/{subresource}" if subresource else path


def identity(body: Resource | Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name of an object, or of the body of one."""
    if isinstance(body, Mapping):
        return body["metadata"].get("namespace", ""), body["metadata"]["name"]
    return body.metadata.namespace, body.metadata.name


def token_request(namespace: str, service_account: str, audiences: Sequence[str] = ()) -> Request:
    """Ask for a token of a ServiceAccount (TokenRequest API); without `audiences` it is for the API server.

    Raises Invalid for what is no name.
    """
    path = f"/api/v1/namespaces/{_segment(namespace)}/serviceaccounts/{_segment(service_account)}/token"
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": list(audiences), "expirationSeconds": TOKEN_SECONDS},
    }
    return Request("create", "serviceaccounts/token", path, msgspec.json.encode(body))


def discovery_request(group: str, version: str = "") -> Request:
    """Ask which versions a group has, or which kinds a version of it has. Raises Invalid for what is no name."""
    path = "/".join(["/apis", *map(_segment, filter(None, (group, version)))])
    return Request("get", "apigroups", path)


def event_about(kind: Kind[T], regarding: Resource, **fields: Unpack[EventFields]) -> Request:
    """Create an Event about `regarding` (events.k8s.io/v1)."""
    metadata = regarding.metadata
    namespace = metadata.namespace or "default"
    name = {"name": fields["name"]} if "name" in fields else {"generateName": f"{metadata.name}-"}
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {**name, "namespace": namespace},
        "eventTime": fields["time"].strftime(_MICROSECONDS),
        "type": fields["type_"],
        "reason": fields["reason"],
        "action": fields["action"],
        "note": _shorten(fields["note"]),
        "reportingController": fields["controller"],
        "reportingInstance": fields["instance"],
        "regarding": {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
    }
    path = f"/apis/events.k8s.io/v1/namespaces/{_segment(namespace)}/events"
    return Request("create", "events", path, msgspec.json.encode(event))


def event_series(namespace: str, name: str, *, count: int, time: datetime) -> Request:
    """Say of an Event that it has happened `count` times, at least twice, and last at `time` (events.k8s.io/v1)."""
    body = {"series": {"count": max(2, count), "lastObservedTime": time.strftime(_MICROSECONDS)}}
    path = f"/apis/events.k8s.io/v1/namespaces/{_segment(namespace)}/events/{_segment(name)}"
    return Request("patch", "events", path, msgspec.json.encode(body), MERGE)


def _segment(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    # An empty name would turn "delete this one" into "delete all of them", dots would climb.
    if name in {"", ".", ".."}:
        raise Invalid(f"{name!r} is no name of an object or a namespace")
    return quote(name, safe=":")


def _shorten(note: str) -> str:
    if len(note.encode()) <= NOTE_BYTES:
        return note
    ellipsis = "…"
    return note.encode()[: NOTE_BYTES - len(ellipsis.encode())].decode(errors="ignore") + ellipsis
