"""Opening accounts (RFC 8555, 7.3): which questions are asked, and in which order, before an account is made."""

from __future__ import annotations

from typing import Protocol

from acme_server.authentication import KeyHolder, account_does_not_exist, require_good_standing
from acme_server.credentials import Binding
from acme_server.jose import eab
from acme_server.jose.jwk import AccountKey
from acme_server.profiles import Profile
from acme_server.wire import NewAccount
from kms.resources import ACMEAccount, EABCredential


class AccountRegister(Protocol):
    """Finds and makes accounts (acme_server.accounts)."""

    async def find(self, profile: Profile, thumbprint: str) -> ACMEAccount | None:
        """The account of that key, if it has one."""
        ...

    async def register(
        self, profile: Profile, key: AccountKey, wanted: NewAccount, binding: Binding | None
    ) -> tuple[ACMEAccount, bool]:
        """The account of that key, and whether it was made now."""
        ...


class CredentialSource(Protocol):
    """Finds EAB credentials (acme_server.credentials)."""

    async def find(self, profile: Profile, key_id: str) -> tuple[EABCredential, bytes] | None:
        """The credential with that key identifier, and its MAC key."""
        ...


class Enrollment:
    """Opens accounts for those who hold a key."""

    def __init__(self, *, accounts: AccountRegister, credentials: CredentialSource) -> None:
        self._accounts = accounts
        self._credentials = credentials

    async def account(self, caller: KeyHolder, wanted: NewAccount) -> tuple[ACMEAccount, bool]:
        """The account of the caller's key, and whether it was opened now.

        A known key is answered before anything else in the request is looked at (M76, C8, C18): clients ask this way
        which account is theirs, without a binding.
        """
        known = await self._accounts.find(caller.profile, caller.key.thumbprint)
        if known is not None:
            require_good_standing(known)
            return known, False
        if wanted.only_return_existing:
            raise account_does_not_exist()
        return await self._accounts.register(caller.profile, caller.key, wanted, await self._binding(caller, wanted))

    async def _binding(self, caller: KeyHolder, wanted: NewAccount) -> Binding | None:
        """The verified binding of the request. One that came is never ignored, unless bindings are off (M94)."""
        members = wanted.external_account_binding
        if members is None or caller.profile.acme.external_account_binding == "Disabled":
            return None
        signed = eab.parse(members, url=caller.url, key=caller.key)
        found = await self._credentials.find(caller.profile, signed.key_id)
        eab.verify(signed, found[1] if found else None)
        return Binding(credential=found[0], key_id=signed.key_id) if found else None
