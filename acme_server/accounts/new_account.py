"""newAccount (RFC 8555, 7.3): find the account of a key, or open one."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding, EABCredentials
from acme_server.accounts.service import Accounts
from acme_server.accounts.transitions import require_live
from acme_server.audit.actor import ACTOR
from acme_server.jose import eab
from acme_server.model import Caller, KeyHolder
from acme_server.payloads import NewAccount
from acme_server.problems import AccountDoesNotExist, Refused
from acme_server.profiles import not_ready
from kms.resources import ACMEAccount
from kms.resources.credentials import EABCredential


class NewAccounts:
    """Opens accounts for the holders of keys.

    `on_wrong_secret` is called with a credential whose key identifier was used with another key.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        credentials: EABCredentials,
        on_wrong_secret: Callable[[EABCredential], None] = lambda _credential: None,
    ) -> None:
        self._on_wrong_secret = on_wrong_secret
        self._accounts = accounts
        self._credentials = credentials

    async def open(self, holder: KeyHolder, wanted: NewAccount, *, url: str) -> tuple[ACMEAccount, bool]:
        """The account of the key, and whether it was opened now. `url` is the URL of the request.

        If the key has an account, that account is the result, because clients look up their account this way. Such a
        request can change the agreement to new terms of service; its other members are ignored. Raises Unavailable for
        a key without an account if the profile is not ready.
        """
        known = await self._accounts.find(holder.profile, holder.key.thumbprint)
        if known is not None:
            require_live(known)
            if wanted.terms_of_service_agreed:
                known = await self._accounts.agree(Caller(holder.profile, known))
            return known, False
        if wanted.only_return_existing:
            raise AccountDoesNotExist
        if holder.profile.dormant:
            raise not_ready(*holder.profile.key)
        return await self._accounts.register(holder, wanted, await self._binding(holder, wanted, url))

    async def _binding(self, holder: KeyHolder, wanted: NewAccount, url: str) -> Binding | None:
        """The verified binding of the request. A binding is ignored only if the profile disables bindings."""
        members = wanted.external_account_binding
        if members is None or holder.profile.acme.external_account_binding == "Disabled":
            return None
        signed = eab.parse(members, url=url, key=holder.key)
        key = await self._credentials.mac_key(holder.profile, signed.key_id)
        try:
            eab.verify(signed, key.value if key else None)
        except Refused:
            if key is not None and (owner := self._credentials.known_owner(holder.profile, key)) is not None:
                self._on_wrong_secret(owner)
            raise
        binding = await self._credentials.binding(holder.profile, key) if key else None
        if binding is None:
            raise eab.not_valid()
        actor = ACTOR.get()
        if actor is not None:
            metadata = binding.credential.metadata
            ACTOR.set(replace(actor, credential=(metadata.namespace, metadata.name)))
        return binding
