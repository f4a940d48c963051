"""Accounts (RFC 8555, 7.3): a key opens one account of a profile, and its owner updates and deactivates it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from functools import partial

from acme_server.accounts import contacts, slots, terms
from acme_server.accounts import transitions as rules
from acme_server.accounts.eab_credentials import Binding, EABCredentials
from acme_server.accounts.key_claims import TRIES, KeyClaims
from acme_server.accounts.key_rollover import KeyRollovers, require_uncompromised
from acme_server.audit.log import decisions
from acme_server.jose.jwk import AccountKey
from acme_server.model import Caller, KeyHolder, Profile
from acme_server.payloads import AccountUpdate, NewAccount
from acme_server.problems import AccountNotValid, NotFound, ProblemType, Refused, Unavailable
from acme_server.state.account_keys import account_name
from acme_server.state.certificates import Certificates
from acme_server.state.quotas import ObjectQuota, ProfileLimits
from acme_server.state.revocation_recorder import RevocationRecorder
from acme_server.state.revocation_records import RevocationRecords
from acme_server.state.store import Store, Vanished
from acme_server.state.weight import weigh_account
from kms.clock import Clock
from kms.resources.accounts import AccountSpec, AccountStatus, ACMEAccount, CredentialBinding
from kms.resources.credentials import EABCredential
from kms.resources.meta import LocalRef, ObjectMeta, key_of
from kms.resources.secret_names import CREDENTIAL_UID

_NAME = re.compile(r"[a-z2-7]{52}")
_PAGE = 500
"""Accounts of a page of metadata: about 800 kB."""


class Accounts:
    """The operations on accounts. `on_deactivated` is called for each account that is deactivated here."""

    def __init__(
        self,
        *,
        store: Store[ACMEAccount],
        credentials: EABCredentials,
        certificates: Certificates,
        records: RevocationRecords,
        recorder: RevocationRecorder,
        quota: ObjectQuota[ACMEAccount],
        clock: Clock,
        on_deactivated: Callable[[ACMEAccount], None],
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._certificates = certificates
        self._records = records
        self._recorder = recorder
        self._quota = quota
        self._clock = clock
        self._on_deactivated = on_deactivated
        self._claims = KeyClaims(store=store, clock=clock)
        self._key_rollovers = KeyRollovers(
            store=store, claims=self._claims, certificates=certificates, records=records, quota=quota, clock=clock
        )

    async def find(self, profile: Profile, thumbprint: str) -> ACMEAccount | None:
        """The account that has that key on the profile, in any state; None if there is none.

        A former key has no account. None is always based on a live read; so is every answer while another replica may
        have changed the key or deactivated the account. Raises Unavailable.
        """
        name = account_name(*profile.key, thumbprint)
        for read in (self._store.current, self._store.read_live):
            found = await read(profile.namespace, name)
            if found is None:  # `current` has asked the API server too
                return None
            if found.spec.alias_of is not None:
                found = await read(profile.namespace, found.spec.alias_of.name)
            if found is not None and slots.is_open(found) and found.thumbprint == thumbprint:
                return found
        return None

    async def by_id(self, profile: Profile, account_id: str) -> ACMEAccount | None:
        """The account with that id, if it is one of this profile. Costs at most one read by name."""
        if not _NAME.fullmatch(account_id):
            return None
        account = await self._store.get(profile.namespace, account_id)
        if account is not None and not slots.is_open(account):
            account = await self._store.read_live(profile.namespace, account_id)
            if account is not None and not slots.is_open(account):
                return None
        return account if account is not None and account.spec.profile_ref.name == profile.name else None

    async def reload_changed_key(self, account: ACMEAccount) -> ACMEAccount | None:
        """The account, if another replica has changed its key; None if the key is the same.

        Raises Unavailable.
        """
        current = await self._store.current(*key_of(account))
        if current is None or current.metadata.uid != account.metadata.uid:
            return None
        return current if current.thumbprint != account.thumbprint else None

    async def register(
        self, holder: KeyHolder, wanted: NewAccount, binding: Binding | None
    ) -> tuple[ACMEAccount, bool]:
        """Open an account for the key, or find the one it has; returns also whether it was opened now.

        `binding` has been verified. Raises Refused for a key that is compromised or was replaced, terms not
        agreed to, contacts, a missing binding, a credential that opens no more accounts,
        too many accounts; and Unavailable.
        """
        profile, key = holder.profile, holder.key
        require_uncompromised(key, self._certificates)
        if self._records.is_blocked(profile.key, key.thumbprint):
            raise AccountNotValid("The account of this key is deactivated; make a new key for a new account.")
        if profile.acme.external_account_binding == "Disabled":
            binding = None
        terms.require_agreement(profile.acme, agreed=wanted.terms_of_service_agreed)
        contact = contacts.parse(wanted.contact)
        if binding is None and profile.acme.external_account_binding == "Required":
            raise Refused(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED,
                f"Profile {profile.namespace}/{profile.name} asks for an external account binding: "
                "the key identifier and secret of an EABCredential.",
            )
        credential = await self._credentials.confirm(profile, binding) if binding is not None else None
        limits = ProfileLimits(
            objects=profile.acme.maximum_accounts, objects_field="spec.enrollment.acme.maximumAccounts"
        )
        status = AccountStatus(
            state="valid",
            contact=contact,
            contact_text=contacts.text(contact),
            terms_of_service_agreed=profile.acme.terms_of_service,
        )
        wanted_account = _account(holder, binding, credential)
        for _ in range(TRIES):
            octets, tenant = weigh_account(wanted_account), wanted_account.tenant
            with self._quota.hold(profile, "", octets, limits, tenant=tenant):
                claimed, created = await self._claims.claim(wanted_account)
            if slots.is_open(claimed):
                return _require_key(claimed, key), False
            if claimed.spec != wanted_account.spec:
                # Another binding was presented before; or the object was made by hand, for the key of somebody else.
                await self._claims.remove_stale(claimed)
                continue
            if not await self._within_limit(claimed, credential):
                await self._claims.discard(claimed.metadata)
                raise Refused(
                    ProblemType.UNAUTHORIZED,
                    "The external account binding's key has opened as many accounts as it may "
                    f"({credential.spec.maximum_accounts if credential else 0}).",
                )
            try:
                opened = await self._store.change(claimed, partial(rules.opened, status=status))
            except Vanished:
                continue  # another server removed it as stale
            decisions.info(
                "account opened",
                extra={
                    "account": opened.metadata.name,
                    "profile": "/".join(profile.key),
                    "kid": binding and binding.key_id,
                },
            )
            return opened, created
        raise Unavailable("The account is being opened by another request.")

    async def _within_limit(self, account: ACMEAccount, credential: EABCredential | None) -> bool:
        """Whether the account is among the first `maximumAccounts` of its credential.

        A credential that was made again has the accounts of the earlier one.
        """
        if credential is None or credential.spec.maximum_accounts is None:
            return True
        metadata, maximum = credential.metadata, credential.spec.maximum_accounts
        selected = (
            f"spec.profileRef.name={account.spec.profile_ref.name}"
            f",spec.externalAccount.namespace={metadata.namespace},spec.externalAccount.name={metadata.name}"
        )
        # Metadata: an account may hold 70 kB of names, which the owner of the credential has chosen.
        claims = await self._find_metadata(account.metadata.namespace, f"{selected},status.state=")
        now = self._clock()
        stale = [each for each in claims if each.uid != account.metadata.uid and slots.is_overdue(each, now=now)]
        removed = await asyncio.gather(*(self._claims.discard(each) for each in stale))
        gone = {each.uid for each, done in zip(stale, removed, strict=True) if done}
        # An account that cannot be read takes its slot, too.
        opened = await self._find_metadata(account.metadata.namespace, f"{selected},status.state!=", most=maximum)
        claims = [each for each in claims if each.uid not in gone]
        return slots.count_before(account.metadata, claims=claims, opened=opened) < maximum

    async def _find_metadata(self, namespace: str, fields: str, *, most: int = sys.maxsize) -> list[ObjectMeta]:
        """The metadata of accounts, in pages, until there are `most`. Raises Unavailable."""
        found: list[ObjectMeta] = []
        token = ""
        while True:
            try:
                page, token = await self._store.metadata_page(namespace, fields=fields, limit=_PAGE, token=token)
            except NotFound as error:
                raise Unavailable("The Kubernetes API took too long to list.") from error
            found += page
            if not token or len(found) >= most:
                return found

    async def read(self, account: ACMEAccount) -> ACMEAccount:
        """The account, read live: another replica may have changed it a moment ago.

        Raises AccountNotValid, and Unavailable.
        """
        found = await self._store.read_live(*key_of(account))
        if found is None or found.metadata.uid != account.metadata.uid:
            raise NotFound
        return rules.require_live(found)

    async def admit(self, caller: Caller) -> Caller:
        """The caller, if the account may act: neither it nor its credential is suspended or gone.

        A refusal is based on live reads: what was stopped may have been resumed a moment ago. Raises Refused
        (unauthorized), AccountNotValid and Unavailable.
        """
        account = caller.account
        if account.status.state != "valid":
            account = rules.require_valid(await self.read(account))
            if account.thumbprint != caller.account.thumbprint:
                raise AccountNotValid("The account has changed its key.")
        await self._credentials.admit(account, caller.profile.acme)
        return Caller(caller.profile, account)

    async def update(self, caller: Caller, update: AccountUpdate) -> ACMEAccount:
        """Change the contacts, or deactivate the account. Everything else is ignored.

        An account that may not act can still be deactivated. Raises Refused for contacts and as `admit` does,
        AccountNotValid and Unavailable.
        """
        account = caller.account
        if update.status == "deactivated":
            changed = await self._store.change(account, partial(rules.deactivated, now=self._clock()))
            decisions.info("account deactivated", extra={"account": account.metadata.name})
            self._on_deactivated(changed)
            await self._recorder.record_account(changed)
            return changed
        if update.contact is None:
            return await self.read(account)
        await self.admit(caller)
        return await self._store.change(account, partial(rules.with_contact, contact=contacts.parse(update.contact)))

    async def agree(self, caller: Caller) -> ACMEAccount:
        """Record that the account agrees to the terms of service, if the profile requires agreement to changed terms.

        Otherwise nothing is written. Raises Refused as `admit` does, AccountNotValid and Unavailable.
        """
        profile, account = caller.profile, caller.account
        if profile.acme.terms_of_service is None or not terms.is_outdated(profile.acme, account):
            return account
        await self.admit(caller)
        changed = await self._store.change(account, partial(rules.agreed, terms=profile.acme.terms_of_service))
        decisions.info("terms of service accepted", extra={"account": account.metadata.name})
        return changed

    async def change_key(self, caller: Caller, key: AccountKey, *, old: str) -> ACMEAccount:
        """Give the account another key; see KeyRollovers.change."""
        return await self._key_rollovers.change(caller, key, old=old)


def _account(holder: KeyHolder, binding: Binding | None, credential: EABCredential | None) -> ACMEAccount:
    profile, key = holder.profile, holder.key
    external = None
    if binding is not None and credential is not None:
        external = CredentialBinding(
            name=credential.metadata.name,
            namespace=credential.metadata.namespace,
            uid=credential.metadata.uid,
            key_id=binding.key_id,
            names=credential.spec.names,
            profiles=credential.spec.profiles,
            client_namespace=credential.spec.client_namespace,
            shared=credential.spec.shared,
        )
    return ACMEAccount(
        metadata=ObjectMeta(
            namespace=profile.namespace,
            name=account_name(*profile.key, key.thumbprint),
            labels={CREDENTIAL_UID: external.uid} if external is not None else {},
        ),
        spec=AccountSpec(
            profile_ref=LocalRef(name=profile.name), key=key.jwk, thumbprint=key.thumbprint, external_account=external
        ),
    )


def _require_key(account: ACMEAccount, key: AccountKey) -> ACMEAccount:
    """The account, if the key is its key now. A former key opens no account."""
    if account.thumbprint != key.thumbprint:
        raise Refused(
            ProblemType.BAD_PUBLIC_KEY, "The account of this key has changed its key; use a new key for a new account."
        )
    return rules.require_live(account)
