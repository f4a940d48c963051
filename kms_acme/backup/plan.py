"""What a restore does with each object: create, replace or leave it, or refuse all. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kms.contract import READY
from kms.pki.ca import request_key
from kms.pki.keys import PublicKey, fingerprint
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.kept import DELETED_AT, KEPT_UNTIL
from kms.resources.meta import Key
from kms.resources.secret_names import (
    CERTIFICATE_REQUEST,
    KEY_ID,
    OWNER,
    OWNER_UID,
    SERVING_AUTHORITY,
    SIGNING_KEY,
    TLS_CERTIFICATE,
    TLS_PRIVATE_KEY,
    VERIFICATION_KEY,
    serving_authority_name,
)
from kms_acme.backup.contents import (
    AUTHORITY,
    CREDENTIAL,
    RECORD,
    SECRET,
    Entry,
    Stored,
    component,
)

Verb = Literal["create", "replace", "leave", "refuse"]
Present = Mapping[tuple[str, Key], Stored]
"""The objects of the cluster, by plural, namespace and name."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is done with one object of the backup; `existing` is that of the cluster, `detail` says why, for people."""

    verb: Verb
    entry: Entry
    detail: str = ""
    existing: Stored | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The installation that is restored to: its release namespace and the Service in front of its server."""

    namespace: str
    service_name: str


def move(entry: Entry, target: Target) -> Entry:
    """The object as it is called in another installation."""
    if not entry.is_internal:
        return entry
    metadata = msgspec.structs.replace(entry.object.metadata, namespace=target.namespace)
    if entry.kind is SECRET and component(entry) == SERVING_AUTHORITY:
        metadata = msgspec.structs.replace(metadata, name=serving_authority_name(target.service_name))
    return Entry(entry.kind, msgspec.structs.replace(entry.object, metadata=metadata))


def plan_restore(entries: Iterable[Entry], present: Present, *, target: Target) -> tuple[Step, ...]:
    """Decide about keys, configuration and revocations, in the order in which they are written.

    A key that would replace another one is a step `refuse`: then nothing may be written. The one exception is the key
    of the server's own CA, which every installation makes for itself, so another one is replaced.
    """
    moved = [move(each, target) for each in entries]
    owners = {str(each) for each in moved}
    backup = [_without_deletion(each, owners) for each in moved]
    return tuple(_step(each, backup, present) for each in backup)


def _without_deletion(entry: Entry, owners: AbstractSet[str]) -> Entry:
    """The Secret without the time of its owner's deletion, if the backup has the owner, which a restore creates."""
    metadata = entry.object.metadata
    if entry.kind is not SECRET or metadata.annotations.get(OWNER) not in owners:
        return entry
    annotations = {key: value for key, value in metadata.annotations.items() if key not in {DELETED_AT, KEPT_UNTIL}}
    metadata = msgspec.structs.replace(metadata, annotations=annotations)
    return Entry(entry.kind, msgspec.structs.replace(entry.object, metadata=metadata))


def _step(entry: Entry, backup: list[Entry], present: Present) -> Step:
    existing = present.get((entry.kind.plural, entry.key))
    if entry.kind is SECRET:
        return (
            _step_of_missing_key(entry, backup, present)
            if existing is None
            else _step_of_existing_key(entry, existing, present)
        )
    if existing is None and entry.kind is AUTHORITY and lacks_key(entry, backup):
        return Step("leave", entry, "the backup has no key for it; a manifest of yours creates it with a new key")
    if existing is None:
        return Step("create", entry)
    if entry.kind is RECORD:
        return Step("leave", entry, existing=existing)
    if why := _another_key(entry, existing, backup):
        return Step("refuse", entry, why, existing)
    is_same = existing.spec == entry.object.spec
    return Step("leave" if is_same else "replace", entry, "is the same" if is_same else "its spec differs", existing)


def _step_of_missing_key(entry: Entry, backup: list[Entry], present: Present) -> Step:
    owner, own = entry.object.metadata.annotations.get(OWNER, ""), identify(entry.object)
    if component(entry) == SIGNING_KEY and (held := _held_by_owner(entry, present)):
        return Step("leave", entry, f"Secret {held.metadata.name} has the key of {owner}")
    if strangers := _strangers(entry, backup, present):
        other = strangers[0]
        detail = f"{owner} has another key: Secret {other.metadata.name} has {identify(other)}, the backup {own}"
        return Step("refuse", entry, detail)
    return Step("create", entry, f"{owner}: {own}".removeprefix(": "))


def _step_of_existing_key(entry: Entry, existing: Stored, present: Present) -> Step:
    owner = entry.object.metadata.annotations.get(OWNER, "")
    if _key_material(existing) == _key_material(entry.object):
        return Step("leave", entry, "has the key", existing)
    both = f"the cluster has {identify(existing)}, the backup {identify(entry.object)}"
    if component(entry) == SERVING_AUTHORITY:
        return Step("replace", entry, f"{both}; clients trust the CA of the backup", existing)
    if component(entry) == SIGNING_KEY and _publishes(entry, present):
        return Step("replace", entry, f"{both}, which {owner} has published", existing)
    return Step("refuse", entry, f"another key is there: {both}", existing)


def _held_by_owner(entry: Entry, present: Present) -> Stored | None:
    """The Secret of a later object of the same name that has this key already, after an earlier restore."""
    return next((each for each in _of_owner(entry, present) if identify(each) == identify(entry.object)), None)


def _strangers(entry: Entry, backup: list[Entry], present: Present) -> list[Stored]:
    """The Secrets with keys of the same CA that are not in the backup."""
    if component(entry) != SIGNING_KEY:
        return []
    known = {identify(each.object) for each in backup if each.kind is SECRET}
    return [each for each in _of_owner(entry, present) if identify(each) not in known]


