"""Errors of the Kubernetes API. The message is the API server's own where it sent one.

ClusterError
├── NotFound        no such object (404)
├── Conflict        the object has changed since it was read, or a precondition does not hold (409)
├── AlreadyExists   an object of that name is there (409)
├── Invalid         the API server will never accept this: schema, CEL rule, size (400, 413, 422, and 500
│                   for a server-side apply that does not fit the schema); see `causes`
├── Forbidden       RBAC, admission or quota forbids it (403)
├── Gone            the resourceVersion or the continue token is too old (410): list again
├── Undecodable     the answer does not fit our model
├── Misconfigured   no kubeconfig and no ServiceAccount, or a broken file
└── Unavailable     try again later: 401 after a refresh, 429, 5xx, transport, deadline. A write may have happened
    ├── TooLong     the answer is longer than the caller takes
    └── Unserved    the API server does not know the kind (yet): its CRD is not there
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

import msgspec

from kms.resources.meta import Unreadable


class ClusterError(Exception):
    """The API server did not do what was requested."""


class NotFound(ClusterError):
    """There is no such object."""


class Conflict(ClusterError):
    """The object is not the one that was read: another version, another uid, or fields of another manager."""


class AlreadyExists(ClusterError):
    """An object of that name is there already."""


class Cause(NamedTuple):
    """One reason for a refusal: the path of the field, and what is wrong with it."""

    field: str
    message: str


class Invalid(ClusterError):
    """The API server refuses the object for good."""

    def __init__(self, message: str, causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(message)
        self.causes = causes


class Forbidden(ClusterError):
    """The API server forbids it."""


class Gone(ClusterError):
    """The requested version has been compacted."""


class Undecodable(ClusterError):
    """The API server's answer does not fit the model of its kind; `unreadable` is the object, if it is one."""

    def __init__(self, message: str, unreadable: Unreadable | None = None) -> None:
        super().__init__(message)
        self.unreadable = unreadable


class Misconfigured(ClusterError):
    """The settings name no API server."""


class Delivery(Enum):
    """What is known of a request that got no reliable answer."""

    NOT_BEGUN = auto()
    """The API server has not begun to process it."""
    IN_DOUBT = auto()
    """The API server could not finish it, and asks for another attempt. A write may have happened."""
    CONNECTION_LOST = auto()
    """The connection broke after it was sent."""
    UNKNOWN = auto()
    """The API server may have processed it or not."""


class Unavailable(ClusterError):
    """No reliable answer now. `retry_after` is the number of seconds that the API server asked for, if it did."""

    def __init__(
        self, message: str, retry_after: float | None = None, *, delivery: Delivery = Delivery.UNKNOWN
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.delivery = delivery


class TooLong(Unavailable):
    """The answer is longer than the caller takes: ask for less."""


class Unserved(Unavailable):
    """The API server does not serve the kind: its CRD is missing, or new."""


class _Cause(msgspec.Struct, frozen=True):
    field: str = ""
    message: str = ""


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    causes: tuple[_Cause, ...] = ()
    retry_after_seconds: float = 0


class _Status(msgspec.Struct, frozen=True):
    """The part of metav1.Status that we read."""

    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details = _Details()


_SERVER_ERROR = 500
_TOO_MANY_REQUESTS = 429
_TEMPORARY = frozenset({401, 408, 429})
_UNTYPED = "failed to create typed patch object"
_PLAIN = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone}

_status = msgspec.json.Decoder(_Status)


def error_of(code: int, body: bytes, retry_after: str | None = None) -> ClusterError:
    """The error for an answer with HTTP status `code`; `retry_after` is its Retry-After header."""
    try:
        status = _status.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = _Status(message=body[:200].decode(errors="replace").strip())
    message = status.message or f"the API server answered {code}"
    error: ClusterError
    match code:
        case 404 if status.kind != "Status":
            # The path is not served: the CRD is missing. That says nothing about the object.
            error = Unserved(f"the API server does not serve this kind: {message}")
        case 409 if status.reason == "AlreadyExists":
            error = AlreadyExists(message)
        case 400 | 413 | 422:
            error = Invalid(message, _causes(status))
        case 500 if message.startswith(_UNTYPED):
            # The body of a server-side apply does not fit the schema: the API server says so with 500, each time.
            error = Invalid(message)
        case _ if code in _TEMPORARY or code >= _SERVER_ERROR:
            seconds = _seconds(retry_after, status)
            error = Unavailable(message, seconds, delivery=_delivery(code, seconds))
        case _:
            error = _PLAIN.get(code, ClusterError)(message)
    return error


def _delivery(code: int, retry_after: float | None) -> Delivery:
    if code == _TOO_MANY_REQUESTS:
        # These answer 429 before they begin: priority and fairness, max-inflight, a server that shuts down, storage
        # that is (re)initializing, a webhook.
        return Delivery.NOT_BEGUN
    # Without Retry-After it will not pass soon: a webhook that fails, a load balancer without a backend.
    return Delivery.IN_DOUBT if code >= _SERVER_ERROR and retry_after is not None else Delivery.UNKNOWN


def _causes(status: _Status) -> tuple[Cause, ...]:
    # "<nil>" is how the API server says that it could not evaluate some rules.
    return tuple(Cause(each.field, each.message) for each in status.details.causes if each.field != "<nil>")


def watch_error_of(body: bytes) -> ClusterError:
    """The error in the object of a watch's ERROR event; a missing code counts as 500."""
    try:
        code = _status.decode(body).code
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = 0
    return error_of(code or 500, body)


def _seconds(header: str | None, status: _Status) -> float | None:
    # A date is allowed in Retry-After, but no API server sends one.
    if header is not None and header.isascii() and header.isdigit():
        return float(header)
    return status.details.retry_after_seconds or None
