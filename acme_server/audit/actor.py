"""Who asks: the client of the request that this task answers, or on whose behalf it works.

Tasks inherit it from the request that started them, so the result of a validation has the client that asked for it.
What the server does by itself has no actor.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key


@dataclass(frozen=True, slots=True)
class Actor:
    """A client at `address`.

    `account` is set once its signature was verified, `by_key` if it signed with a key of its own, and `credential` is
    the EABCredential whose key it has proven to have.
    """

    address: str | None
    account: ACMEAccount | None = None
    by_key: bool = False
    credential: Key | None = None


ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)
"""The actor of the current task; None: the server itself."""
