"""Keys of the transit secrets engine of Vault and OpenBao.

Digests are signed, but with Ed25519, which signs messages. The version of the key is part of the location: after a
rotation the engine would sign with another key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kms.issuers.key_stores.base import KeyLocation, KeyStoreNotReady, KeyStoreRefused, StoredKey
from kms.issuers.vault import (
    BadRequest,
    InvalidCredentials,
    LoginFailed,
    NotServed,
    PermissionDenied,
    Reply,
    VaultClient,
    VaultError,
    VaultSession,
    credentials_in,
)
from kms.issuers.vault.client import Method
from kms.pki.keys import PublicKey, key_algorithm
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.stand_in import ToBeSigned
from kms.resources.authorities import TransitKeyStore, VaultServer

T = TypeVar("T")

_CALL_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 900.0
_HASHES: Mapping[str, str] = MappingProxyType({"sha256": "sha2-256", "sha384": "sha2-384", "sha512": "sha2-512"})
_EXPOSING: Mapping[str, str] = MappingProxyType(
    {
        "exportable": "it can be exported (exportable)",
        "allow_plaintext_backup": "it can be read in a backup (allow_plaintext_backup)",
        "deletion_allowed": "it can be deleted (deletion_allowed)",
    }
)


class _Version(msgspec.Struct, frozen=True):
    public_key: str = ""


class _Key(msgspec.Struct, frozen=True):
    type: str
    latest_version: int
    keys: dict[str, _Version | int]
    exportable: bool = False
    allow_plaintext_backup: bool = False
    deletion_allowed: bool = False
    derived: bool = False


class _Signed(msgspec.Struct, frozen=True):
    signature: str


@dataclass(slots=True)
class _Entry:
    session: VaultSession
    used: float


class TransitKeys:
    """Keys of all transit engines. Each server and each set of credentials has a login of its own.

    A call may take `call_seconds`. A login that was not used for `idle_seconds` is given up when another one begins.
    """

    def __init__(
        self,
        *,
        call_seconds: float = _CALL_SECONDS,
        idle_seconds: float = _IDLE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call_seconds = call_seconds
        self._idle_seconds = idle_seconds
        self._monotonic = monotonic
        self._entries: dict[tuple[VaultServer, tuple[tuple[str, bytes], ...]], _Entry] = {}
        self._closing = set[asyncio.Task[None]]()

    def __len__(self) -> int:
        """The number of logins."""
        return len(self._entries)

    async def find(self, location: KeyLocation) -> StoredKey | None:
        """The key, in the version of the location, or else its latest one; None if the engine has none of that name.

        Raises KeyStoreNotReady, and KeyStoreRefused with a reason for a condition.
        """
        store = _store(location)
        try:
            found = _decoded((await self._call(location, "GET", _path(store, "keys"))).data, _Key)
        except NotServed as error:
            if error.words:
                raise KeyStoreRefused(
                    "KeyStoreNotFound",
                    f"{store.server} has no secrets engine at {store.mount_path}, or not in its namespace; correct"
                    " mountPath and namespace of spec.internal.keyStore.transit, or enable the engine there",
                ) from None
            return None
        version = store.key_version or found.latest_version
        exposing = [text for name, text in _EXPOSING.items() if getattr(found, name)]
        exposed = f"the key {store.key} is not protected: {'; '.join(exposing)}" if exposing else None
        return StoredKey(_public_key(found, version, store), version, exposed)

    async def make(self, location: KeyLocation, algorithm: str, size: int | None) -> StoredKey:
        """Make a key that can be neither exported nor deleted. Raises as `find` does."""
        store = _store(location)
        body = {"type": _type(algorithm, size), "exportable": False, "allow_plaintext_backup": False}
        try:
            await self._call(location, "POST", _path(store, "keys"), body)
        except NotServed:
            raise KeyStoreRefused("KeyStoreNotFound", f"{store.server} serves no {_path(store, 'keys')}") from None
        made = await self.find(location)
        if made is None:
            raise KeyStoreNotReady(f"{store.server} does not show the key {store.key} that it has just made")
        return made

    async def sign(self, location: KeyLocation, wanted: ToBeSigned) -> bytes:
        """The signature; in DER with ECDSA. Raises as `find` does."""
        store = _store(location)
        body: dict[str, Any] = {"key_version": store.key_version} if store.key_version is not None else {}
        path = _path(store, "sign")
        if wanted.hash is None:
            body["input"] = base64.b64encode(wanted.message).decode()
        else:
            digest = await asyncio.to_thread(_digest, wanted) if len(wanted.message) > 2**20 else _digest(wanted)
            body |= {
                "input": base64.b64encode(digest).decode(),
                "prehashed": True,
                "marshaling_algorithm": "asn1",
                "signature_algorithm": "pkcs1v15",
            }
            path += f"/{_HASHES[wanted.hash]}"
        try:
            reply = await self._call(location, "POST", path, body)
        except NotServed:
            raise KeyStoreRefused("KeyLost", f"{store.server} has no key {store.key} at {store.mount_path}") from None
        *_, text = _decoded(reply.data, _Signed).signature.split(":")
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            raise KeyStoreNotReady(f"{store.server} returned no signature") from None

    async def close(self) -> None:
        """Revoke all tokens of ours, as far as the servers answer soon."""
        entries, self._entries = list(self._entries.values()), {}
        await asyncio.gather(*(each.session.close() for each in entries), *self._closing)

    async def _call(
        self, location: KeyLocation, method: Method, path: str, body: Mapping[str, Any] | None = None
    ) -> Reply:
        """Call the server. Raises NotServed, KeyStoreNotReady and KeyStoreRefused; no message quotes the server."""
        server = _store(location).server
        try:
            return await self._session(location).call(method, path, body)
        except NotServed:
            raise
        except LoginFailed as error:
            raise KeyStoreRefused("AuthenticationFailed", f"{server}: {error}") from None
        except PermissionDenied as error:
            raise KeyStoreRefused(
                "PermissionDenied", f"{server}: {error}; the token's policy must allow it, or the token has ended"
            ) from None
        except BadRequest as error:
            raise KeyStoreRefused("InvalidKey", f"{server}: {error}; the key cannot sign that, or is gone") from None
        except VaultError as error:
            raise KeyStoreNotReady(f"{server}: {error}") from None

    def _session(self, location: KeyLocation) -> VaultSession:
        store, now = _store(location), self._monotonic()
        server = store.login
        key = server, location.credentials
        if key not in self._entries:
            self._close_idle(now)
            data = dict(location.credentials)
            try:
                credentials = credentials_in(data, store.auth)
            except InvalidCredentials as error:
                raise KeyStoreRefused("AuthenticationFailed", f"the credentials cannot be used: {error}") from None
            client = VaultClient(server, call_seconds=self._call_seconds)
            self._entries[key] = _Entry(VaultSession(server, lambda: credentials, client=client), now)
        entry = self._entries[key]
        entry.used = now
        return entry.session

    def _close_idle(self, now: float) -> None:
        for key in [key for key, each in self._entries.items() if now - each.used > self._idle_seconds]:
            task = asyncio.create_task(self._entries.pop(key).session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _store(location: KeyLocation) -> TransitKeyStore:
    store = location.store.transit
    if store is None:
        raise KeyStoreRefused("InvalidSpec", "the key is in no transit engine")
    return store


def _path(store: TransitKeyStore, what: str) -> str:
    return f"{store.mount_path}/{what}/{store.key}"


def _type(algorithm: str, size: int | None) -> str:
    match algorithm:
        case "RSA":
            return f"rsa-{size or 3072}"
        case "ECDSA":
            return f"ecdsa-p{size or 384}"
        case _:
            return "ed25519"


def _digest(wanted: ToBeSigned) -> bytes:
    return hashlib.new(wanted.hash or "", wanted.message).digest()


def _decoded(data: msgspec.Raw, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise KeyStoreRefused("InvalidKey", "what the server says of the key is not that of a signing key") from None


def _public_key(found: _Key, version: int, store: TransitKeyStore) -> PublicKey:
    """The public key of a version. Raises KeyStoreRefused for one that a CA cannot have."""
    each = found.keys.get(str(version))
    if each is None:
        raise KeyStoreRefused("KeyLost", f"the key {store.key} has no version {version} (any more)")
    text = each.public_key if isinstance(each, _Version) else ""
    key: object = None
    try:
        if found.type == "ed25519" and not found.derived:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
        elif text:
            key = load_pem_public_key(text.encode())
    except (*PARSER_ERRORS, binascii.Error):
        key = None
    if not isinstance(key, PublicKey) or key_algorithm(key) is None:
        raise KeyStoreRefused(
            "InvalidKey",
            f"the key {store.key} is of the type {found.type[:40]}, with which no CA can sign; name another one in"
            " spec.internal.keyStore.transit.key",
        )
    return key
