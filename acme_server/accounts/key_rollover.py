"""Key change (RFC 8555, 7.3.5): the account stays what and where it is, and another key speaks for it.

First the new key is claimed by an alias (see registry.py), then one guarded write of the account confirms it. Whoever
dies in between leaves an alias that nobody relies on, and that gives way after a minute; so a claim is not confirmed
when it is older than half of that. Of two changes of one account at once, the second finds another key than its oldKey.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from acme_server.accounts import key_claims, slots
from acme_server.accounts import transitions as rules
from acme_server.accounts.key_claims import TRIES, KeyClaims
from acme_server.accounts.transitions import Key
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.profiles import Profile
from acme_server.state.certificates import Certificates
from acme_server.state.quotas import ObjectQuota
from acme_server.state.store import Store
from kms.clock import Clock
from kms.pki.keys import fingerprint
from kms.resources.accounts import ACMEAccount

logger = logging.getLogger(__name__)

CONFIRMATION = timedelta(seconds=30)
"""How long a claim may wait for its confirmation: half of claims.STALE, so that clocks may differ by as much."""


class KeyInUse(Refused):
    """The key is, or was, the key of `account`."""

    def __init__(self, account: ACMEAccount) -> None:
        super().__init__(ProblemType.MALFORMED, "The new key is, or was, the key of an account; make a new one.")
        self.account = account


def require_uncompromised(key: Key, certificates: Certificates) -> None:
    """Raise Refused (badPublicKey) for a key that a certificate was revoked for, as compromised."""
    if certificates.is_compromised(fingerprint(key.public_key)):
        raise Refused(
            ProblemType.BAD_PUBLIC_KEY,
            "A certificate with this key was revoked because the key was compromised; make a new key.",
        )


class KeyRollovers:
    """Gives accounts other keys."""

    def __init__(
        self,
        *,
        store: Store[ACMEAccount],
        claimed: KeyClaims,
        certificates: Certificates,
        population: ObjectQuota[ACMEAccount],
        clock: Clock,
    ) -> None:
        self._store = store
        self._registry = claimed
        self._certificates = certificates
        self._population = population
        self._clock = clock

    async def change(self, profile: Profile, account: ACMEAccount, key: Key, *, old: str) -> ACMEAccount:
        """The account with the key in the place of the one with the thumbprint `old`.

        Both keys have signed for this. Raises KeyInUse, Refused for a compromised key, another oldKey, an account that
        is not valid and too many objects; and Unavailable, after which the change may have happened.
        """
        require_uncompromised(key, self._certificates)
        begun = self._clock()
        rules.with_key(account, key, old=old, now=begun)  # what is refused anyhow claims nothing
        self._population.admit(profile, limit=None, field="")
        claim = await self._claimed(profile, account, key)

        def transition(current: ACMEAccount) -> ACMEAccount:
            now = self._clock()
            if claim is not None and now - begun > CONFIRMATION:
                raise Unavailable("The key could not be changed in time.")
            return rules.with_key(current, key, old=old, now=now)

        try:
            changed = await self._store.change(account, transition)
        except Refused:
            if claim is not None:
                await self._registry.discard(claim)
            raise
        logger.info("account key changed", extra={"account": changed.metadata.name, "profile": "/".join(profile.key)})
        return changed

    async def _claimed(self, profile: Profile, account: ACMEAccount, key: Key) -> ACMEAccount | None:
        """The alias that was made for the key; None where it is one that the account had before."""
        for _ in range(TRIES):
            holder, created = await self._registry.claim(key_claims.alias(profile, account, key))
            if created:
                return holder
            if holder.metadata.uid == account.metadata.uid and holder.thumbprint != key.thumbprint:
                return None
            if slots.is_open(holder):
                raise KeyInUse(holder)
            await self._registry.give_way(holder)  # somebody had begun to register it
        raise Unavailable("The key is being claimed by another request.")
