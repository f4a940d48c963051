"""Who sent this? The one choke point of every POST (RFC 8555, 6.2 to 6.5): nothing behind it asks again.

Checks that cost little come first, so that a request that cannot be right costs next to nothing: media
type, size, form, algorithm, URL, nonce; then the account, which may cost one read from the API server; then the
signature.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from acme_server.api.problems import HTTPRefusal
from acme_server.jose import jws
from acme_server.jose.decoding import malformed
from acme_server.jose.jwk import AccountKey, account_key, stored_account_key
from acme_server.jose.jws import SignedRequest
from acme_server.nonces import Nonce, Nonces, bad_nonce
from acme_server.problems import AccountNotValid, ProblemType, Refused, Unavailable
from acme_server.profiles import Profile
from acme_server.urls import URLs
from kms.resources import ACMEAccount

MEDIA_TYPE = "application/jose+json"
MAXIMUM_BODY = 64 * 1024
"""Octets of a request."""
_BODY_DEADLINE = 10
"""Seconds that a client may take to send a body."""
_PARSED_KEYS = 4096

ACCOUNT_NAME = web.RequestKey("account", str)
"""On the request, once known: the account that it claims to come from, for the log."""


class ProfileSource(Protocol):
    """Finds profiles (acme_server.profiles)."""

    def of(self, namespace: str, name: str) -> Profile:
        """The profile of that name; raises Refused or Unavailable."""
        ...


class AccountSource(Protocol):
    """Finds accounts (acme_server.accounts.service)."""

    async def by_id(self, profile: Profile, account_id: str) -> ACMEAccount | None:
        """The account of that id, if the profile has it."""
        ...

    async def rekeyed(self, account: ACMEAccount) -> ACMEAccount | None:
        """The account with the key that it has been given elsewhere; None: it has the key that we know."""
        ...


class Redeemer(Protocol):
    """Uses up nonces, wherever they were issued (acme_server.replicas)."""

    async def redeem(self, nonce: Nonce) -> bool:
        """Whether the nonce was good until now."""
        ...


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whoever holds `key`, which the request itself brought: a sender who may not have an account."""

    profile: Profile
    key: AccountKey
    url: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class AccountHolder:
    """The holder of an account of the profile that is in good standing."""

    profile: Profile
    account: ACMEAccount
    key: AccountKey
    payload: bytes


