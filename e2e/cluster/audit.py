"""Counts requests to the API server by its audit log, for limits such as "3 writes and 0 reads"."""

from __future__ import annotations

import http
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from e2e.cluster.processes import Deadline

_QUIET = 0.1
_SETTLE_LIMIT = 2.0

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class Request:
    """One completed request, or one opened watch."""

    user: str
    verb: str
    resource: str
    """Plural with its group: "acmeorders.pki.kms.hanzo.ai", "secrets"; "" for other paths."""
    subresource: str
    namespace: str
    name: str
    status: int
    user_agent: str
    uri: str

    @classmethod
    def of(cls, event: dict[str, Any]) -> Self:
        """Parse an audit event (audit.k8s.io/v1) of level Metadata."""
        target = event.get("objectRef", {})
        plural, group = target.get("resource", ""), target.get("apiGroup", "")
        return cls(
            user=event["user"]["username"],
            verb=event["verb"],
            resource=f"{plural}.{group}" if group else plural,
            subresource=target.get("subresource", ""),
            namespace=target.get("namespace", ""),
            name=target.get("name", ""),
            status=event.get("responseStatus", {}).get("code", 0),
            user_agent=event.get("userAgent", ""),
            uri=event["requestURI"],
        )


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The key by which requests are counted."""

    user: str
    verb: str
    resource: str
    subresource: str


class AuditLog:
    """The requests since creation, or since the last mark()."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.mark()

    def mark(self) -> None:
        """Start counting anew."""
        self._settle()
        self._offset = self._size()

    def requests(self, *, user: str = "", resource: str = "", user_agent: str = "") -> list[Request]:
        """All requests since the mark, in the order of their completion.

        `user` and `resource` (with or without its group) select exactly, `user_agent` by a substring. A user may have
        the short form "serviceaccount:<namespace>:<name>".
        """
        self._settle()
        return [
            each
            for each in map(Request.of, self._events())
            if user in {"", each.user, each.user.removeprefix("system:")}
            and resource in {"", each.resource, each.resource.partition(".")[0]}
            and user_agent in each.user_agent
        ]

    def counts(self, *, user: str = "", resource: str = "", user_agent: str = "") -> Counter[RequestKey]:
        """The number of requests since the mark for each (user, verb, resource, subresource)."""
        chosen = self.requests(user=user, resource=resource, user_agent=user_agent)
        return Counter(RequestKey(each.user, each.verb, each.resource, each.subresource) for each in chosen)

    def writes(self, *, user: str = "", resource: str = "", user_agent: str = "") -> int:
        """The number of writing requests since the mark."""
        chosen = self.requests(user=user, resource=resource, user_agent=user_agent)
        return sum(each.verb in WRITES for each in chosen)

    def reads(self, *, user: str = "", resource: str = "", user_agent: str = "") -> int:
        """The number of gets and lists since the mark. An open watch does not count."""
        chosen = self.requests(user=user, resource=resource, user_agent=user_agent)
        return sum(each.verb in {"get", "list"} for each in chosen)

    def _events(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if line.endswith(b"\n") and _counts(event := json.loads(line)):
                    yield event

    def _settle(self) -> None:
        """Wait until the log is complete: the API server writes a line shortly after it answers."""
        deadline, before, now = Deadline(_SETTLE_LIMIT), -1, self._size()
        while before != now and deadline:
            time.sleep(_QUIET)
            before, now = now, self._size()

    def _size(self) -> int:
        return self._path.stat().st_size


def _counts(event: dict[str, Any]) -> bool:
    """Whether to count an event. A watch counts when it opens or is refused, other requests when they are complete."""
    if event["verb"] == "watch" and event.get("responseStatus", {}).get("code", 0) < http.HTTPStatus.BAD_REQUEST:
        return bool(event["stage"] == "ResponseStarted")
    return bool(event["stage"] == "ResponseComplete")
