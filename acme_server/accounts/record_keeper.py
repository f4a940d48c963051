"""Keeps in every account what its EABCredential said last, so that this outlives the credential.

One replica writes, soon after a credential was changed or deleted. Nothing is granted because of a record that is not
written yet: while the credential exists it counts itself, and once it is gone its accounts may not act by default.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

from acme_server.accounts.credential_records import is_credential_of, last_record, with_record
from acme_server.problems import Refused, Unavailable
from acme_server.state.index import Index, View
from acme_server.state.store import Store, answering_unavailable
from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.resources.accounts import LIVE_STATES, ACMEAccount, CredentialRecord
from kms.resources.credentials import EABCredential
from kms.resources.kinds import CREDENTIALS
from kms.resources.meta import Key, key_of

logger = logging.getLogger(__name__)


class RecordKeeper(View[ACMEAccount]):
    """Knows which accounts follow which credential, and which of their records are due to be written.

    `rate` is the records that are written a second; credentials take turns, so one with many accounts does not keep the
    others waiting. `pause` is the seconds before another try after a failure.
    """

    def __init__(
        self,
        index: Index[ACMEAccount],
        *,
        cluster: Cluster,
        accounts: Store[ACMEAccount],
        credentials: Informer[EABCredential],
        clock: Clock,
        rate: float = 50.0,
        pause: float = 5.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(index)
        self._cluster = cluster
        self._accounts = accounts
        self._credentials = credentials
        self._clock = clock
        self._rate = rate
        self._pause = pause
        self._sleep = sleep
        self._digests: dict[Key, dict[Key, int]] = {}
        self._credential_of: dict[Key, Key] = {}
        self._noticed: dict[Key, int] = {}
        self._missed: dict[Key, tuple[EABCredential, ...]] = {}
        """By account: what credentials said that are gone, and its record does not say yet."""
        self._due: OrderedDict[Key, dict[Key, None]] = OrderedDict()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._credential_of)

    @property
    def due(self) -> int:
        """The records that may have to be written."""
        return sum(len(each) for each in self._due.values())

    def put(self, key: Key, account: ACMEAccount) -> None:
        """Take in the account. If its record is not what its credential says, it is due."""
        name, record = account.credential, last_record(account)
        if name is None or record is None or account.status.state not in LIVE_STATES:
            self.remove(key)
            return
        self._credential_of[key] = name
        digest = self._digests.setdefault(name, {})[key] = _digest(record)
        due = digest != _digest_of(self._credentials.get(*name)) or key in self._missed
        self._set_due(name, key, due=due)

    def remove(self, key: Key) -> None:
        """Forget the account."""
        name = self._credential_of.pop(key, None)
        if name is None:
            return
        self._set_due(name, key, due=False)
        self._missed.pop(key, None)
        del self._digests[name][key]
        if not self._digests[name]:
            del self._digests[name]

    def obscure(self, key: Key) -> None:
        """Forget the account: what cannot be read cannot be written either."""
        self.remove(key)

    def notice(self, credential: EABCredential, deleted: bool) -> None:  # noqa: FBT001 - the signature of informers
        """The credential is new, has changed or was deleted: the records of its accounts are due."""
        name = key_of(credential)
        wanted = _digest_of(None if deleted else credential)
        if deleted:
            self._noticed.pop(name, None)
        elif self._noticed.get(name) == wanted:
            return  # its status has changed: the operator counts its accounts there
        else:
            self._noticed[name] = wanted
        gone, said = deleted or credential.metadata.deletion_timestamp is not None, _digest_of_words(credential)
        waiting = self._due.get(name, {})
        for key, digest in self._digests.get(name, {}).items():
            if gone and digest != said and (digest != wanted or key in waiting):
                self._missed[key] = _with_last_words(self._missed.get(key, ()), credential)
            self._set_due(name, key, due=digest != wanted or key in self._missed)

    def _set_due(self, name: Key, key: Key, *, due: bool) -> None:
        if due:
            self._due.setdefault(name, {})[key] = None
            self._changed.set()
        elif (waiting := self._due.get(name)) is not None:
            waiting.pop(key, None)
            if not waiting:
                del self._due[name]

    async def run(self) -> None:
        """Write what is due; never returns."""
        await self._credentials.synced.wait()
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._due:
                await self._write_next()

    async def _write_next(self) -> None:
        name = next(iter(self._due))
        self._due.move_to_end(name)
        key = next(iter(self._due[name]))
        try:
            written = await self._write(name, key)
        except Unavailable as error:
            logger.warning("record of a credential not written", extra={"account": key[1], "error": str(error)})
            await self._sleep(self._pause)
            return
        self._set_due(name, key, due=False)
        if written:
            await self._sleep(1 / self._rate)

    async def _write(self, name: Key, key: Key) -> bool:
        """Write the record of the account; returns whether that was necessary. Raises Unavailable."""
        if self._credentials.outage_seconds():
            raise Unavailable("The server does not see changes of EAB credentials at the moment.")
        account = await self._accounts.get(*key)
        if account is None:
            return False
        credential = self._credentials.get(*name)
        if credential is None and not await self._is_gone(name):
            return False
        if credential is not None and not is_credential_of(account, credential):
            credential = None
        try:
            missed = self._missed.get(key, ())
            said = (*missed, credential)
            written = await self._accounts.change(account, partial(_with_records, said=said, now=self._clock()))
        except Refused:  # the account is gone
            return False
        if self._missed.get(key) is missed:  # else another one went meanwhile
            del self._missed[key]
        if written.status.credential == account.status.credential:
            return False
        logger.info(
            "credential of account changed",
            extra={
                "account": key[1],
                "credential": "/".join(name),
                "state": written.status.credential and written.status.credential.state,
            },
        )
        return True

    async def _is_gone(self, name: Key) -> bool:
        """Whether the credential certainly does not exist; one that cannot be read does. Raises Unavailable."""
        with answering_unavailable():
            try:
                await self._cluster.get(CREDENTIALS, *name)
            except errors.NotFound:
                return True
            except errors.Undecodable:
                return False
        return False


def _digest(record: CredentialRecord) -> int:
    """A digest of what a record says, however long its rules are: accounts are many."""
    if record.state == "Deleted":
        return 0
    said = record.uid, record.suspended, record.names, record.profiles
    return hash((*said, record.client_namespace, record.shared))


def _digest_of(credential: EABCredential | None) -> int:
    """The digest of the record that the accounts of the credential should have; None: it is gone."""
    if credential is None or credential.metadata.deletion_timestamp is not None:
        return 0
    return _digest_of_words(credential)


def _digest_of_words(credential: EABCredential) -> int:
    """The digest of what the credential says, be it gone."""
    spec = credential.spec
    said = credential.metadata.uid, spec.suspended, spec.names, spec.profiles
    return hash((*said, spec.client_namespace, spec.shared))


def _with_last_words(earlier: tuple[EABCredential, ...], gone: EABCredential) -> tuple[EABCredential, ...]:
    """What counts of credentials that are gone: the last one, and before it the last suspension by another one."""
    others = [each for each in earlier if each.metadata.uid != gone.metadata.uid and each.spec.suspended]
    return (*others[-1:], gone)


def _with_records(account: ACMEAccount, said: Sequence[EABCredential | None], *, now: datetime) -> ACMEAccount:
    """The account with the record of these credentials of one name, one after the other; None: it is gone."""
    profile = account.metadata.namespace, account.spec.profile_ref.name
    for each in said:
        if each is None or each.profile_key == profile:
            account = with_record(account, each, now=now)
    return account
