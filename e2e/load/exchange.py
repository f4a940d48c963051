"""One request and one answer: signed or not, to any of several servers, with nothing hidden and nothing decided.

Tests use this floor to send what a well-behaved client never sends; `client.Client` stands on it and minds the rules.
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
    """The server's answer breaks RFC 8555. The text says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `url` is the one that was asked for, whichever server answered."""

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
        """The media type without its parameters, in lower case; empty if there is none."""
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
        """The problem document; empty if the answer is none (RFC 8555, 6.7)."""
        return self.json() if self.content_type == "application/problem+json" else {}

    @property
    def problem_type(self) -> str:
        """The last part of the problem's URN (`badNonce`); empty if the answer is no problem."""
        return str(self.problem.get("type", "")).rpartition(":")[2]

    def links(self, relation: str) -> list[str]:
        """The targets of the Link headers with this relation, as they were written."""
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

    `servers` are base addresses (`https://127.0.0.1:40001`). If there are any, each request goes to the next of them,
    while URLs, the Host header and the name that TLS checks stay those of the directory: so a test makes every single
    request meet another process. Without, requests go where their URL says. `tls` None: the system's trust. `lenient`
    is for servers of others: what they do against the rules, without harm to anybody, is counted in `breaches`.
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
        """Send one request as it is. A Replay-Nonce that comes back is kept for later.

        Raises:
            aiohttp.ClientError: if there is no answer; TimeoutError likewise.
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
        """The directory, fetched once.

        Raises:
            ProtocolError: if it cannot be had or lacks what a client needs.
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
        """A nonce straight from the server; it is not kept. `method` is HEAD or GET (RFC 8555, 7.2; M72-M74).

        aiohttp closes the connection after an answer to HEAD without Content-Length, so GET is what keeps it open.

        Raises:
            ProtocolError: if the answer is not what it must be.
        """
        answer = await self.request(method, (await self.directory())["newNonce"])
        if answer.status != (200 if method == "HEAD" else 204) or answer.nonce is None:
            raise ProtocolError(f"{method} {answer.url} answered {answer.status} and nonce {answer.nonce!r}")
        if "no-store" not in answer.headers.get("Cache-Control", ""):
            self.breach(answer, "a nonce without Cache-Control: no-store (M74)")
        return self.nonces.pop()

    def breach(self, answer: Answer, rule: str) -> None:
        """An answer breaks a rule, and one could go on.

        Raises:
            ProtocolError: unless we are lenient.
        """
        self.breaches[rule] += 1
        if not self._lenient:
            raise ProtocolError(f"{answer.url} ({answer.status}): {rule}")

    async def nonce(self) -> str:
        """The newest nonce at hand, else a new one."""
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
        """POST a JWS signed by `key` under the account `kid`, or under its own JWK if that is None (RFC 8555, 6.2).

        `protected` replaces or adds members of the protected header; a member that is None there is left out.
        `payload` None is POST-as-GET. Nothing is retried and no status is an error.
        """
        signer: dict[str, Any] = {"jwk": key.jwk} if kid is None else {"kid": kid}
        header = {"alg": "ES256", **signer, "nonce": nonce or await self.nonce(), "url": url, **(protected or {})}
        body = key.jws({name: value for name, value in header.items() if value is not None}, payload)
        return await self.request("POST", url, body=body, headers={"Content-Type": JOSE, **(headers or {})})
