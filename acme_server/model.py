"""Values that several parts of the server share: who asks, for which names, and how a validation ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from acme_server.jose.jwk import AccountKey
from acme_server.profiles import Profile
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ChallengeType, StoredProblem


@dataclass(frozen=True, slots=True)
class Caller:
    """An account and the profile whose directory it uses."""

    profile: Profile
    account: ACMEAccount


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The sender of a request that brings its own key. It may not have an account."""

    profile: Profile
    key: AccountKey


Text = Annotated[str, Meta(max_length=1024)]
"""Text from a client: longer than any identifier or contact can be, short enough to be no burden."""


class RequestedIdentifier(Struct, frozen=True, kw_only=True):
    """An identifier as the client wrote it, of any type."""

    type: Text
    value: Text


class ChallengeId(NamedTuple):
    """A challenge of an order: the position of its identifier, and its type."""

    position: int
    type: ChallengeType


@dataclass(frozen=True, slots=True)
class Valid:
    """Control of the identifier was proven at `at`, and its CAA records were checked at `caa_checked_at`."""

    at: datetime
    caa_checked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Control was not proven. The problem is for people, and repeats nothing that was fetched."""

    problem: StoredProblem


Outcome = Valid | Failed
"""The result of a validation."""
