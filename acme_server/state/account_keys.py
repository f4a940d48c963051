"""Which keys are account keys: no certificate is issued for one of them (RFC 8555, 11.1).

Asking the API server at every finalize would cost a read each time. So this view keeps a digest of every account's key,
for all profiles. While it is incomplete or full, a live read decides, for the profile of the order only: the name of an
account follows from profile and key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable

from acme_server.state.index import Index, View
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key

CAPACITY = 500_000
"""Maximum number of keys: about 40 MB."""


def account_name(namespace: str, profile: str, thumbprint: str) -> str:
    """The name of the account that has this key on this profile: one key, one account."""
    digest = hashlib.sha256(f"{namespace}\0{profile}\0{thumbprint}".encode()).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


class AccountKeys(View[ACMEAccount]):
    """The keys of all accounts, including deleted ones."""

    def __init__(self, index: Index[ACMEAccount], *, capacity: int = CAPACITY) -> None:
        super().__init__(index)
        self._capacity = capacity
        self._digests: set[int] = set()
        self._unreadable: set[Key] = set()

    def __len__(self) -> int:
        return len(self._digests)

    @property
    def complete(self) -> bool:
        """Whether a key that is not here is certainly no account key."""
        return self._index.complete and not self._unreadable and len(self._digests) < self._capacity

    def put(self, key: Key, account: ACMEAccount) -> None:
        """Add the key of the account. Its later keys are those of its aliases, which are accounts in the index too."""
        self._unreadable.discard(key)
        if len(self._digests) < self._capacity:
            self._digests.add(_digest(account.spec.thumbprint))

    def remove(self, key: Key) -> None:
        """Keep the key of a deleted account: it remains an account key."""
        self._unreadable.discard(key)

    def obscure(self, key: Key) -> None:
        """Memory cannot tell any more: the account may have a key that is not known."""
        self._unreadable.add(key)

    async def is_account_key(self, thumbprint: str, read: Callable[[], Awaitable[ACMEAccount | None]]) -> bool:
        """Whether the key of that thumbprint is an account key. Calls `read` if memory cannot tell."""
        if _digest(thumbprint) in self._digests:
            return True
        return not self.complete and await read() is not None


def _digest(thumbprint: str) -> int:
    return int.from_bytes(hashlib.blake2b(thumbprint.encode(), digest_size=8).digest(), "big")
