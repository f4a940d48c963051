"""What a backup has: objects as the API server had them, without what belongs to that cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from kms.resources.kinds import (
    ACCOUNTS,
    AUTHORITIES,
    CERTIFICATE_CHAINS,
    CREDENTIALS,
    ORDERS,
    POLICIES,
    PROFILES,
    REVOCATION_RECORDS,
    SECRETS,
    Kind,
)
from kms.resources.meta import FreeForm, Key, ObjectMeta, Struct, Time, key_of
from kms.resources.secret_names import COMPONENT, SERVING_AUTHORITY, SIGNING_KEY, VERIFICATION_KEY
from kms_acme.backup.encryption import BackupUnreadable

VERSION: Final = 1
"""Of the contents; the file has a version of its own."""
KEY_COMPONENTS: Final = (SIGNING_KEY, VERIFICATION_KEY, SERVING_AUTHORITY)
MAXIMUM_LINE: Final = 8 * 1024 * 1024
"""Octets of one object in a backup: etcd takes 1.5 MiB."""
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class StoredMeta(ObjectMeta, frozen=True, kw_only=True):
    """Metadata, with the finalizers that other programs have set."""

    finalizers: tuple[str, ...] = ()


class Stored(Struct, frozen=True, kw_only=True):
    """An object of any kind with all of its fields, also those that this release does not know."""

    metadata: StoredMeta
    spec: FreeForm | None = None
    status: FreeForm | None = None
    type: str | None = None
    data: dict[str, str] | None = None

    def __repr__(self) -> str:
        """Name the object, never its contents."""
        return f"Stored({self.metadata.namespace}/{self.metadata.name})"


def _stored(kind: Kind[Any]) -> Kind[Stored]:
    return Kind(kind.group, kind.version, kind.kind, kind.plural, Stored, kind.namespaced)


SECRET = _stored(SECRETS)
AUTHORITY, POLICY = _stored(AUTHORITIES), _stored(POLICIES)
PROFILE, CREDENTIAL = _stored(PROFILES), _stored(CREDENTIALS)
RECORD = _stored(REVOCATION_RECORDS)
ACCOUNT, ORDER, CHAIN = _stored(ACCOUNTS), _stored(ORDERS), _stored(CERTIFICATE_CHAINS)
CONFIGURATION: Final = (POLICY, AUTHORITY, PROFILE, CREDENTIAL)
"""In the order in which a restore creates them."""
INVENTORY: Final = (ACCOUNT, ORDER, CHAIN)
"""In the order in which a backup reads them: an order is written after the chain to which it refers."""
IN_RELEASE_NAMESPACE: Final = (SECRET, RECORD)
_KINDS: Mapping[str, Kind[Stored]] = {each.kind: each for each in (SECRET, *CONFIGURATION, RECORD, *INVENTORY)}


class Header(Struct, frozen=True, kw_only=True):
    """What the first line says: the installation, and whether accounts and orders follow."""

    version: int
    created_at: Time
    namespace: str
    service_name: str
    has_orders: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """An object and its kind."""

    kind: Kind[Stored]
    object: Stored

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return key_of(self.object)

    @property
    def is_internal(self) -> bool:
        """Whether it is in the release namespace, whatever that is called."""
        return self.kind in IN_RELEASE_NAMESPACE

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.kind.kind} {'/'.join(self.key)}"


class _Line(msgspec.Struct, frozen=True):
    kind: str
    object: Stored


_header_decoder = msgspec.json.Decoder(Header)
_line_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def encode_header(header: Header) -> bytes:
    """The first line."""
    return _encoder.encode(header) + b"\n"


def encode_entry(entry: Entry) -> bytes:
    """One object as a line of JSON. Its UID stays: it says which Secret belongs to which CA."""
    metadata = entry.object.metadata
    kept = StoredMeta(
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        labels=metadata.labels,
        annotations={key: value for key, value in metadata.annotations.items() if key != _LAST_APPLIED},
    )
    return _encoder.encode(_Line(entry.kind.kind, msgspec.structs.replace(entry.object, metadata=kept))) + b"\n"


def decode_contents(chunks: Iterable[bytes]) -> Iterator[Header | Entry]:
    """The header, then each object. Raises BackupUnreadable."""
    lines = _lines(chunks)
    try:
        header = _header_decoder.decode(next(lines, b""))
        if header.version != VERSION:
            raise BackupUnreadable(f"has contents of version {header.version}; this program reads version {VERSION}")
        yield header
        for each in lines:
            line = _line_decoder.decode(each)
            kind = _KINDS.get(line.kind)
            if kind is None:
                raise BackupUnreadable(f"has a {line.kind[:64]!r}, which this program does not know")
            entry = Entry(kind, line.object)
            if kind is SECRET and component(entry) not in KEY_COMPONENTS:
                raise BackupUnreadable("has a Secret that is not a key of this program")
            yield entry
    except (msgspec.DecodeError, RecursionError):
        # The error of the decoder may quote what is secret.
        raise BackupUnreadable("has contents that this program does not know") from None


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        *whole, rest = pending.split(b"\n")
        if len(rest) > MAXIMUM_LINE:
            raise BackupUnreadable(f"has an object of more than {MAXIMUM_LINE} octets")
        yield from map(bytes, whole)
        pending = bytearray(rest)
    if pending:
        raise BackupUnreadable("ends within an object")


def component(entry: Entry) -> str:
    """What a Secret is for."""
    return entry.object.metadata.labels.get(COMPONENT, "")
