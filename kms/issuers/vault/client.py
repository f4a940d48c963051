"""Calls to one server of Vault or OpenBao: TLS, limits, and errors by status. No call is made twice.

It talks to aiohttp. The library for Vault, hvac, is synchronous.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from kms.issuers.vault.errors import (
    BadRequest,
    NotServed,
    PermissionDenied,
    Sealed,
    ServerFailed,
    Unreachable,
    VaultError,
)
from kms.resources.authorities import VaultServer
from kms.tls_groups import CLIENT_GROUPS, restrict_key_exchange

Method = Literal["GET", "POST"]

CONNECT_SECONDS: Final = 5.0
CALL_SECONDS: Final = 30.0
"""For one call, with its connection."""
LONGEST_ANSWER: Final = 2**20
"""Octets: a certificate with its chain has a few thousand."""

_WORDS: Final = 1024
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_WARNINGS: Final = 10
_KEEP_ALIVE: Final = 30.0
_SUCCESS = range(200, 300)
_SERVER_ERRORS = range(500, 600)
_STATUSES: Mapping[int, type[VaultError]] = {400: BadRequest, 403: PermissionDenied, 500: ServerFailed}
_UNAVAILABLE = 503
_TOO_MANY = 429
_UNKNOWN_CA = (18, 19, 20, 21)
"""Results of OpenSSL's verification (X509_V_ERR_*) for a certificate that no known CA has signed."""
_HEALTH = (412, 472, 473)
"""Statuses of Vault for a replica that cannot answer yet, or not any more."""


class Auth(msgspec.Struct, frozen=True):
    """The answer to a login. `lease_duration` is in seconds; 0: the token does not end."""

    client_token: str
    lease_duration: int = 0

    def __repr__(self) -> str:
        return f"Auth(lease_duration={self.lease_duration})"


class Reply(msgspec.Struct, frozen=True):
    """An answer: `data` is that of the secrets engine, in JSON; `auth` is set after a login."""

    data: msgspec.Raw = msgspec.Raw(b"null")
    auth: Auth | None = None
    warnings: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return "Reply()"


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[str, ...] = ()


class VaultClient:
    """Connections to one server. Requests name its namespace; they follow no redirects and use no proxy.

    `connect_seconds` limit connecting, `call_seconds` a whole call, `longest_answer` octets an answer.
    """

    def __init__(
        self,
        server: VaultServer,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        call_seconds: float = CALL_SECONDS,
        longest_answer: int = LONGEST_ANSWER,
    ) -> None:
        self._server = server
        self._timeout = aiohttp.ClientTimeout(total=call_seconds, connect=connect_seconds)
        self._longest = longest_answer
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def close(self) -> None:
        """Close all connections. Later calls raise Unreachable: nobody would close what they open."""
        self._closed = True
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def call(
        self,
        method: Method,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        secrets: Iterable[str] = (),
    ) -> Reply:
        """Call `path` (without /v1) of the server's API. Raises VaultError.

        Neither messages nor words of errors have `token` or any of the `secrets` that the body has.
        """
        what = f"{method} {path}"
        session = await self._open(what)
        try:
            answer = await session.request(
                method,
                URL(f"{self._server.server.rstrip('/')}/v1/{quote(path, safe='/')}", encoded=True),
                data=None if body is None else msgspec.json.encode(body),
                headers=self._headers(token),
                allow_redirects=False,  # the token is for this server alone
            )
            async with answer:
                content = await self._read(answer, what)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _unreachable(what, error) from None  # what aiohttp raises may quote headers
        hidden = (*secrets, *([token] if token else ()))
        if answer.status not in _SUCCESS:
            raise _error_of(what, answer.status, _words(content, hidden))
        return _without(_decoded(content, what), hidden)

    async def _open(self, what: str) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None and not self._closed:
                # Reading the system's roots, or a long caBundle, takes tens of milliseconds.
                context = await asyncio.to_thread(_tls, self._server)
                if not self._closed:
                    self._session = self._session_with(context)
            if self._session is None:
                raise Unreachable(f"{what}: the connections to the server have been closed")
            return self._session

    def _session_with(self, context: ssl.SSLContext) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The callers limit how many calls there are at once.
            connector=aiohttp.TCPConnector(limit=0, ssl=context, keepalive_timeout=_KEEP_ALIVE),
            timeout=self._timeout,
            headers={"Accept-Encoding": "identity", "User-Agent": "kms-acme", "X-Vault-Request": "true"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,  # an answer of 1 MiB may unpack to a thousand
        )

    def _headers(self, token: str | None) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["X-Vault-Token"] = token
        if self._server.namespace is not None:
            headers["X-Vault-Namespace"] = self._server.namespace
        return headers

    async def _read(self, answer: aiohttp.ClientResponse, what: str) -> bytes:
        chunks, octets = [], 0
        async for chunk in answer.content.iter_any():
            octets += len(chunk)
            if octets > self._longest:
                answer.close()
                raise Unreachable(f"{what}: the answer is longer than {self._longest} octets", is_ambiguous=True)
            chunks.append(chunk)
        return b"".join(chunks)


