"""Who may see the pages: the browser of the person who started the console. Pure, but for its one token.

Every program on the machine can connect to the port, and every site can make the browser send requests to it. So a
request needs a cookie, which the browser gets for a token that works once; it must name the console as its host (DNS
rebinding), and must not come from the page of another origin (cross-site requests). Cookies of 127.0.0.1 go to all of
its ports, so that the cookie is for a path that no other program has.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence

from kms.clock import Entropy, system_entropy

HOST = "127.0.0.1"
COOKIE = "kms-acme-console"
_SECRET, _PATH = 32, 12
"""Bytes of the token and the cookie, and of the path."""


class Denied(Exception):
    """The request is refused with this HTTP status; the message is for the person."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gate:
    """Decides about requests to the console on this port."""

    def __init__(self, port: int, *, entropy: Entropy = system_entropy) -> None:
        self._host = f"{HOST}:{port}"
        self._origin = f"http://{self._host}"
        self._token: str | None = _text(entropy(_SECRET))
        self._cookie = _text(entropy(_SECRET))
        self.base = f"/{_text(entropy(_PATH))}"
        """The path of all pages, without a slash at its end."""
        self.url = f"{self._origin}{self.base}/start?token={self._token}"
        """Where the browser gets the cookie, once."""

    def check(self, method: str, hosts: Sequence[str], headers: Mapping[str, str]) -> None:
        """Raise Denied for a request that no page of the console and no person sends. `hosts`: its Host headers."""
        if list(hosts) != [self._host]:
            raise Denied(403, f"This is the console of kms-acme at {self._host}; the request is for another host.")
        if method != "GET":
            raise Denied(405, "The console only shows: its one method is GET.")
        if headers.get("Origin", self._origin) != self._origin:
            raise Denied(403, "The request comes from a page of another origin.")
        if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Denied(403, "The request comes from another site. Open the address in a new window.")

    def exchange(self, token: str) -> str:
        """The value of the cookie for the token, which works once. Raises Denied."""
        if self._token is None or not hmac.compare_digest(self._token.encode(), token.encode()):
            raise Denied(
                403,
                "This address has been used before, or is not the one that was printed."
                " If you did not open it, stop the console. Otherwise start it again for a new address.",
            )
        self._token = None
        return self._cookie

    def require(self, cookie: str | None) -> None:
        """Raise Denied for a request without the cookie."""
        if cookie is None or not hmac.compare_digest(self._cookie.encode(), cookie.encode()):
            raise Denied(403, "Open the address that kms-acme console has printed.")


def _text(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
