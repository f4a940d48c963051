"""Routes, headers, and what a request must have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from kms_acme.console.changes import Changes
from kms_acme.console.gate import COOKIE, Denied, Gate
from kms_acme.console.pages import Pages, Query, View
from kms_acme.console.rendering import STATIC, Templates, static_file

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff",
    hdrs.CACHE_CONTROL: "no-store",
}
_KEEP_ALIVE = 15.0
"""Seconds after which the browser is told that the connection still exists."""


class Console:
    """The application. At most `most_streams` pages are told of changes, each once in `pace` seconds."""

    def __init__(
        self, gate: Gate, pages: Pages, changes: Changes, *, about: str, most_streams: int = 32, pace: float = 2.0
    ) -> None:
        self._gate = gate
        self._pages = pages
        self._changes = changes
        self._templates = Templates(gate.base, about)
        self._most_streams = most_streams
        self._pace = pace
        self._streams = 0

    def application(self) -> web.Application:
        """The application for a runner."""
        base, pages = self._gate.base, self._pages
        application = web.Application(middlewares=[self._guard])
        get = application.router.add_get
        get(f"{base}/start", self._start, allow_head=False)
        get(f"{base}/changes", self._stream, allow_head=False)
        get(f"{base}/static/{{name}}", _static, allow_head=False)
        for path, page in (
            ("", pages.overview),
            ("certificates", pages.certificates),
            ("orders", pages.orders),
            ("authorities", pages.authorities),
            ("profiles", pages.profiles),
            ("accounts", pages.accounts),
            ("try", pages.try_out),
        ):
            get(f"{base}/{path}", self._list(page), allow_head=False)
        for path, story in (("orders", pages.order), ("accounts", pages.account)):
            get(f"{base}/{path}/{{namespace}}/{{name}}", self._one(story), allow_head=False)
        get(f"{base}/profiles/{{namespace}}/{{name}}", self._profile, allow_head=False)
        application.on_shutdown.append(self._close)
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse what the gate refuses, before anything is looked up, and add the headers."""
        try:
            self._gate.check(request.method, request.headers.getall(hdrs.HOST, []), request.headers)
            if request.path != f"{self._gate.base}/start":
                self._gate.require(request.cookies.get(COOKIE))
            response = await handler(request)
        except Denied as denied:
            response = web.Response(status=denied.status, text=f"{denied}\n")
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.reason}\n")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _start(self, request: web.Request) -> web.Response:
        """Exchange the token for the cookie; a browser that has it goes on to the overview."""
        response = web.Response(status=303, headers={hdrs.LOCATION: f"{self._gate.base}/"})
        try:
            self._gate.require(request.cookies.get(COOKIE))
        except Denied:
            value = self._gate.exchange(request.query.get("token", ""))
            response.set_cookie(COOKIE, value, path=f"{self._gate.base}/", httponly=True, samesite="Strict")
        return response

    def _list(self, page: Callable[[Query], Awaitable[View]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return self._answer(await page(dict(request.query)))

        return handle

    def _one(self, page: Callable[[str, str], Awaitable[View]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return self._answer(await page(request.match_info["namespace"], request.match_info["name"]))

        return handle

    async def _profile(self, request: web.Request) -> web.Response:
        names = request.match_info
        return self._answer(await self._pages.profile(names["namespace"], names["name"], dict(request.query)))

    def _answer(self, view: View) -> web.Response:
        name, values = view
        return web.Response(text=self._templates.render(name, values), content_type="text/html")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: one for each change, without anything of it; the page reads itself again."""
        if self._streams >= self._most_streams:
            return web.Response(status=503, text="Too many pages are open.\n", headers={hdrs.RETRY_AFTER: "60"})
        self._streams += 1
        try:
            return await self._tell(request)
        finally:
            self._streams -= 1

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", **HEADERS})
        await response.prepare(request)
        try:
            await response.write(b"retry: 2000\n\n")
            known = self._changes.count
            while not self._changes.closed:
                count = await self._changes.wait(known, seconds=_KEEP_ALIVE)
                await response.write(b": nothing new\n\n" if count == known else f"data: {count}\n\n".encode())
                known = count
                if not self._changes.closed:
                    await asyncio.sleep(self._pace)
        except ConnectionError:
            pass  # the page was closed
        return response

    async def _close(self, _: web.Application) -> None:
        self._changes.close()


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    return web.Response(body=static_file(name), content_type=STATIC[name], charset="utf-8")
