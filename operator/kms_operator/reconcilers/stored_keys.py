"""Keys of internal CAs outside of Secrets: who may use which store, which key is there, and how it signs.

The key in the store is the CA, as the key in a Secret is. It is made only where the CA has never had a certificate;
from then on, the store must have the key of that certificate. The Secret of the release namespace says where the key
is, and has copies of the credentials for the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from kms.contract import READY
from kms.issuers.key_stores import KeyLocation, KeyStoreNotReady, KeyStoreRefused, StoredKey
from kms.issuers.stored_key import location_in
from kms.pki.ca import InvalidAuthority, load_remote_signer
from kms.pki.certificate import Signer
from kms.pki.keys import PrivateKey, PublicKey, is_key_of, key_algorithm, private_key_pem, weakness
from kms.pki.stand_in import ToBeSigned, WrongSignature, absent, stand_in, verify
from kms.resources.authorities import (
    CertificateAuthority,
    InternalAuthority,
    KeyStore,
    SecretKeyRef,
    TransitKeyStore,
)
from kms.resources.core import Secret
from kms.resources.kinds import AUTHORITIES, SECRETS
from kms.resources.meta import condition, is_true
from kms.resources.secret_names import (
    KEY_STORE,
    PIN,
    SIGNING_KEY,
    TLS_CERTIFICATE,
    TLS_PRIVATE_KEY,
    signing_key_name,
)
from kms_operator.plan import SECRET_NOT_FOUND, ConditionUpdate
from kms_operator.questions import FindKey, Found, GetCredentials, MakeKey, SignWith
from kms_operator.reconcilers.earlier_authorities import agrees
from kms_operator.reconcilers.kept_keys import predecessors
from kms_operator.snapshot import Read, Snapshot

KEY_PROTECTION = "KeyProtection"
KEY_STORE_CONDITION = "KeyStore"
"""Conditions beside Ready. KeyStore is False while a store does not answer; Ready follows after a second look."""
NOT_READY = "KeyStoreNotReady"
KEY_LOST = "KeyLost"
KEY_MISMATCH = "KeyMismatch"


@dataclass(frozen=True, slots=True)
class StoredAuthority:
    """The key of a CA in its store, pinned to a version; `current` has its certificate, if there is one."""

    location: KeyLocation
    stored: StoredKey
    key: PrivateKey
    current: Signer | None

    @property
    def version(self) -> int | None:
        """The version of the key, which never changes; None where the store has none."""
        return self.stored.version


def key_store_of(authority: CertificateAuthority) -> KeyStore | None:
    """Where the key of the CA is; None if in a Secret."""
    return authority.spec.internal.key_store if authority.spec.internal is not None else None


def reads_of_credentials(authority: CertificateAuthority) -> Iterator[Read]:
    """The Secret of a user with the PIN of a token. Credentials for Vault are asked for."""
    store = key_store_of(authority)
    if store is not None and store.pkcs11 is not None:
        yield Read(SECRETS, authority.metadata.namespace, store.pkcs11.pin_secret_ref.name)


def load_stored_key(authority: CertificateAuthority, snapshot: Snapshot) -> StoredAuthority | None:
    """Return what `load_stored` does; None for a CA whose key is in a Secret."""
    spec = authority.spec.internal
    return load_stored(authority, spec, snapshot) if spec is not None and spec.key_store is not None else None


def load_stored(authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot) -> StoredAuthority:
    """Return the key, made if there has never been one, and the CA's certificate for it.

    Raises InvalidAuthority, and Unanswered until the store was asked.
    """
    if spec.key_store is None:
        raise InvalidAuthority("InvalidSpec", "spec.internal.keyStore is not set")
    own = snapshot.internal_secret(signing_key_name(authority.metadata.uid))
    location = _open(authority, spec.key_store, own, snapshot)
    found = _asked(snapshot, FindKey(location))
    if found is None:
        status = authority.status
        if (
            own is not None
            or status.certificate is not None
            or status.request is not None
            or spec.certificate is not None
        ):
            raise InvalidAuthority(
                KEY_LOST,
                f"{_describe(location)} does not exist any more, so the CA's private key is lost; restore it from a"
                " backup of the key store, or delete this CertificateAuthority and create it again: that makes a new"
                " CA, which clients must trust first",
            )
        found = _asked(snapshot, MakeKey(location, spec.private_key.algorithm, spec.private_key.size))
    if not isinstance(found, StoredKey):
        raise TypeError("the answer is no key")
    _check(found, spec, location)
    pinned = _pinned(location, found.version)
    key = asking_key(found.public_key, pinned, snapshot)
    current = _current(authority, spec, own, key, snapshot, location=location)
    return StoredAuthority(pinned, found, key, current)


def asking_key(public_key: PublicKey, location: KeyLocation, snapshot: Snapshot) -> PrivateKey:
    """Return a private key for builders that asks the store; every signature is verified."""
    return stand_in(public_key, partial(_sign, public_key, location, snapshot))


def issuer_in(secret: Secret, snapshot: Snapshot) -> Signer | None:
    """Return the CA in the Secret if its key is in a store, with a key that asks the store; None if it is not.

    Raises InvalidAuthority if the Secret cannot be read.
    """
    try:
        location = location_in(secret.data)
    except ValueError as error:
        raise InvalidAuthority("InvalidSecret", f"Secret {secret.metadata.name}: {error}") from error
    if location is None:
        return None
    signer = load_remote_signer(secret.data.get(TLS_CERTIFICATE, b""))
    return signer.with_key(asking_key(signer.key.public_key(), location, snapshot))


def has_kept_location(authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot) -> bool:
    """Whether an earlier object of this name was the same CA, with a key in a store."""
    return any(_kept(authority, spec, snapshot))


def key_data(key: PrivateKey, stored: StoredAuthority | None) -> dict[str, bytes]:
    """Return what the Secret of the release namespace has: the key, or where it is and what opens its store."""
    if stored is None:
        return {TLS_PRIVATE_KEY: private_key_pem(key)}
    return {KEY_STORE: msgspec.json.encode(stored.location.store), **dict(stored.location.credentials)}


def has_key(secret: Secret, key: Mapping[str, bytes]) -> bool:
    """Whether the Secret has the key in this data; a key in a store is told by where it is."""
    return all(secret.data.get(name) == key.get(name) for name in (TLS_PRIVATE_KEY, KEY_STORE))


def is_first_failure(authority: CertificateAuthority, error: InvalidAuthority) -> bool:
    """Whether a store that has answered until now does not: the CA stays as it is until the next look."""
    status = authority.status
    return (
        error.reason == NOT_READY
        and status.observed_generation == authority.metadata.generation
        and is_true(status.conditions, READY)
        and condition(status.conditions, KEY_STORE_CONDITION) is None
    )


def state_unanswered(error: InvalidAuthority) -> ConditionUpdate:
    """Return the condition that the store does not answer."""
    return ConditionUpdate("False", NOT_READY, str(error), KEY_STORE_CONDITION)


def state_protection(authority: StoredAuthority) -> ConditionUpdate:
    """Return the condition that says whether the key can leave its store."""
    stored = authority.stored
    if stored.exposed is None:
        return ConditionUpdate("True", "Protected", "the key cannot leave its key store", KEY_PROTECTION)
    message = f"{stored.exposed}; that cannot be undone for this key: use a new CA with a key that is protected"
    return ConditionUpdate("False", "NotProtected", message, KEY_PROTECTION)


def _open(authority: CertificateAuthority, store: KeyStore, own: Secret | None, snapshot: Snapshot) -> KeyLocation:
    """Return the location with credentials, if the CA may use the store. Raises InvalidAuthority."""
    namespace = authority.metadata.namespace
    if not snapshot.settings.allows_external_authorities(namespace):
        raise InvalidAuthority(
            "NamespaceNotAllowed",
            f"CAs of namespace {namespace} may not use key stores; an administrator allows it with"
            f" --external-authorities-from {namespace} (in the chart externalAuthorities.from)",
        )
    if store.pkcs11 is not None and store.pkcs11.module not in snapshot.settings.pkcs11_modules:
        raise InvalidAuthority(
            "ModuleNotAllowed",
            f"the module {store.pkcs11.module} may not be loaded; an administrator allows it with --pkcs11-module of"
            " operator and server (in the chart pkcs11Modules)",
        )
    credentials = _credentials(authority, store, snapshot)
    return _pinned(KeyLocation.of(store, credentials), _known_version(authority, own))


def _credentials(authority: CertificateAuthority, store: KeyStore, snapshot: Snapshot) -> Mapping[str, bytes]:
    """What opens the key store, by the names in the Secret of the release namespace. Raises InvalidAuthority."""
    if store.pkcs11 is not None:
        return {PIN: _value(store.pkcs11.pin_secret_ref, authority.metadata.namespace, snapshot)}
    if store.transit is None:
        raise InvalidAuthority("InvalidSpec", "spec.internal.keyStore names no key store that this version knows")
    found = snapshot.ask(GetCredentials(store.transit.login, authority.metadata.uid, authority))
    if not isinstance(found, Mapping):
        raise TypeError("the answer has no credentials")
    return found


def _value(ref: SecretKeyRef, namespace: str, snapshot: Snapshot) -> bytes:
    secret = snapshot.secret(namespace, ref.name)
    value = secret.data.get(ref.key, b"") if secret is not None else b""
    if not value:
        missing = f"has no key {ref.key}" if secret is not None else "does not exist"
        raise InvalidAuthority(
            SECRET_NOT_FOUND,
            f"Secret {ref.name} {missing}; create it with: kubectl create secret generic {ref.name} -n {namespace}"
            f" --from-file={ref.key}=FILE",
        )
    return value


def _known_version(authority: CertificateAuthority, own: Secret | None) -> int | None:
    """The version that the CA has had until now. The operator's Secret counts for more than the status."""
    try:
        location = location_in(own.data) if own is not None else None
    except ValueError:
        location = None
    held = location.store.transit if location is not None else None
    return held.key_version if held is not None else authority.status.key_version


