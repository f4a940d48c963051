"""Accounts (RFC 8555, 7.3): opened once for each key of a profile, updated and deactivated by their owner."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import datetime
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from acme_server.credentials import Binding, Credentials
from acme_server.known_keys import account_name
from acme_server.population import Population
from acme_server.problems import ProblemType, Refused, Unavailable, not_found
from acme_server.profiles import Profile
from acme_server.rules import claims, contacts
from acme_server.store import Store, Vanished
from acme_server.wire import AccountUpdate, NewAccount
from kms.clock import Clock
from kms.cluster.errors import AlreadyExists, Conflict
from kms.resources.accounts import AccountSpec, AccountStatus, ACMEAccount, CredentialBinding
from kms.resources.credentials import EABCredential
from kms.resources.kinds import PROFILES
from kms.resources.meta import LocalRef, ObjectMeta, OwnerReference, key_of
from kms.resources.secrets import CREDENTIAL_UID

logger = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z2-7]{52}")
_TRIES = 3


class Key(Protocol):
    """What an account keeps of its key."""

    @property
    def jwk(self) -> str:
        """The public JWK as canonical JSON."""
        ...

    @property
    def thumbprint(self) -> str:
        """Its RFC 7638 thumbprint."""
        ...


def owner(profile: Profile) -> OwnerReference:
    """Makes what belongs to a profile go when the profile goes."""
    return OwnerReference(
        api_version=PROFILES.api_version, kind=PROFILES.kind, name=profile.name, uid=profile.resource.metadata.uid
    )


class Accounts:
    """What holders of keys may do with their accounts."""

    def __init__(
        self, *, store: Store[ACMEAccount], credentials: Credentials, population: Population, clock: Clock
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._population = population
        self._clock = clock

    async def find(self, profile: Profile, thumbprint: str) -> ACMEAccount | None:
        """The account of that key on the profile, in whatever state (M76); None where there is none.

        The answer None comes from the API server itself (SEC56). Raises Unavailable.
        """
        return await self._opened(profile, account_name(*profile.key, thumbprint))

    async def by_id(self, profile: Profile, account_id: str) -> ACMEAccount | None:
        """The account with that id, if it is one of this profile (SEC04). Costs at most one read by name (SEC37)."""
        return await self._opened(profile, account_id) if _NAME.fullmatch(account_id) else None

    async def _opened(self, profile: Profile, name: str) -> ACMEAccount | None:
        account = await self._store.get(profile.namespace, name)
        if account is not None and not claims.is_open(account):
            account = await self._store.fresh(profile.namespace, name)
        if account is None or not claims.is_open(account) or account.spec.profile_ref.name != profile.name:
            return None
        return account

    async def register(
        self, profile: Profile, key: Key, wanted: NewAccount, binding: Binding | None
    ) -> tuple[ACMEAccount, bool]:
        """Open an account for the key, or find the one it has; says whether it was opened now (M75, M82).

        `binding` has been verified. Raises Refused for terms not agreed to (M81), contacts (M80), a missing binding
        (M88), a credential that opens no more accounts (SEC12, SEC12b), too many accounts; and Unavailable.
        """
        if profile.acme.external_account_binding == "Disabled":
            binding = None
        _check_terms(profile, wanted)
        contact = contacts.validated(wanted.contact)
        if binding is None and profile.acme.external_account_binding == "Required":
            raise Refused(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED,
                f"Profile {profile.namespace}/{profile.name} asks for an external account binding: "
                "the key identifier and secret of an EABCredential.",
            )
        credential = await self._credentials.confirmed(profile, binding) if binding is not None else None
        limit = profile.acme.maximum_accounts
        self._population.admit(profile, limit=limit, field="spec.enrollment.acme.maximumAccounts")
        status = AccountStatus(state="valid", contact=contact, terms_of_service_agreed=profile.acme.terms_of_service)
        wanted_account = _account(profile, key, binding, credential)
        for _ in range(_TRIES):
            claimed, created = await self._claimed(wanted_account)
            if claims.is_open(claimed):
                return _usable(claimed), False
            if not _same_binding(claimed, wanted_account):
                await self._give_way(claimed)
                continue
            if not await self._within_limit(claimed, credential):
                await self._discard(claimed)
                raise Refused(
                    ProblemType.UNAUTHORIZED,
                    "The external account binding's key has opened as many accounts as it may "
                    f"({credential.spec.maximum_accounts if credential else 0}).",
                )
            try:
                opened = await self._store.change(claimed, partial(open_, status=status))
            except Vanished:
                continue  # another server has taken it for one that was left behind
            logger.info(
                "account opened",
                extra={
                    "account": opened.metadata.name,
                    "profile": "/".join(profile.key),
                    "kid": binding and binding.key_id,
                },
            )
            return opened, created
        raise Unavailable("The account is being opened by another request.")

    async def _claimed(self, wanted: ACMEAccount) -> tuple[ACMEAccount, bool]:
        """The object of the account, and whether it was created now."""
        try:
            return await self._store.add(wanted), True
        except AlreadyExists:
            existing = await self._store.fresh(wanted.metadata.namespace, wanted.metadata.name)
        if existing is None:
            raise Unavailable("The account is being removed at this moment.")
        return existing, False

    async def _within_limit(self, account: ACMEAccount, credential: EABCredential | None) -> bool:
        """Whether the account's place is one of those that its credential has (SEC12)."""
        if credential is None or credential.spec.maximum_accounts is None:
            return True
        labels = f"{CREDENTIAL_UID}={credential.metadata.uid}"
        now = self._clock()
        others = [
            each
            for each in await self._store.list(account.metadata.namespace, labels=labels)
            if each.metadata.uid != account.metadata.uid
        ]
        stale = [each for each in others if claims.is_stale(each, now=now)]
        removed = await asyncio.gather(*(self._discard(each) for each in stale))
        gone = {each.metadata.uid for each, done in zip(stale, removed, strict=True) if done}
        return claims.standing(account, (each for each in others if each.metadata.uid not in gone)) < (
            credential.spec.maximum_accounts
        )

    async def _give_way(self, claimed: ACMEAccount) -> None:
        """Remove an account that a dead server has begun to open with another credential, if that is what it is."""
        if not claims.is_stale(claimed, now=self._clock()):
            raise Unavailable("The account is being opened by another request.")
        await self._discard(claimed)

    async def _discard(self, account: ACMEAccount) -> bool:
        """Delete an account that was never opened; says whether it is gone. One that was opened meanwhile stays."""
        try:
            await self._store.remove(account)
        except Conflict:
            return False
        return True

    async def current(self, account: ACMEAccount) -> ACMEAccount:
        """The account as it is now: another replica may have changed it a moment ago.

        Raises Refused with status 401 where it is not valid any more, and Unavailable.
        """
        found = await self._store.fresh(*key_of(account))
        if found is None or found.metadata.uid != account.metadata.uid:
            raise not_found()
        return _usable(found)

    async def update(self, account: ACMEAccount, update: AccountUpdate) -> ACMEAccount:
        """Change the contacts (M84), or deactivate the account (M102). Everything else is ignored (M85).

        Raises Refused for contacts (M80) and with status 401 where the account is not valid any more; and Unavailable.
        """
        if update.status == "deactivated":
            changed = await self._store.change(account, partial(deactivated, now=self._clock()))
            logger.info("account deactivated", extra={"account": account.metadata.name})
            return changed
        if update.contact is None:
            return await self.current(account)
        return await self._store.change(account, partial(with_contact, contact=contacts.validated(update.contact)))


