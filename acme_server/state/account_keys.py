"""Which keys are account keys: a certificate must not be made for one of them (RFC 8555, 11.1).

Asking the API server at every finalize would cost a read each time. So this keeps a digest of every account's key in
memory, whatever its profile, filled by a survey once the watch has begun and kept by the watch. While the survey is not
complete, or there are more accounts than are kept, a live read settles it for the profile at hand: an account's name
follows from profile and key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable

from kms.resources.accounts import ACMEAccount

CAPACITY = 500_000
"""Accounts that are kept in mind: about 40 MB when full."""


def account_name(namespace: str, profile: str, thumbprint: str) -> str:
    """The name of the account of that key on that profile: one key, one account."""
    digest = hashlib.sha256(f"{namespace}\0{profile}\0{thumbprint}".encode()).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


class AccountKeys:
    """Remembers the keys of accounts, also of those that were deleted: they were account keys all the same."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._digests: set[int] = set()
        self._complete = False

    def __len__(self) -> int:
        return len(self._digests)

    def seen(self, account: ACMEAccount, deleted: bool) -> None:  # noqa: ARG002, FBT001 - the signature of listeners
        """Remember the key of the account. Its later keys are those of its aliases, which pass by here as well."""
        if len(self._digests) < self._capacity:
            self._digests.add(_digest(account.spec.thumbprint))
        else:
            self._complete = False

    def missed(self) -> None:
        """The watch begins, or begins anew after a gap: rely on this only after the next survey."""
        self._complete = False

    def surveyed(self) -> None:
        """Every account that there is has been seen."""
        self._complete = len(self._digests) < self._capacity

    async def is_account_key(self, thumbprint: str, read: Callable[[], Awaitable[ACMEAccount | None]]) -> bool:
        """Whether the key of that thumbprint is an account key; `read` is asked where memory cannot exclude it."""
        if _digest(thumbprint) in self._digests:
            return True
        return not self._complete and await read() is not None


def _digest(thumbprint: str) -> int:
    return int.from_bytes(hashlib.blake2b(thumbprint.encode(), digest_size=8).digest(), "big")
