"""Which account a key belongs to.

The name of an account follows from its profile and key, so etcd lets a key open one account. An account that changes
its key (RFC 8555, 7.3.5) creates an alias under the name of the new key. The alias counts only while its account lists
the key as its own or as a former one. Until then it is a claim, and becomes stale after a minute.
"""

from __future__ import annotations

from acme_server.accounts import slots
from acme_server.accounts.transitions import has_had
from acme_server.jose.jwk import AccountKey
from acme_server.model import Caller
from acme_server.problems import Unavailable
from acme_server.state.account_keys import account_name
from acme_server.state.store import Store
from kms.clock import Clock
from kms.cluster.errors import AlreadyExists, Conflict
from kms.resources.accounts import CLIENT_NAMESPACE, AccountSpec, ACMEAccount
from kms.resources.meta import LocalRef, ObjectMeta

TRIES = 3
"""How many stale claims of a key are removed before the client has to try again."""


def alias_for(caller: Caller, key: AccountKey) -> ACMEAccount:
    """An alias of the caller's account under the name of the key."""
    profile, meta, tenant = caller.profile, caller.account.metadata, caller.account.tenant
    return ACMEAccount(
        metadata=ObjectMeta(
            namespace=meta.namespace,
            name=account_name(*profile.key, key.thumbprint),
            labels={CLIENT_NAMESPACE: tenant} if tenant else {},
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
        """Create the object of a key, and return True with it; or return the account that has the key, and False.

        That account may not be open yet, and may have another key by now. Raises Unavailable, also while another change
        claims the key.
        """
        for _ in range(TRIES):
            try:
                return await self._store.add(wanted), True
            except AlreadyExists:
                existing = await self._store.read_live(wanted.metadata.namespace, wanted.metadata.name)
            if existing is None:
                raise Unavailable("The account is being removed at this moment.")
            account = await self._account_of(existing)
            if account is not None:
                return account, False
            await self.remove_stale(existing)
        raise Unavailable("The key is being claimed by another request.")

    async def _account_of(self, existing: ACMEAccount) -> ACMEAccount | None:
        """The account that the object is, or is an alias of; None for an alias that the account does not confirm."""
        if existing.spec.alias_of is None:
            return existing
        account = await self._store.read_live(existing.metadata.namespace, existing.spec.alias_of.name)
        if account is None:
            return None
        # By name, which follows from the key: accounts that were restored have another UID.
        return account if has_had(account, existing.spec.thumbprint) else None

    async def remove_stale(self, claimed: ACMEAccount) -> None:
        """Remove the claim of a server that died. Raises Unavailable while the claim is not stale."""
        if not slots.is_stale(claimed, now=self._clock()):
            raise Unavailable("The key is being claimed by another request.")
        await self.discard(claimed.metadata)

    async def discard(self, claimed: ObjectMeta) -> bool:
        """Delete a claim, unless it was opened meanwhile; return whether it is gone."""
        try:
            await self._store.remove(claimed)
        except Conflict:
            return False
        return True
