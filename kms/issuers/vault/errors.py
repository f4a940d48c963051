"""Errors of calls to Vault and OpenBao.

VaultError
├── BadRequest        it refuses what was sent (400)
├── PermissionDenied  no valid token, or a token that may not do this (403)
├── LoginFailed       it refuses the credentials, or there are none
├── NotServed         no such path, mount or namespace (404), or another server than the one to ask (3xx, other 4xx)
├── ServerFailed      an error in the server, or a configuration that it notices only now (500)
└── Unreachable       try again later: no connection, no answer in time, 429, 5xx
    └── Sealed        it cannot read its storage until somebody unseals it
"""

from __future__ import annotations


class VaultError(Exception):
    """The server did not do what was requested.

    The message names the call and what went wrong, and may be logged. `words` is what the server said: it may be shown
    to administrators, and to nobody else.
    """

    def __init__(self, message: str, words: str = "") -> None:
        super().__init__(message)
        self.words = words


class BadRequest(VaultError):
    """The server refuses what was sent."""


class PermissionDenied(VaultError):
    """The token is not valid (any more), or may not do this. The server does not say which."""


class LoginFailed(VaultError):
    """The server refuses the credentials, or there are none."""


class NotServed(VaultError):
    """The server has no such path, mount or namespace."""


class ServerFailed(VaultError):
    """An error in the server, or a configuration that it notices only now."""


class Unreachable(VaultError):
    """The server could not be asked. `is_ambiguous`: it may have done what was requested all the same."""

    def __init__(self, message: str, words: str = "", *, is_ambiguous: bool = False) -> None:
        super().__init__(message, words)
        self.is_ambiguous = is_ambiguous


class Sealed(Unreachable):
    """The server is sealed; somebody has to unseal it."""
