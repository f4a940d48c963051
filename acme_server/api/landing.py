"""The page at `/`, for people who open the server's address in a browser."""

from __future__ import annotations

from html import escape

from aiohttp import web

from acme_server.api.context import URLS
from acme_server.api.routing import get

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>kms-acme</title>
<h1>kms-acme</h1>
<p>This is an ACME server (<a href="https://www.rfc-editor.org/rfc/rfc8555">RFC 8555</a>). It is for programs:
certbot, lego, Caddy, cert-manager and others get certificates from it.</p>
<p>Each certificate profile has a directory of its own. Give your client the URL
<code>{directory}</code>, with the namespace and the name of the profile that you want to use. It is in the
<code>directory-url</code> of the Secret that your credentials are in.</p>
</html>
"""

_HEADERS = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}


async def read(request: web.Request) -> web.Response:
    """Describe this server to people."""
    directory = request.app[URLS].directory("<namespace>", "<profile>")
    return web.Response(text=_PAGE.format(directory=escape(directory)), content_type="text/html", headers=_HEADERS)


ROUTES = (get("/", read),)
