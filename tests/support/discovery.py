"""The fake API server with API discovery, which kopf requires."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from kms.resources.core import Namespace
from kms.resources.kinds import (
    ACCOUNTS,
    AUTHORITIES,
    CREDENTIALS,
    NAMESPACES,
    POLICIES,
    PROFILES,
    SECRETS,
    Kind,
)
from kms.resources.meta import GROUP, VERSION
from tests.support.apiserver import FakeApiServer

VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]
EVENTS = Kind(group="", version="v1", kind="Event", plural="events", model=Namespace)  # never decoded
CORE = (NAMESPACES, SECRETS, EVENTS)
OURS = (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS, ACCOUNTS)


class DiscoverableApiServer(FakeApiServer):
    """Also answers /api, /apis and their groups, as far as kopf reads them."""

    broken_watches = 0
    """The number of watches that end with an error that is fatal for kopf."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        match request.path.strip("/").split("/"):
            case ["api"]:
                return web.json_response({"versions": ["v1"]})
            case ["api", "v1"]:
                return web.json_response({"resources": [_described(each) for each in CORE]})
            case ["apis"]:
                version = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
                group = {"name": GROUP, "versions": [version], "preferredVersion": version}
                return web.json_response({"groups": [group]})
            case ["apis", _, _]:
                return web.json_response({"resources": [_described(each) for each in OURS]})
            case _ if "watch" in request.query and self.broken_watches:
                self.broken_watches -= 1
                status = {"kind": "Status", "code": 500, "message": "etcdserver: leader changed"}
                return web.json_response({"type": "ERROR", "object": status})
            case _:
                return await super()._handle(request)


@asynccontextmanager
async def discoverable_api() -> AsyncIterator[DiscoverableApiServer]:
    """A server on a free port of the loopback interface."""
    api = DiscoverableApiServer()
    await api.start()
    try:
        yield api
    finally:
        await api.close()


def _described(kind: Kind[Any]) -> dict[str, Any]:
    return {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "kind": kind.kind,
        "namespaced": kind.namespaced,
        "verbs": VERBS,
    }
