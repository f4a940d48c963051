"""Opening accounts (RFC 8555, 7.3): which questions are asked, and in which order, before an account is made."""

from __future__ import annotations

from typing import Protocol

from acme_server.accounts.eab_credentials import Binding, MacKey
from acme_server.api.authentication import KeyHolder, account_does_not_exist, require_good_standing
from acme_server.api.payloads import NewAccount
from acme_server.jose import eab
from acme_server.jose.jwk import AccountKey
from acme_server.profiles import Profile
from kms.resources import ACMEAccount


class AccountRegister(Protocol):
    """Finds and makes accounts (acme_server.accounts.service)."""

    async def find(self, profile: Profile, thumbprint: str) -> ACMEAccount | None:
        """The account of that key, if it has one."""
        ...

    async def register(
        self, profile: Profile, key: AccountKey, wanted: NewAccount, binding: Binding | None
    ) -> tuple[ACMEAccount, bool]:
        """The account of that key, and whether it was made now."""
        ...

    async def agree(self, profile: Profile, account: ACMEAccount) -> ACMEAccount:
        """The account, which agrees to the terms of service as they are now."""
        ...


class CredentialSource(Protocol):
    """Finds EAB credentials (acme_server.accounts.eab_credentials)."""

    async def mac_key(self, profile: Profile, key_id: str) -> MacKey | None:
        """The MAC key of that key identifier."""
        ...

    async def binding(self, profile: Profile, key: MacKey) -> Binding | None:
        """What whoever has shown that key is bound to."""
        ...


class NewAccounts:
    """Opens accounts for those who hold a key."""

    def __init__(self, *, accounts: AccountRegister, credentials: CredentialSource) -> None:
        self._accounts = accounts
        self._credentials = credentials

    async def account(self, caller: KeyHolder, wanted: NewAccount) -> tuple[ACMEAccount, bool]:
        """The account of the caller's key, and whether it was opened now.

        A known key is answered before anything else in the request is looked at: clients ask this way
        which account is theirs, without a binding. What they may say with it is that they agree to new terms.
        """
        known = await self._accounts.find(caller.profile, caller.key.thumbprint)
        if known is not None:
            require_good_standing(known)
            if wanted.terms_of_service_agreed:
                known = await self._accounts.agree(caller.profile, known)
            return known, False
        if wanted.only_return_existing:
            raise account_does_not_exist()
        return await self._accounts.register(caller.profile, caller.key, wanted, await self._binding(caller, wanted))

    async def _binding(self, caller: KeyHolder, wanted: NewAccount) -> Binding | None:
        """The verified binding of the request. One that came is never ignored, unless bindings are off."""
        members = wanted.external_account_binding
        if members is None or caller.profile.acme.external_account_binding == "Disabled":
            return None
        signed = eab.parse(members, url=caller.url, key=caller.key)
        key = await self._credentials.mac_key(caller.profile, signed.key_id)
        eab.verify(signed, key.value if key else None)
        binding = await self._credentials.binding(caller.profile, key) if key else None
        if binding is None:
            raise eab.not_valid()
        return binding
