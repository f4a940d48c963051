"""Replaces the API of a DNS provider: clients publish and remove TXT records, or files for http-01.

    with serving(zone, answerer) as url: ...

`POST {url}/present` and `/cleanup` with {"fqdn": ..., "value": ...} is the protocol of lego's provider `httpreq`.
`POST {url}/present` with {"path": ..., "value": ...} publishes a file for http-01. hook.py, which certbot's manual
plugin and lego's provider `exec` call, sends both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from aiohttp import web

from e2e.support.dns import Zone
from e2e.support.http01 import Answerer, Text
from e2e.support.threads import in_thread

HOOK = Path(__file__).with_name("hook.py")
"""The program for clients that run one; `STORY_HOOKS` in its environment is the URL."""
LOOPBACK = "127.0.0.1"

Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def listening(zone: Zone, answerer: Answerer) -> AsyncIterator[str]:
    """Serve on a free port; yields the URL."""
    application = web.Application()
    application.add_routes([web.post("/present", _presenting(zone, answerer)), web.post("/cleanup", _cleaning(zone))])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        yield f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def serving(zone: Zone, answerer: Answerer) -> AbstractContextManager[str]:
    """Serve in a thread, for synchronous code."""
    return in_thread(listening(zone, answerer), name="hooks")


def _presenting(zone: Zone, answerer: Answerer) -> Handler:
    async def present(request: web.Request) -> web.Response:
        body = await request.json()
        if "path" in body:
            answerer.behave(body["path"], Text(body["value"]))
        else:
            zone.publish(body["fqdn"], body["value"])
        return web.Response()

    return present


def _cleaning(zone: Zone) -> Handler:
    async def clean(request: web.Request) -> web.Response:
        body = await request.json()
        if "fqdn" in body:
            zone.withdraw(body["fqdn"], body["value"])
        return web.Response()

    return clean