def _check_terms(profile: Profile, wanted: NewAccount) -> None:
    terms = profile.acme.terms_of_service
    if terms is not None and not wanted.terms_of_service_agreed:
        raise Refused(
            ProblemType.USER_ACTION_REQUIRED,
            f"The terms of service must be agreed to: {terms}",
            headers={"Link": f'<{terms}>;rel="terms-of-service"'},
            members={"instance": terms},
        )


def _account(profile: Profile, key: Key, binding: Binding | None, credential: EABCredential | None) -> ACMEAccount:
    external = None
    if binding is not None and credential is not None:
        external = CredentialBinding(
            name=credential.metadata.name,
            namespace=credential.metadata.namespace,
            uid=credential.metadata.uid,
            key_id=binding.key_id,
            names=credential.spec.names,
            profiles=credential.spec.profiles,
        )
    return ACMEAccount(
        metadata=ObjectMeta(
            namespace=profile.namespace,
            name=account_name(*profile.key, key.thumbprint),
            labels={CREDENTIAL_UID: external.uid} if external is not None else {},
            owner_references=(owner(profile),),
        ),
        spec=AccountSpec(
            profile_ref=LocalRef(name=profile.name), key=key.jwk, thumbprint=key.thumbprint, external_account=external
        ),
    )


def _same_binding(one: ACMEAccount, other: ACMEAccount) -> bool:
    mine, its = one.spec.external_account, other.spec.external_account
    return (mine and (mine.uid, mine.key_id)) == (its and (its.uid, its.key_id))


def deactivated_account() -> Refused:
    """The answer to everything that a deactivated or revoked account asks for (M103, SEC07)."""
    return Refused(ProblemType.UNAUTHORIZED, "The account is deactivated.", status=401)


def _usable(account: ACMEAccount) -> ACMEAccount:
    if account.status.state != "valid":
        raise deactivated_account()
    return account


def open_(account: ACMEAccount, *, status: AccountStatus) -> ACMEAccount:
    """Not open yet to valid; an account that is open stays as it is."""
    return account if claims.is_open(account) else replace(account, status=status)


def with_contact(account: ACMEAccount, *, contact: tuple[str, ...]) -> ACMEAccount:
    """Other contacts. Raises Refused (401) unless the account is valid."""
    return replace(account, status=replace(_usable(account).status, contact=contact))


def deactivated(account: ACMEAccount, *, now: datetime) -> ACMEAccount:
    """Valid to deactivated; final states absorb (M70). Raises Refused (404) where the account is not open."""
    if account.status.state is None:
        raise not_found()
    if account.status.state != "valid":
        return account
    return replace(account, status=replace(account.status, state="deactivated", deactivated_at=now))
