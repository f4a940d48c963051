"""EAB credentials: the keys of key identifiers, and what the credentials allow."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from acme_server.accounts.client_namespaces import LabelsOf, NamespaceRules
from acme_server.accounts.credential_records import (
    is_credential_of,
    last_record,
    may_be_made_again,
    objection,
    opening_objection,
    require_entitled,
)
from acme_server.jose.decoding import base64url
from acme_server.model import Profile
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.state.cache import SharedReads
from acme_server.state.store import answering_unavailable
from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.pki.policy import Narrowing
from kms.resources.accounts import ACMEAccount, CredentialRecord
from kms.resources.client_namespaces import Clients, clients_at, clients_of
from kms.resources.compile import InvalidRules, compile_narrowing
from kms.resources.core import Secret
from kms.resources.credentials import CredentialSpec, EABCredential, NameRules
from kms.resources.kinds import CREDENTIALS, SECRETS
from kms.resources.profiles import AcmeEnrollment
from kms.resources.secret_names import EAB_SECRET, KEY_ID, OWNER, OWNER_UID, verification_key_name

_REPLACED = 10
"""Retry-After for an account whose credential was deleted a moment ago, in seconds."""
UID_INDEX = "uid"
"""The index of the credentials' informer that finds a credential by its UID."""


def by_uid(credential: EABCredential) -> tuple[Hashable, ...]:
    """The entry of a credential in UID_INDEX."""
    return (credential.metadata.uid,)


@dataclass(frozen=True, slots=True)
class Binding:
    """A verified external account binding (RFC 8555, 7.3.4): the client has the key of `key_id`."""

    credential: EABCredential
    key_id: str


@dataclass(frozen=True, slots=True)
class MacKey:
    """The HMAC key of a key identifier, and the verification Secret that it comes from."""

    key_id: str
    value: bytes = field(repr=False)
    copy: Secret = field(repr=False)


