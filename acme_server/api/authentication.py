"""Authentication of every POST (RFC 8555, 6.2 to 6.5).

Cheap checks come first: media type, size, form, algorithm, URL, nonce; then the account, which may cost one read from
the API server; then the signature.
"""

from __future__ import annotations

import asyncio
import functools

import msgspec
from aiohttp import web

from acme_server.accounts.service import Accounts
from acme_server.accounts.transitions import require_live
from acme_server.api.problems import HTTPRefusal
from acme_server.api.request import Request
from acme_server.audit.actor import ACTOR, Actor
from acme_server.jose import jws
from acme_server.jose.decoding import malformed
from acme_server.jose.jwk import account_key, stored_account_key
from acme_server.jose.jws import SignedRequest
from acme_server.model import Caller, KeyHolder, Profile
from acme_server.nonces import Nonces, bad_nonce
from acme_server.problems import AccountDoesNotExist, ProblemType, Refused
from acme_server.profiles import Profiles, not_ready
from acme_server.replicas import Replicas
from acme_server.sessions import SESSION
from acme_server.urls import URLs
from kms.resources import ACMEAccount
from kms.resources.meta import key_of

MEDIA_TYPE = "application/jose+json"
MAXIMUM_BODY = 64 * 1024
"""Octets of a request."""
_PARSED_KEYS = 4096
"""Account keys that are kept in parsed form."""


class AccountRequest(msgspec.Struct, frozen=True):
    """A request that an account of the profile has signed: a valid one, or one that is suspended."""

    caller: Caller
    payload: bytes


class KeyRequest(msgspec.Struct, frozen=True):
    """A request that is signed with the key in its `jwk`."""

    holder: KeyHolder
    url: str
    payload: bytes