def _of_owner(entry: Entry, present: Present) -> list[Stored]:
    wanted = entry.object.metadata
    return [
        each
        for (plural, (namespace, _)), each in present.items()
        if plural == SECRET.plural
        and namespace == wanted.namespace
        and wanted.annotations.get(OWNER)
        and each.metadata.annotations.get(OWNER) == wanted.annotations.get(OWNER)
        and component(Entry(SECRET, each)) == component(entry)
    ]


def _publishes(entry: Entry, present: Present) -> bool:
    """Whether the CA has published the certificate of the backup's key: the Secret was changed, not the CA."""
    kind, _, path = entry.object.metadata.annotations.get(OWNER, "").partition(" ")
    namespace, _, name = path.partition("/")
    owner = present.get((AUTHORITY.plural, (namespace, name)))
    return kind == AUTHORITY.kind and owner is not None and published_key(owner) == identify(entry.object)


def _another_key(entry: Entry, existing: Stored, backup: list[Entry]) -> str | None:
    if entry.kind is AUTHORITY:
        return _another_authority(entry, existing, backup)
    return _another_credential(entry, existing, backup) if entry.kind is CREDENTIAL else None


def _another_authority(entry: Entry, existing: Stored, backup: list[Entry]) -> str | None:
    own = key_of_authority(entry, backup)
    published = published_key(existing)
    if own is None or published is None or own == published:
        return None
    return (
        f"has another key: the cluster has {published}, the backup {own}; nothing is restored. To restore it, delete"
        " the CertificateAuthority and the Secret with its key first; certificates of that key lose their list"
    )


def _another_credential(entry: Entry, existing: Stored, backup: list[Entry]) -> str | None:
    held = {_text(each.object, KEY_ID) for each in _owned(entry, backup, VERIFICATION_KEY)}
    present = (existing.status or {}).get("keyID")
    if not held or present is None or present in held:
        return None
    return (
        f"has another key: the cluster has {present!r}, the backup {', '.join(map(repr, sorted(held)))}; nothing is"
        " restored. To restore it, delete the EABCredential and its Secret in the release namespace first"
    )


def key_of_authority(entry: Entry, backup: Iterable[Entry]) -> str | None:
    """The key of a CertificateAuthority in the backup, for people; None if it has none there."""
    return next((identify(each.object) for each in _owned(entry, backup, SIGNING_KEY)), None)


def lacks_key(authority: Entry, backup: Iterable[Entry]) -> bool:
    """Whether the CA has had a key in a Secret which the backup does not have: its operator would make another one."""
    internal = _internal(authority)
    return (
        bool(internal)
        and "keyStore" not in internal
        and published_key(authority.object) is not None
        and key_of_authority(authority, backup) is None
    )


def authorities_in_key_stores(entries: Iterable[Entry]) -> list[Entry]:
    """The CAs whose key is in a key store."""
    return [each for each in entries if each.kind is AUTHORITY and "keyStore" in _internal(each)]


def was_ready(entry: Entry) -> bool:
    """Whether the object was Ready when it was backed up."""
    conditions = (entry.object.status or {}).get("conditions") or ()
    return any(each.get("type") == READY and each.get("status") == "True" for each in conditions)


def _internal(authority: Entry) -> Mapping[str, object]:
    internal = (authority.object.spec or {}).get("internal")
    return internal if isinstance(internal, dict) else {}


def _owned(entry: Entry, backup: Iterable[Entry], wanted: str) -> list[Entry]:
    return [
        each
        for each in backup
        if each.kind is SECRET
        and component(each) == wanted
        and each.object.metadata.labels.get(OWNER_UID) == entry.object.metadata.uid
    ]


def published_key(authority: Stored) -> str | None:
    """The key that the status of a CertificateAuthority shows, for people; None if it shows none."""
    status = authority.status or {}
    return _describe(_certified(str(status.get("certificate") or "").encode()) or _requested(status.get("request")))


def identify(secret: Stored) -> str:
    """Which key the Secret has, for people: never a part of what is secret."""
    if KEY_ID in (secret.data or {}):
        return f"the key identifier {_text(secret, KEY_ID)!r}"
    found = (
        _certified(_data(secret, TLS_CERTIFICATE))
        or _private(_data(secret, TLS_PRIVATE_KEY))
        or _requested(_data(secret, CERTIFICATE_REQUEST))
    )
    return _describe(found) or "no key that can be read"


def _describe(key: PublicKey | None) -> str | None:
    return f"the key SHA-256 {fingerprint(key)}" if key is not None else None


def _certified(pem: bytes) -> PublicKey | None:
    try:
        key = x509.load_pem_x509_certificates(pem)[0].public_key()
    except PARSER_ERRORS:
        return None
    return key if isinstance(key, PublicKey) else None


def _private(pem: bytes) -> PublicKey | None:
    try:
        key = load_pem_private_key(pem, None).public_key()
    except (*PARSER_ERRORS, TypeError):
        return None
    return key if isinstance(key, PublicKey) else None


def _requested(pem: object) -> PublicKey | None:
    read = request_key(pem) if isinstance(pem, str | bytes) else None
    return read[1] if read is not None else None


def _key_material(secret: Stored) -> Mapping[str, str]:
    """What makes the Secret's key: a certificate may have been renewed."""
    data = secret.data or {}
    return {key: value for key, value in data.items() if key not in {TLS_CERTIFICATE, CERTIFICATE_REQUEST}}


def _data(secret: Stored, key: str) -> bytes:
    try:
        return base64.b64decode((secret.data or {}).get(key, ""), validate=True)
    except binascii.Error:
        return b""


def _text(secret: Stored, key: str) -> str:
    return _data(secret, key).decode(errors="replace")
