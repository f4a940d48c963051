"""Looks at CAs of Vault and OpenBao: gets credentials, logs in, and reads the chain.

Each look gets the credentials as they are now, so that the server has a changed Secret within a minute. The login
follows every five minutes, once a minute while something is wrong, and at once for other credentials.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from kms.clock import Clock, system_clock
from kms.cluster.client import Cluster
from kms.cluster.errors import Forbidden, Invalid, NotFound
from kms.cluster.service_account_token import RENEWED_AFTER
from kms.issuers.vault.credentials import Credentials, credentials_in
from kms.issuers.vault.observation import Observation as Found
from kms.issuers.vault.observation import observe
from kms.pki.ca import InvalidAuthority, check_trust_anchors
from kms.pki.certificate import certificate_pem
from kms.pki.returned import authority_chain
from kms.resources.authorities import CertificateAuthority, KubernetesAuth, VaultAuthority, VaultServer
from kms.resources.core import Secret
from kms.resources.kinds import SECRETS
from kms.resources.secret_names import VAULT_JWT
from kms_operator.looks.vault_credentials import (
    copied_credentials,
    secret_ref,
    token_audiences,
    token_forbidden,
    token_not_found,
    token_refused,
)
from kms_operator.observation import Observation
from kms_operator.settings import OperatorSettings

Observe = Callable[[VaultAuthority, Credentials], Awaitable[Found]]

EVERY: Final = timedelta(minutes=5)
_SHORTEST: Final = timedelta(seconds=10)
_FORGOTTEN: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class _Token:
    """A ServiceAccount's token, what it is for, and when another one replaces it."""

    key: tuple[str, str, tuple[str, ...]]
    value: bytes = field(repr=False)
    renew_at: datetime


class VaultCredentials:
    """Gets what logs in to Vault, for the server and for the operator's own looks. Tokens are in memory only."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster, *, clock: Clock = system_clock) -> None:
        self._settings = settings
        self._cluster = cluster
        self._clock = clock
        self._tokens: dict[str, _Token] = {}

    async def get(self, authority: CertificateAuthority, server: VaultServer) -> Mapping[str, bytes]:
        """The data of the Secret for the server.

        Raises InvalidAuthority (SecretNotFound, TokenForbidden), and ClusterError.
        """
        if server.auth.kubernetes is not None:
            return {VAULT_JWT: await self._token(authority, server, server.auth.kubernetes)}
        reference = secret_ref(server.auth)
        source: Secret | None = None
        if reference is not None:
            try:
                source = await self._cluster.get(SECRETS, authority.metadata.namespace, reference.name)
            except NotFound:
                source = None
        return copied_credentials(authority, server, source)

    async def _token(self, authority: CertificateAuthority, server: VaultServer, auth: KubernetesAuth) -> bytes:
        now, uid = self._clock(), authority.metadata.uid
        account, audiences = auth.service_account_ref.name, token_audiences(authority, server, auth)
        key = (authority.metadata.namespace, account, audiences)
        known = self._tokens.get(uid)
        if known is not None and known.key == key and now < known.renew_at:
            return known.value
        try:
            token = await self._cluster.create_token(authority.metadata.namespace, account, audiences=audiences)
        except Forbidden as error:
            raise token_forbidden(authority, auth, str(error), self._settings) from None
        except NotFound:
            raise token_not_found(authority, auth) from None
        except Invalid as error:
            raise token_refused(auth, str(error)) from None
        life = token.expiration_timestamp - now
        value = token.token.encode()
        self._tokens[uid] = _Token(key, value, now + max(_SHORTEST, life * RENEWED_AFTER))
        for each in [each for each, kept in self._tokens.items() if kept.renew_at + _FORGOTTEN < now]:
            del self._tokens[each]  # its CA was deleted
        return value


class VaultLook:
    """Looks at one CA of Vault after another. `every` is the time between two logins while all is well."""

    def __init__(
        self,
        credentials: VaultCredentials,
        *,
        clock: Clock = system_clock,
        every: timedelta = EVERY,
        observe: Observe = observe,
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._every = every
        self._observe = observe
        self._seen: dict[str, tuple[datetime, Mapping[str, bytes]]] = {}

    async def __call__(self, authority: CertificateAuthority, last: Observation | None) -> Observation:
        """Look. Raises ClusterError if the API server refuses what the operator asks, or does not answer."""
        vault = authority.spec.external.vault if authority.spec.external is not None else None
        if vault is None:
            raise ValueError("the CA is not one of Vault")
        try:
            data = await self._credentials.get(authority, vault)
        except InvalidAuthority as error:
            return Observation("False", error.reason, str(error))
        # A ServiceAccount's token is another one every twenty minutes, for the same login.
        relevant = {key: value for key, value in data.items() if key != VAULT_JWT}
        now, uid = self._clock(), authority.metadata.uid
        seen = self._seen.get(uid)
        is_new = seen is not None and seen[1] == relevant and now < seen[0] + self._every
        if last is not None and last.status == "True" and is_new:
            return _with_credentials(last, data)
        self._seen = {each: kept for each, kept in self._seen.items() if kept[0] + _FORGOTTEN > now}
        found = await self._observe(vault, credentials_in(data, vault.auth))
        self._seen[uid] = now, relevant
        return _observation(authority, found, data, now=now)


def _with_credentials(last: Observation, data: Mapping[str, bytes]) -> Observation:
    return Observation(last.status, last.reason, last.message, last.chain, data)


def _observation(
    authority: CertificateAuthority, found: Found, data: Mapping[str, bytes], *, now: datetime
) -> Observation:
    if found.reason != "Observed":
        return Observation("False", found.reason, found.message, credentials=data)
    external = authority.spec.external
    configured = external.trust_anchors if external is not None else ()
    try:
        anchors = check_trust_anchors(configured, now=now).valid if configured else ()
        chain = authority_chain(found.chain.encode(), anchors, now=now)
    except InvalidAuthority as error:
        return Observation("False", error.reason, str(error), credentials=data)
    return Observation("True", found.reason, found.message, "".join(map(certificate_pem, chain)), data)