class Authenticator:
    """Authenticates requests. Raises Refused and Unavailable."""

    def __init__(
        self,
        *,
        profiles: Profiles,
        accounts: Accounts,
        nonces: Nonces,
        replicas: Replicas,
        urls: URLs,
        body_deadline: float = 10.0,
    ) -> None:
        """`body_deadline` is how many seconds a client may take to send a body."""
        self._profiles = profiles
        self._accounts = accounts
        self._nonces = nonces
        self._replicas = replicas
        self._urls = urls
        self._body_deadline = body_deadline
        self._parsed = functools.lru_cache(maxsize=_PARSED_KEYS)(stored_account_key)

    def profile(self, request: Request) -> Profile:
        """The profile in the path, which may be dormant. Raises NotFound and Unavailable."""
        return self._profiles.of_any(request.parameters["namespace"], request.parameters["profile"])

    async def key_request(self, request: Request) -> KeyRequest:
        """Authenticate a request that must have a `jwk`."""
        profile = self.profile(request)
        signed = jws.parse(await self._body(request))
        if signed.jwk is None:
            raise malformed("This resource takes requests with a jwk, not with a kid.")
        return await self._by_key(request, profile, signed)

    async def account_request(self, request: Request) -> AccountRequest:
        """Authenticate a request that must have a `kid`."""
        profile = self.profile(request)
        signed = jws.parse(await self._body(request))
        if signed.key_id is None:
            raise malformed("This resource takes requests with a kid, not with a jwk.")
        return await self._by_account(request, profile, signed, signed.key_id)

    async def active_account_request(self, request: Request, *, dormant: bool = False) -> AccountRequest:
        """Authenticate a request that must have a `kid`, of an account that may act; others may only read.

        A request without a payload reads (POST-as-GET). Raises Unavailable for any other one if the profile is not
        ready, unless a `dormant` one may answer.
        """
        signed = await self.account_request(request)
        if not signed.payload:
            return signed
        if signed.caller.profile.dormant and not dormant:
            raise not_ready(*signed.caller.profile.key)
        return AccountRequest(await self._accounts.admit(signed.caller), signed.payload)

    async def account_or_key_request(self, request: Request) -> AccountRequest | KeyRequest:
        """Authenticate a request that has either (revokeCert)."""
        profile = self.profile(request)
        signed = jws.parse(await self._body(request))
        if signed.key_id is None:
            return await self._by_key(request, profile, signed)
        return await self._by_account(request, profile, signed, signed.key_id)

    async def _by_key(self, request: Request, profile: Profile, signed: SignedRequest) -> KeyRequest:
        await self._check_freshness(request, signed)
        key = account_key(signed.jwk)
        jws.verify(signed, key)
        ACTOR.set(Actor(request.remote, by_key=True))
        return KeyRequest(KeyHolder(profile, key), signed.url, signed.payload)

    async def _by_account(
        self, request: Request, profile: Profile, signed: SignedRequest, key_id: str
    ) -> AccountRequest:
        await self._check_freshness(request, signed)
        account = await self._account(profile, key_id)
        request.account = account.metadata.name
        account = await self._verify(account, signed)
        ACTOR.set(Actor(request.remote, account=key_of(account), credential=account.credential))
        request.payload = signed.payload
        require_live(account)
        return AccountRequest(Caller(profile, account), signed.payload)

    async def _verify(self, account: ACMEAccount, signed: SignedRequest) -> ACMEAccount:
        """Check the signature. The account that it returns has the key that was used.

        Another replica may have changed the key a moment ago. So if there are other replicas, a wrong signature
        costs one read, as an unknown account does.
        """
        try:
            jws.verify(signed, self._parsed(account.jwk))
        except Refused:
            rekeyed = await self._accounts.reload_changed_key(account)
            if rekeyed is None:
                raise
            account = rekeyed
            jws.verify(signed, self._parsed(account.jwk))
        return account

    async def _check_freshness(self, request: Request, signed: SignedRequest) -> None:
        """Check that the request was signed for this URL, and that its nonce is good.

        The router also accepts needless escapes in the path, and a query; our URLs have neither.
        """
        path = request.rel_url.path_safe  # as the router has read it; the paths of signed requests need no escapes
        if request.raw_path != path or signed.url != self._urls.of_request(path):
            raise Refused(ProblemType.UNAUTHORIZED, "The url in the protected header is not the URL of this resource.")
        nonce = self._nonces.read(signed.nonce)
        if (session := SESSION.get()) is not None:
            session.begin(nonce.seen)
        if not await self._replicas.redeem(nonce):
            raise bad_nonce()

    async def _account(self, profile: Profile, key_id: str) -> ACMEAccount:
        """The account with that URL, if it is one of the profile."""
        link = self._urls.parse_account(key_id)
        found = None
        if link is not None and (link.namespace, link.profile) == (profile.namespace, profile.name):
            found = await self._accounts.by_id(profile, link.account)
        if found is None:
            raise AccountDoesNotExist
        return found

    async def _body(self, request: Request) -> bytes:
        """The body, at most MAXIMUM_BODY long and of the right media type."""
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != MEDIA_TYPE:
            raise HTTPRefusal(ProblemType.MALFORMED, f"The Content-Type must be {MEDIA_TYPE}.", status=415)
        if request.content.is_eof():  # mostly, all of it came with the headers
            body = request.content.read_nowait()
            if len(body) > MAXIMUM_BODY:
                raise _too_long()
            return body
        if (request.content_length or 0) > MAXIMUM_BODY:
            raise _too_long()
        if request.transport is None:  # aiohttp would raise what looks like an error of ours
            raise _broken_off()
        try:
            async with asyncio.timeout(self._body_deadline):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:  # no length was announced
            raise _too_long() from None
        except TimeoutError:
            raise HTTPRefusal(ProblemType.MALFORMED, "The request took too long to arrive.", status=408) from None
        except (ConnectionError, web.RequestPayloadError):
            raise _broken_off() from None


def _broken_off() -> Refused:
    return malformed("The request did not arrive as a whole.")


def _too_long() -> HTTPRefusal:
    return HTTPRefusal(ProblemType.MALFORMED, f"The request is longer than {MAXIMUM_BODY} octets.", status=413)
