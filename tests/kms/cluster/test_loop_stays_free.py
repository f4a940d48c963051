"""Objects that tenants nest deeply do not hold the event loop of a program that watches them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from kms.cluster.auth import Connection
from kms.cluster.client import Cluster
from kms.cluster.errors import Undecodable
from kms.resources.kinds import PROFILES
from tests.support.loops import MeasuredLoop
from tests.support.processor import slowness

LEVELS = 250_000
"""Levels of an object of 0.5 MB; etcd takes 1.5 MiB."""
METADATA = b'{"name":"deep","namespace":"pki","resourceVersion":"9"}'
OBJECT = b'{"metadata":' + METADATA + b',"spec":{"x":' + b"[" * LEVELS + b"]" * LEVELS + b"}}"
LISTING = b'{"metadata":{"resourceVersion":"9"},"items":[' + OBJECT + b"]}"
EVENT = b'{"type":"ADDED","object":' + OBJECT + b"}\n"


async def serve(request: web.Request) -> web.Response:
    body = EVENT if "watch" in request.query else LISTING if request.path.endswith(PROFILES.plural) else OBJECT
    return web.Response(body=body, content_type="application/json")


async def read_all() -> None:
    application = web.Application()
    application.router.add_get("/{path:.*}", serve)
    async with TestServer(application) as server:
        cluster = Cluster(Connection(Configuration(host=str(server.make_url("")).rstrip("/"))))
        try:
            async with aclosing(cluster.watch(PROFILES, resource_version="1")) as events:
                event = await anext(events)
            page = await cluster.page(PROFILES, limit=1)
            with pytest.raises(Undecodable, match="nested too deeply"):
                await cluster.get(PROFILES, "pki", "deep")
        finally:
            await cluster.close()
    assert event.unreadable is not None
    assert [each.metadata.name for each in (event.unreadable, *page.unreadable)] == ["deep", "deep"]


@pytest.mark.requirement("SEC74")
def test_an_object_that_is_nested_too_deeply_is_cut_beside_the_loop() -> None:
    """Cutting takes a tenth of a second."""
    with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
        runner.run(read_all())
        loop = runner.get_loop()
    assert isinstance(loop, MeasuredLoop)
    assert loop.longest < 0.06 * slowness(), "seconds; the test server's own turns are counted too"