def _pinned(location: KeyLocation, version: int | None) -> KeyLocation:
    transit = location.store.transit
    if transit is None or version is None:
        return location
    store = KeyStore(transit=msgspec.structs.replace(transit, key_version=version))
    return KeyLocation(store, location.credentials)


def _current(
    authority: CertificateAuthority,
    spec: InternalAuthority,
    own: Secret | None,
    key: PrivateKey,
    snapshot: Snapshot,
    *,
    location: KeyLocation,
) -> Signer | None:
    """Return the CA with the certificate that it has. Raises InvalidAuthority (KeyMismatch)."""
    held = own.data.get(TLS_CERTIFICATE, b"") if own is not None else b""
    published = (authority.status.chain or authority.status.certificate or "").encode()
    earlier = (each.data.get(TLS_CERTIFICATE, b"") for each in _kept(authority, spec, snapshot))
    others = 0
    for chain in (held, published, *earlier):
        try:
            signer = load_remote_signer(chain)
        except InvalidAuthority:
            continue
        if signer.key.public_key() == key.public_key():
            return signer.with_key(key)
        others += chain in {held, published}
    if others:
        raise InvalidAuthority(
            KEY_MISMATCH,
            f"{_describe(location)} is another key than that of the CA's certificate, so nothing is signed; restore the"
            " key from a backup of the key store",
        )
    return None


