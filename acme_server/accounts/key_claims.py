"""Which account a key belongs to. etcd decides: the name of an object follows from profile and key, so a key has one.

The object is the account that was opened with the key, or an alias: what an account that changes its key puts under
the name of the new one (RFC 8555, 7.3.5). An alias by itself means nothing. It counts while the account that it names
says that the key is its own or was; until then it is a claim, which holds for a minute and is nobody's afterwards.
"""

from __future__ import annotations

from acme_server.accounts import slots
from acme_server.accounts.transitions import Key, has_had
from acme_server.problems import Unavailable
from acme_server.profiles import Profile
from acme_server.state.account_keys import account_name
from acme_server.state.store import Store
from kms.clock import Clock
from kms.cluster.errors import AlreadyExists, Conflict
from kms.resources.accounts import AccountSpec, ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import LocalRef, ObjectMeta, OwnerReference

TRIES = 3
"""How often what others have left behind under a name is removed until the client is asked to come again."""


def alias(profile: Profile, account: ACMEAccount, key: Key) -> ACMEAccount:
    """What keeps the key for the account, and goes with it."""
    meta = account.metadata
    return ACMEAccount(
        metadata=ObjectMeta(
            namespace=meta.namespace,
            name=account_name(*profile.key, key.thumbprint),
            owner_references=(
                OwnerReference(api_version=ACCOUNTS.api_version, kind=ACCOUNTS.kind, name=meta.name, uid=meta.uid),
            ),
        ),
        spec=AccountSpec(
            profile_ref=LocalRef(name=profile.name),
            key=key.jwk,
            thumbprint=key.thumbprint,
            alias_of=LocalRef(name=meta.name),
        ),
    )


class KeyClaims:
    """Finds and claims the objects of keys."""

    def __init__(self, *, store: Store[ACMEAccount], clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def claim(self, wanted: ACMEAccount) -> tuple[ACMEAccount, bool]:
        """Create the object of a key. Where there is one: the account that it belongs to now, and False.

        That account may not be open yet, and its key may be another one by now. Raises Unavailable, also while the key
        is claimed by a change that is not confirmed.
        """
        for _ in range(TRIES):
            try:
                return await self._store.add(wanted), True
            except AlreadyExists:
                existing = await self._store.fresh(wanted.metadata.namespace, wanted.metadata.name)
            if existing is None:
                raise Unavailable("The account is being removed at this moment.")
            account = await self._behind(existing)
            if account is not None:
                return account, False
            await self.give_way(existing)
        raise Unavailable("The key is being claimed by another request.")

    async def _behind(self, existing: ACMEAccount) -> ACMEAccount | None:
        """The account that the object is or stands for; None for an alias that its account does not confirm."""
        if existing.spec.alias_of is None:
            return existing
        account = await self._store.fresh(existing.metadata.namespace, existing.spec.alias_of.name)
        if account is None or account.metadata.uid not in {each.uid for each in existing.metadata.owner_references}:
            return None
        return account if has_had(account, existing.spec.thumbprint) else None

    async def give_way(self, claimed: ACMEAccount) -> None:
        """Remove what a dead server has begun to make of a key, if that is what it is. Raises Unavailable if not."""
        if not slots.is_stale(claimed, now=self._clock()):
            raise Unavailable("The key is being claimed by another request.")
        await self.discard(claimed)

    async def discard(self, claimed: ACMEAccount) -> bool:
        """Delete an object that was never opened; says whether it is gone. One that was opened meanwhile stays."""
        try:
            await self._store.remove(claimed.metadata)
        except Conflict:
            return False
        return True