class Authenticator:
    """Turns a request into its sender. Raises Refused or Unavailable; what it returns is verified."""

    def __init__(
        self, *, profiles: ProfileSource, accounts: AccountSource, nonces: Nonces, redeemer: Redeemer, urls: URLs
    ) -> None:
        self._profiles = profiles
        self._accounts = accounts
        self._nonces = nonces
        self._redeemer = redeemer
        self._urls = urls
        # A key is parsed once, not once a request; as many as this are kept, those used last.
        self._parsed = functools.lru_cache(maxsize=_PARSED_KEYS)(stored_account_key)

    def profile(self, request: web.Request) -> Profile:
        """The profile that the path names. Raises NotFound or Unavailable."""
        return self._profiles.of(request.match_info["namespace"], request.match_info["profile"])

    async def key_holder(self, request: web.Request) -> KeyHolder:
        """The sender of a request that is signed with the key in its `jwk`."""
        profile = self.profile(request)
        signed = jws.parse(await _body(request))
        if signed.jwk is None:
            raise malformed("This resource takes requests with a jwk, not with a kid.")
        return await self._by_key(request, profile, signed)

    async def account_holder(self, request: web.Request) -> AccountHolder:
        """The sender of a request that is signed with the key of the account in its `kid`."""
        profile = self.profile(request)
        signed = jws.parse(await _body(request))
        if signed.key_id is None:
            raise malformed("This resource takes requests with a kid, not with a jwk.")
        return await self._by_account(request, profile, signed, signed.key_id)

    async def account_or_key_holder(self, request: web.Request) -> AccountHolder | KeyHolder:
        """The sender of a request that is signed in either way, as it says itself: for revokeCert."""
        profile = self.profile(request)
        signed = jws.parse(await _body(request))
        if signed.key_id is None:
            return await self._by_key(request, profile, signed)
        return await self._by_account(request, profile, signed, signed.key_id)

    async def _by_key(self, request: web.Request, profile: Profile, signed: SignedRequest) -> KeyHolder:
        await self._check_freshness(request, signed)
        key = account_key(signed.jwk)
        jws.verify(signed, key)
        return KeyHolder(profile, key, signed.url, signed.payload)

    async def _by_account(
        self, request: web.Request, profile: Profile, signed: SignedRequest, key_id: str
    ) -> AccountHolder:
        await self._check_freshness(request, signed)
        account = await self._account(profile, key_id)
        request[ACCOUNT_NAME] = account.metadata.name
        account = await self._verified(account, signed)
        require_good_standing(account)
        return AccountHolder(profile, account, self._parsed(account.jwk), signed.payload)

    async def _verified(self, account: ACMEAccount, signed: SignedRequest) -> ACMEAccount:
        """The account whose key has signed the request.

        A signature that is wrong for the key that we know may be right for one that another replica has taken a moment
        ago: so a "no" costs one read where there are other replicas, as that of an unknown account does.
        """
        try:
            jws.verify(signed, self._parsed(account.jwk))
        except Refused:
            rekeyed = await self._accounts.rekeyed(account)
            if rekeyed is None:
                raise
            account = rekeyed
            jws.verify(signed, self._parsed(account.jwk))
        return account

    async def _check_freshness(self, request: web.Request, signed: SignedRequest) -> None:
        """The request was signed for this very URL, and it has not been here before.

        The router also finds resources by paths with needless escapes, and past a query; URLs of ours have neither.
        """
        if request.raw_path != request.path or signed.url != self._urls.requested(request.path):
            raise Refused(ProblemType.UNAUTHORIZED, "The url in the protected header is not the URL of this resource.")
        if not await self._redeemer.redeem(self._nonces.read(signed.nonce)):
            raise bad_nonce()

    async def _account(self, profile: Profile, key_id: str) -> ACMEAccount:
        """The account with that URL; one of another profile does not exist here."""
        link = self._urls.parse_account(key_id)
        found = None
        if link is not None and (link.namespace, link.profile) == (profile.namespace, profile.name):
            found = await self._accounts.by_id(profile, link.account)
        if found is None:
            raise account_does_not_exist()
        return found


def account_does_not_exist() -> Refused:
    """The refusal of a kid or a key that has no account in the profile."""
    return Refused(ProblemType.ACCOUNT_DOES_NOT_EXIST, "There is no such account in this profile.")


def require_good_standing(account: ACMEAccount) -> None:
    """Raise AccountNotValid for an account that is deactivated or revoked, and Unavailable for one that is not open."""
    if account.status.state is None:
        raise Unavailable("The account is being opened.")
    if account.status.state != "valid":
        raise AccountNotValid(f"The account is {account.status.state}.")


async def _body(request: web.Request) -> bytes:
    """The body of a request of the right media type, read no further than it may be long."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise HTTPRefusal(ProblemType.MALFORMED, f"The Content-Type must be {MEDIA_TYPE}.", status=415)
    if (request.content_length or 0) > MAXIMUM_BODY:
        raise HTTPRefusal(ProblemType.MALFORMED, f"The request is longer than {MAXIMUM_BODY} octets.", status=413)
    if request.content.is_eof():
        return await request.read()  # mostly, all of it came with the headers
    try:
        async with asyncio.timeout(_BODY_DEADLINE):
            return await request.read()  # the limit of the application holds where no length was announced
    except TimeoutError:
        raise HTTPRefusal(ProblemType.MALFORMED, "The request took too long to arrive.", status=408) from None
    except (ConnectionError, web.RequestPayloadError):
        raise malformed("The request did not arrive as a whole.") from None