def _tls(server: VaultServer) -> ssl.SSLContext:
    """The context for one server. Raises Unreachable if its caBundle has no certificates."""
    # One certificate at a time: the interpreter's lock is held while it is loaded.
    first, *others = _CERTIFICATE.findall(server.ca_bundle or "") or [server.ca_bundle or None]
    try:
        context = ssl.create_default_context(cadata=first)
        for each in others:
            context.load_verify_locations(cadata=each)
    except (ValueError, ssl.SSLError):
        raise Unreachable("caBundle: no certificate in PEM that can be read") from None
    # CAs of companies often lack extensions that the strict mode asks for; Vault's own client does not ask for them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    restrict_key_exchange(context, CLIENT_GROUPS)
    return context


def _unreachable(what: str, error: Exception) -> Unreachable:
    """The error for a call without an answer. It was not sent if there was no connection."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason, was_sent = f"certificate of the server not accepted ({_verification(error)}){_fix(error)}", False
        case aiohttp.ConnectionTimeoutError():
            reason, was_sent = "no connection in time", False
        case aiohttp.ClientConnectorError():
            reason, was_sent = f"no connection ({error.os_error.strerror or type(error).__name__})", False
        case aiohttp.InvalidURL():
            reason, was_sent = "the URL is not valid", False
        case TimeoutError():
            reason, was_sent = "no answer in time", True
        case _:
            reason, was_sent = f"no answer ({type(error).__name__})", True
    return Unreachable(f"{what}: {reason}", is_ambiguous=was_sent)


def _verification(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    return str(getattr(cause, "verify_message", "") or type(cause).__name__)


def _fix(error: aiohttp.ClientConnectorCertificateError) -> str:
    is_unknown = getattr(error.certificate_error, "verify_code", None) in _UNKNOWN_CA
    return "; set caBundle to the CA of its certificate" if is_unknown else ""


def _error_of(what: str, status: int, words: str) -> VaultError:
    message = f"{what}: HTTP {status}"
    if status == _UNAVAILABLE and "sealed" in words:
        return Sealed(message, words)
    if kind := _STATUSES.get(status):
        return kind(message, words)
    if status == _TOO_MANY or status in _SERVER_ERRORS or status in _HEALTH:
        # Only a server in between answers with other statuses than these, and it may have passed the request on.
        is_ambiguous = status in _SERVER_ERRORS and status != _UNAVAILABLE
        return Unreachable(message, words, is_ambiguous=is_ambiguous)
    return NotServed(message, words)


def _words(content: bytes, hidden: Iterable[str]) -> str:
    """What the server says in an error, without any of the secrets that it was sent."""
    try:
        words = "; ".join(each.strip() for each in msgspec.json.decode(content, type=_Errors).errors)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return _hide(words, hidden)


def _hide(words: str, hidden: Iterable[str]) -> str:
    for secret in hidden:
        words = words.replace(secret, "(secret)")
    return words[:_WORDS]


def _without(reply: Reply, hidden: Iterable[str]) -> Reply:
    """The reply, without secrets in its warnings, which are logged."""
    if not reply.warnings:
        return reply
    return msgspec.structs.replace(reply, warnings=tuple(_hide(each, hidden) for each in reply.warnings[:_WARNINGS]))


def _decoded(content: bytes, what: str) -> Reply:
    if not content:  # 204
        return Reply()
    try:
        return msgspec.json.decode(content, type=Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Unreachable(f"{what}: the answer is not that of Vault or OpenBao", is_ambiguous=True) from None
