"""A client that is logged in: one token for all calls, in memory only, and another one before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from kms.issuers.vault.client import CALL_SECONDS, Method, Reply, VaultClient
from kms.issuers.vault.credentials import Credentials, InvalidCredentials
from kms.issuers.vault.errors import LoginFailed, PermissionDenied, Unreachable, VaultError
from kms.issuers.vault.login import Login, log_in, log_out
from kms.resources.authorities import VaultServer

RENEWED_AFTER: Final = 2 / 3
"""The part of a token's life after which another login replaces it."""
LOGIN_PAUSE: Final = 1.0
"""Seconds between two logins that refused calls lead to: each costs the server a lease."""
_LOGOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Current:
    login: Login
    credentials: Credentials
    since: float


class VaultSession:
    """Calls to one server with a token of ours.

    `credentials` returns what a login sends, as it is now; it raises InvalidCredentials. `call_seconds` limit a call
    with its logins. After a login there are `login_pause` seconds before a refused call leads to another one.
    """

    def __init__(
        self,
        server: VaultServer,
        credentials: Callable[[], Credentials],
        *,
        client: VaultClient | None = None,
        call_seconds: float = CALL_SECONDS,
        login_pause: float = LOGIN_PAUSE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._auth = server.auth
        self._credentials = credentials
        self._client = client or VaultClient(server)
        self._call_seconds = call_seconds
        self._login_pause = login_pause
        self._monotonic = monotonic
        self._current: _Current | None = None
        self._logging_in = asyncio.Lock()

    async def close(self) -> None:
        """Revoke the token, if the server answers soon, and close all connections."""
        current, self._current = self._current, None
        if current is not None:
            with contextlib.suppress(VaultError, TimeoutError):
                async with asyncio.timeout(_LOGOUT_SECONDS):
                    await log_out(self._client, current.login)
        await self._client.close()

    async def call(self, method: Method, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Call the server; once more after another login if it refuses the token. Raises VaultError.

        PermissionDenied means that the token of a recent login may not do this.
        """
        is_sent = False
        try:
            async with asyncio.timeout(self._call_seconds):
                current = await self._login()
                is_sent = True
                try:
                    return await self._send(method, path, body, current)
                except PermissionDenied:
                    is_sent = False
                    renewed = await self._login(refused=current)
                    if renewed is current:
                        raise
                    is_sent = True
                    return await self._send(method, path, body, renewed)
        except TimeoutError:
            raise Unreachable(f"{method} {path}: no answer in time", is_ambiguous=is_sent) from None

    async def _send(self, method: Method, path: str, body: Mapping[str, Any] | None, current: _Current) -> Reply:
        """Call the server. It may quote what it was sent at the login, too."""
        secrets = current.credentials.secrets
        return await self._client.call(method, path, body, token=current.login.token, secrets=secrets)

    async def _login(self, *, refused: _Current | None = None) -> _Current:
        """The token to use. One call logs in while the others wait for it."""
        async with self._logging_in:
            try:
                credentials = self._credentials()
            except InvalidCredentials as error:
                raise LoginFailed(f"no credentials: {error}") from None
            if self._current is None or self._is_due(self._current, credentials, refused):
                login = await log_in(self._client, self._auth, credentials)
                self._current = _Current(login, credentials, self._monotonic())
            return self._current

    def _is_due(self, current: _Current, credentials: Credentials, refused: _Current | None) -> bool:
        if not current.login.is_own:
            return current.credentials != credentials
        age = self._monotonic() - current.since
        if current is refused:
            return current.credentials != credentials or age >= self._login_pause
        lease = current.login.lease
        return lease is not None and age >= (lease * RENEWED_AFTER) / timedelta(seconds=1)
