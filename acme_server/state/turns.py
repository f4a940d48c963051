"""Turns of accounts: a request that makes the API server look through many objects waits for others like it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from acme_server.fair_slots import FairSlots
from kms.resources.accounts import ACMEAccount

AT_ONCE = 4


class Turns:
    """Runs one request of an account at a time, and `at_once` of all accounts.

    Namespaces take turns, within one its tenants, then their accounts: any number of accounts of one tenant delays
    another's request by one turn.
    """

    def __init__(self, *, at_once: int = AT_ONCE) -> None:
        self._slots = FairSlots((at_once, at_once, at_once, 1))

    @asynccontextmanager
    async def take(self, account: ACMEAccount) -> AsyncIterator[None]:
        """Wait until it is the turn of the account."""
        async with self._slots.hold((account.metadata.namespace, account.tenant, account.metadata.name)):
            yield