def _kept(authority: CertificateAuthority, spec: InternalAuthority, snapshot: Snapshot) -> Iterator[Secret]:
    """The Secrets of earlier objects of this name that were the same CA."""
    for secret in predecessors(authority, AUTHORITIES, SIGNING_KEY, snapshot):
        try:
            location = location_in(secret.data)
            held = load_remote_signer(secret.data.get(TLS_CERTIFICATE, b""))
        except (InvalidAuthority, ValueError):
            continue
        if location is not None and agrees(held, spec, None):
            yield secret


def _check(found: StoredKey, spec: InternalAuthority, location: KeyLocation) -> None:
    """Raise InvalidAuthority for a key that the CA must not have."""
    wanted = spec.private_key
    if not is_key_of(absent(found.public_key), wanted.algorithm, wanted.size):
        raise InvalidAuthority(
            "InvalidKey",
            f"{_describe(location)} is {key_algorithm(found.public_key)}, which does not fit spec.internal.privateKey;"
            " create another CertificateAuthority whose privateKey says so, or which names another key",
        )
    if reason := weakness(found.public_key):
        raise InvalidAuthority("WeakKey", f"{_describe(location)} must not be used: {reason}")


def _sign(public_key: PublicKey, location: KeyLocation, snapshot: Snapshot, wanted: ToBeSigned) -> bytes:
    signature = _asked(snapshot, SignWith(location, wanted))
    if not isinstance(signature, bytes):
        raise TypeError("the answer is no signature")
    try:
        verify(public_key, wanted, signature)
    except WrongSignature as error:
        raise InvalidAuthority(KEY_MISMATCH, f"{_describe(location)}: {error}") from error
    return signature


def _asked(snapshot: Snapshot, question: FindKey | MakeKey | SignWith) -> Found:
    """Return the answer. Raises InvalidAuthority where the store refuses or does not answer."""
    try:
        return snapshot.ask(question)
    except KeyStoreNotReady as error:
        raise InvalidAuthority(NOT_READY, f"the key store does not answer: {error}") from error
    except KeyStoreRefused as error:
        raise InvalidAuthority(error.reason, str(error)) from error


def _describe(location: KeyLocation) -> str:
    if location.store.pkcs11 is not None:
        return f"the key {location.store.pkcs11.key} of the token {location.store.pkcs11.token}"
    transit: TransitKeyStore | None = location.store.transit
    if transit is None:
        return "the key"
    version = f", version {transit.key_version}," if transit.key_version is not None else ""
    return f"the key {transit.mount_path}/{transit.key}{version} of {transit.server}"