class EABCredentials:
    """Reads credentials from the caches, and keys from the API server. A refusal is based on a live read.

    For `replacement` after its deletion, a credential may be about to be made again, by `kubectl replace --force` or
    from a backup, for example: until then its accounts are asked to come again, and refused afterwards.

    The names of `compiled` credentials are kept compiled; compiling them takes up to 10 ms, and keeping them 1 MB.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        namespace: str,
        credentials: Informer[EABCredential],
        labels_of: LabelsOf,
        clock: Clock,
        replacement: timedelta = timedelta(minutes=1),
        compiled: int = 64,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._credentials = credentials
        self._clock = clock
        self._replacement = replacement
        self._namespaces = NamespaceRules(labels_of)
        self._compiled = lru_cache(maxsize=compiled)(_narrowing)
        # Shared, so that a blocked client that asks again and again does not multiply reads.
        self._reads: SharedReads[EABCredential | None] = SharedReads(self._live_credential)

    async def mac_key(self, profile: Profile, key_id: str) -> MacKey | None:
        """The HMAC key of that key identifier on the profile; None if there is none.

        Each call is one live read of a Secret by name, whether or not the key identifier exists. So a replaced key
        stops working and its successor works at once, and neither the time nor the number of reads reveals which key
        identifiers exist. Raises Unavailable.
        """
        secret = await self._live_secret(verification_key_name(*profile.key, key_id))
        value = _key(secret, key_id)
        return MacKey(key_id, value, secret) if secret is not None and value is not None else None

    async def binding(self, profile: Profile, key: MacKey) -> Binding | None:
        """The binding to the credential of the key; None if the profile has no such credential any more.

        Call this only after the MAC was verified: it may cost a read, which reveals that the key identifier exists.
        Raises Unavailable.
        """
        credential = await self._owner(key.copy)
        if credential is None or credential.profile_key != profile.key:  # a credential of profile A on B
            return None
        return Binding(credential=credential, key_id=key.key_id)

    def known_owner(self, profile: Profile, key: MacKey) -> EABCredential | None:
        """The credential of the key on the profile, if the caches know it: no read reveals that it exists."""
        uid = key.copy.metadata.labels.get(OWNER_UID)
        found = self._credentials.by(UID_INDEX, uid) if uid else ()
        return next((each for each in found if each.profile_key == profile.key), None)

    async def confirm(self, profile: Profile, binding: Binding) -> EABCredential:
        """The credential, read live, if it may open accounts.

        Raises Refused (unauthorized) if it was deleted, rotated, suspended or has expired, or if the profile does not
        admit its clients; and Unavailable.
        """
        seen = binding.credential.metadata
        credential = await self._live_credential(seen.namespace, seen.name)
        if (
            credential is None
            or credential.metadata.uid != seen.uid
            or credential.metadata.deletion_timestamp is not None
            or credential.profile_key != profile.key
        ):
            raise invalid_key("was deleted")
        secret = await self._live_secret(verification_key_name(*profile.key, binding.key_id))
        if secret is None or secret.metadata.labels.get(OWNER_UID) != seen.uid:
            raise invalid_key("was replaced by a new one")
        if why := opening_objection(credential, now=self._clock()):
            raise invalid_key(why)
        clients = clients_of(credential, profile_namespace=profile.namespace)
        self._namespaces.admit(clients, profile.key, profile.acme)
        return credential

    def of_account(self, account: ACMEAccount) -> EABCredential | None:
        """The credential that the account follows, if the caches know it.

        Raises Unavailable if it exists and cannot be read: what it allows is unknown then.
        """
        binding = account.spec.external_account
        if binding is None:
            return None
        credential = self._credentials.get(binding.namespace, binding.name)
        if credential is None and self._credentials.unreadable(binding.namespace, binding.name) is not None:
            raise Unavailable("The account's EAB credential cannot be read.", 30)
        return credential if credential is not None and is_credential_of(account, credential) else None

    def clients(self, account: ACMEAccount) -> Clients | None:
        """The clients of the account's credential, as it is now or, if it is gone, said last; None: it has none."""
        binding, said = account.spec.external_account, self._said(account)
        if binding is None or said is None:
            return None
        return clients_at(binding.namespace, said, profile_namespace=account.metadata.namespace)

    async def admit(self, account: ACMEAccount, acme: AcmeEnrollment) -> None:
        """Raise Refused (unauthorized) if the account's credential is suspended or gone, so that it may not act.

        `acme` is of the account's profile, which also decides by the namespace of the clients. While the watch of
        credentials is open, a grant costs no read; without it, and before a refusal, the credential is read live.
        Raises Unavailable, also for a credential that was deleted a moment ago, cannot be read, or is in a namespace
        that this server does not watch.
        """
        binding, credential = account.spec.external_account, self.of_account(account)
        said = credential.spec if credential is not None else last_record(account)
        if binding is None or said is None:
            return
        profile = account.metadata.namespace, account.spec.profile_ref.name
        self._namespaces.admit(clients_at(binding.namespace, said, profile_namespace=profile[0]), profile, acme)
        # One that is not cached may be in a namespace that is not watched, unless the record says that it is gone.
        is_known = isinstance(said, CredentialSpec) or said.state == "Deleted"
        if is_known and self._credentials.is_current() and objection(account, credential, acme) is None:
            return
        found = await self._reads(binding.namespace, binding.name)
        followed = found if found is not None and is_credential_of(account, found) else None
        if why := objection(account, followed, acme):
            if followed is None and may_be_made_again(account, now=self._clock(), within=self._replacement):
                name = f"{binding.namespace}/{binding.name}"
                raise Unavailable(f"The account's EAB credential {name} was deleted a moment ago.", _REPLACED)
            raise Refused(ProblemType.UNAUTHORIZED, why)
        if followed is not None:
            clients = clients_of(followed, profile_namespace=profile[0])
            self._namespaces.admit(clients, profile, acme)
            self._credentials.put(followed)  # its rules are needed next
            if self.of_account(account) is None:
                raise Unavailable("The server does not know the account's EAB credential yet.", 5)

    def admit_profile(self, account: ACMEAccount, name: str | None) -> None:
        """Raise Refused (invalidProfile) if the account's credential does not entitle it to the order profile."""
        binding = account.spec.external_account
        if not name or binding is None or (said := self._said(account)) is None:
            return
        require_entitled(said.profiles, name, credential=(binding.namespace, binding.name))

    def narrowing(self, account: ACMEAccount) -> Narrowing | None:
        """How the credential narrows the policy for the account: as it says now, or as it said last before it went.

        Raises Unavailable if its rules make no sense, which the operator reports on the credential.
        """
        binding, said = account.spec.external_account, self._said(account)
        if binding is None or said is None or said.names is None:
            return None
        try:
            return self._compiled(said.names, f"{binding.namespace}/{binding.name}")
        except InvalidRules as error:
            raise Unavailable("The rules of the account's EAB credential need repair.", 30) from error

    def granted(self, clients: Clients | None, profile: Profile) -> Narrowing | None:
        """The names that the profile gives the clients of one of its accounts; None: all of its policy.

        Raises Unavailable if the namespace is not known, or the profile needs repair.
        """
        return self._namespaces.narrowing(clients, profile.key, profile.acme)

    def _said(self, account: ACMEAccount) -> CredentialSpec | CredentialRecord | None:
        """What the account's credential says now or, if it is gone, said last; None: it has none.

        Raises Unavailable as `of_account` does.
        """
        credential = self.of_account(account)
        return credential.spec if credential is not None else last_record(account)

    async def _owner(self, secret: Secret) -> EABCredential | None:
        uid = secret.metadata.labels.get(OWNER_UID)
        if not uid:
            return None
        for known in self._credentials.by(UID_INDEX, uid):
            return known
        _, _, path = secret.metadata.annotations.get(OWNER, "").partition(" ")
        namespace, _, name = path.partition("/")
        credential = await self._live_credential(namespace, name) if namespace and name else None
        return credential if credential is not None and credential.metadata.uid == uid else None

    async def _live_secret(self, name: str) -> Secret | None:
        with answering_unavailable():
            try:
                return await self._cluster.get(SECRETS, self._namespace, name)
            except errors.NotFound:
                return None

    async def _live_credential(self, namespace: str, name: str) -> EABCredential | None:
        with answering_unavailable():
            try:
                return await self._cluster.get(CREDENTIALS, namespace, name)
            except errors.NotFound:
                return None
            except errors.Undecodable as error:
                raise Unavailable("The EAB credential cannot be read and needs repair.", 30) from error


def _narrowing(names: NameRules, credential: str) -> Narrowing:
    return compile_narrowing(names, credential)


def _key(secret: Secret | None, key_id: str) -> bytes | None:
    """The HMAC key in a verification Secret, if it is well-formed and for that key identifier."""
    if secret is None or secret.text(KEY_ID) != key_id:
        return None
    try:
        return base64url(secret.text(EAB_SECRET), "The key") or None
    except Refused:
        return None


def invalid_key(why: str) -> Refused:
    """The refusal of a binding whose key "has expired", for example."""
    return Refused(ProblemType.UNAUTHORIZED, f"The external account binding's key {why}.")
