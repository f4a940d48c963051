"""Who asks: the client of the request that this task answers, or on whose behalf it works.

Tasks inherit it from the request that started them, so the result of a validation has the client that asked for it.
What the server does by itself has no actor.
"""

from __future__ import annotations

from contextvars import ContextVar

import msgspec

from kms.resources.meta import Key


class Actor(msgspec.Struct, frozen=True):
    """A client at `address`.

    `account` is set once its signature was verified, `by_key` if it signed with a key of its own. `credential` is the
    EABCredential that the account follows, or whose key the client has proven to have. These are names, not objects:
    thousands of validations and connections may hold an actor for a while.
    """

    address: str | None
    account: Key | None = None
    credential: Key | None = None
    by_key: bool = False


ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)
"""The actor of the current task; None: the server itself."""
