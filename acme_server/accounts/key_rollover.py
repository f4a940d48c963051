"""Key change (RFC 8555, 7.3.5): the account keeps its URL and gets another key.

First an alias claims the new key (see key_claims.py), then one guarded write of the account confirms the claim. A
server that dies in between leaves a claim that becomes stale after a minute; so a claim that is older than half a
minute is not confirmed. Of two changes of one account at once, the second fails: its oldKey is not the key any
more.
"""

from __future__ import annotations

from datetime import timedelta

from acme_server.accounts import key_claims, slots
from acme_server.accounts import transitions as rules
from acme_server.accounts.key_claims import TRIES, KeyClaims
from acme_server.audit.log import decisions
from acme_server.jose.jwk import AccountKey
from acme_server.model import Caller
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.state.certificates import Certificates
from acme_server.state.quotas import ObjectQuota, ProfileLimits
from acme_server.state.revocation_records import RevocationRecords
from acme_server.state.store import Store
from acme_server.state.weight import weigh_account
from kms.clock import Clock
from kms.pki.keys import fingerprint
from kms.resources.accounts import ACMEAccount

CONFIRMATION = timedelta(seconds=30)
"""How long a claim may wait for its confirmation: half of slots.STALE, so that clocks may differ by as much."""


class KeyInUse(Refused):
    """The key is, or was, the key of `account`."""

    def __init__(self, account: ACMEAccount) -> None:
        super().__init__(ProblemType.MALFORMED, "The new key is, or was, the key of an account; make a new one.")
        self.account = account


def require_uncompromised(key: AccountKey, certificates: Certificates) -> None:
    """Raise Refused (badPublicKey) for the key of a certificate that was revoked because of keyCompromise."""
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
        claims: KeyClaims,
        certificates: Certificates,
        records: RevocationRecords,
        quota: ObjectQuota[ACMEAccount],
        clock: Clock,
    ) -> None:
        self._store = store
        self._claims = claims
        self._certificates = certificates
        self._records = records
        self._quota = quota
        self._clock = clock

    async def change(self, caller: Caller, key: AccountKey, *, old: str) -> ACMEAccount:
        """The account with the key in the place of the one with the thumbprint `old`.

        Both keys have signed for this. Raises KeyInUse, Refused for a compromised key, another oldKey, an account that
        is not valid and too many objects; and Unavailable, after which the change may have happened.
        """
        require_uncompromised(key, self._certificates)
        profile, account = caller.profile, caller.account
        if self._records.is_blocked(profile.key, key.thumbprint):
            raise Refused(ProblemType.MALFORMED, "The new key was that of an account that is closed; make a new one.")
        begun = self._clock()
        rules.with_key(account, key, old=old, now=begun)  # refuse before claiming the key
        alias = key_claims.alias_for(caller, key)
        with self._quota.hold(profile, "", weigh_account(alias), ProfileLimits(), tenant=alias.tenant):
            claim = await self._claim(caller, alias)

        def transition(current: ACMEAccount) -> ACMEAccount:
            now = self._clock()
            if claim is not None and now - begun > CONFIRMATION:
                raise Unavailable("The key could not be changed in time.")
            return rules.with_key(current, key, old=old, now=now)

        try:
            changed = await self._store.change(account, transition)
        except Refused:
            if claim is not None:
                await self._claims.discard(claim.metadata)
            raise
        decisions.info(
            "account key changed", extra={"account": changed.metadata.name, "profile": "/".join(profile.key)}
        )
        return changed

    async def _claim(self, caller: Caller, alias: ACMEAccount) -> ACMEAccount | None:
        """Create the alias for a key; None if the account has one already, because it had the key before."""
        for _ in range(TRIES):
            holder, created = await self._claims.claim(alias)
            if created:
                return holder
            if holder.metadata.uid == caller.account.metadata.uid and holder.thumbprint != alias.spec.thumbprint:
                return None
            if slots.is_open(holder):
                raise KeyInUse(holder)
            await self._claims.remove_stale(holder)  # a server died while it opened an account with the key
        raise Unavailable("The key is being claimed by another request.")
