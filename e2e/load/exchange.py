"""Single requests to an ACME server, signed or not, without retries and without interpreting the answer.

Tests use it to send requests that violate RFC 8555. `client.Client` builds on it and follows the rules.
"""

from __future__ import annotations

import ssl
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDictProxy

from e2e.load.keys import AccountKey

JOSE = "application/jose+json"
USER_AGENT = "kms-acme-load/1 (aiohttp)"
KEPT_NONCES = 512


class ProtocolError(Exception):
    """The server's answer violates RFC 8555; the text names the rule."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. `url` is the requested URL, whichever server answered."""

    url: str
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        """The decoded body.

        Raises:
            ProtocolError: if it is not JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"{self.url} answered {self.status} with a body that is not JSON: {error}") from error

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters; empty if missing."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def location(self) -> str | None:
        """The Location header."""
        return self.headers.get("Location")

    @property
    def nonce(self) -> str | None:
        """The Replay-Nonce header."""
        return self.headers.get("Replay-Nonce")

    @property
    def problem(self) -> Mapping[str, Any]:
        """The problem document (RFC 8555, 6.7); empty for other answers."""
        return self.json() if self.content_type == "application/problem+json" else {}

    @property
    def problem_type(self) -> str:
        """The last part of the problem's URN, such as `badNonce`; empty for other answers."""
        return str(self.problem.get("type", "")).rpartition(":")[2]

    def links(self, relation: str) -> list[str]:
        """The unchanged targets of the Link headers with this relation."""
        wanted = {f'rel="{relation}"', f"rel={relation}"}
        found = []
        for line in self.headers.getall("Link", []):
            for each in line.split(","):
                target, *parameters = (part.strip() for part in each.split(";"))
                if wanted.intersection(parameters):
                    found.append(target.strip("<>"))
        return found


class Exchange:
    """Sends requests to one ACME directory and keeps the nonces that come back.

    `servers` are base addresses (`https://127.0.0.1:40001`). If given, consecutive requests go to consecutive servers;
    the URL, the Host header and the TLS server name remain those of the directory. Without `tls`, the client trusts the
    system's CAs. `lenient` is for other ACME servers: harmless violations are counted in `breaches` and not raised.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        tls: ssl.SSLContext | None = None,
        servers: Sequence[str] = (),
        timeout: float = 60,
        lenient: bool = False,
    ) -> None:
        self.directory_url = directory_url
        self.breaches: Counter[str] = Counter()
        self._lenient = lenient
        self.nonces: deque[str] = deque(maxlen=KEPT_NONCES)
        self._servers = cycle(servers) if servers else None
        self._directory: Mapping[str, Any] | None = None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=True if tls is None else tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers={"User-Agent": USER_AGENT},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request unchanged; keep the Replay-Nonce of the answer.

        Raises:
            aiohttp.ClientError, TimeoutError: if there is no answer.
        """
        address, sent, name = url, dict(headers or {}), None
        if self._servers is not None:
            parts = urlsplit(url)
            address = next(self._servers) + url.removeprefix(f"{parts.scheme}://{parts.netloc}")
            sent.setdefault("Host", parts.netloc)
            name = parts.hostname if parts.scheme == "https" else None
        async with self._session.request(
            method, address, data=body, headers=sent, server_hostname=name, allow_redirects=False
        ) as response:
            answer = Answer(url, response.status, response.headers, await response.read())
        if answer.nonce:
            self.nonces.append(answer.nonce)
        return answer

    async def directory(self) -> Mapping[str, Any]:
        """The directory; fetched once.

        Raises:
            ProtocolError: if it is not available or lacks a required member.
        """
        if self._directory is None:
            answer = await self.request("GET", self.directory_url)
            if answer.status != 200:
                raise ProtocolError(f"directory {self.directory_url} answered {answer.status}")
            directory = answer.json()
            for member in ("newNonce", "newAccount", "newOrder"):
                if not isinstance(directory.get(member), str):
                    raise ProtocolError(f"directory {self.directory_url} has no {member}")
            self._directory = directory
        return self._directory

    async def new_nonce(self, method: str = "HEAD") -> str:
        """Fetch a nonce and return it without keeping it. `method` is HEAD or GET (RFC 8555, 7.2).

        aiohttp closes the connection after an answer to HEAD without Content-Length; GET keeps it open.

        Raises:
            ProtocolError: if the answer violates RFC 8555.
        """
        answer = await self.request(method, (await self.directory())["newNonce"])
        if answer.status != (200 if method == "HEAD" else 204) or answer.nonce is None:
            raise ProtocolError(f"{method} {answer.url} answered {answer.status} and nonce {answer.nonce!r}")
        if "no-store" not in answer.headers.get("Cache-Control", ""):
            self.breach(answer, "a nonce without Cache-Control: no-store (M74)")
        return self.nonces.pop()

    def breach(self, answer: Answer, rule: str) -> None:
        """Record a violation that does not prevent the client from continuing.

        Raises:
            ProtocolError: unless `lenient` is set.
        """
        self.breaches[rule] += 1
        if not self._lenient:
            raise ProtocolError(f"{answer.url} ({answer.status}): {rule}")

    async def nonce(self) -> str:
        """The newest kept nonce, or a new one."""
        return self.nonces.pop() if self.nonces else await self.new_nonce()

    async def signed(
        self,
        url: str,
        payload: Mapping[str, Any] | bytes | None,
        *,
        key: AccountKey,
        kid: str | None = None,
        nonce: str | None = None,
        protected: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST a JWS signed by `key`, with `kid`, or with the JWK of the key if `kid` is None (RFC 8555, 6.2).

        `protected` replaces or adds members of the protected header; None removes a member. `payload` None means
        POST-as-GET. There are no retries, and every status is returned.
        """
        signer: dict[str, Any] = {"jwk": key.jwk} if kid is None else {"kid": kid}
        header = {"alg": "ES256", **signer, "nonce": nonce or await self.nonce(), "url": url, **(protected or {})}
        body = key.jws({name: value for name, value in header.items() if value is not None}, payload)
        return await self.request("POST", url, body=body, headers={"Content-Type": JOSE, **(headers or {})})
