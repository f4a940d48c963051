"""Keys in PKCS #11 tokens, such as those of hardware security modules.

A process logs in once for each token: the login is that of the process, so a second one fails. All calls of all modules
run in one thread, one after the other, since modules differ in what they allow. python-pkcs11 is imported when the
first key is used: it is an extra (`kms-acme[pkcs11]`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kms.issuers.key_stores.base import KeyLocation, KeyStoreNotReady, KeyStoreRefused, StoredKey
from kms.pki.keys import PublicKey, key_algorithm
from kms.pki.stand_in import ToBeSigned
from kms.resources.authorities import PKCS11KeyStore
from kms.resources.secret_names import PIN

T = TypeVar("T")

logger = logging.getLogger(__name__)

_CURVES: Final = {256: "secp256r1", 384: "secp384r1", 521: "secp521r1"}
_ED25519: Final = bytes.fromhex("06032b6570")
"""The curve as CKA_EC_PARAMS: its object identifier (RFC 8410, 3)."""
_ED25519_OCTETS: Final = 32
_PART: Final = 16_384
"""Octets that are handed to a token at once; some take no more."""
_NEW_LOGIN: Final = frozenset(
    {
        "DeviceError",
        "DeviceMemory",
        "DeviceRemoved",
        "FunctionFailed",
        "GeneralError",
        "KeyHandleInvalid",
        "ObjectHandleInvalid",
        "OperationActive",
        "SessionClosed",
        "SessionCount",
        "SessionHandleInvalid",
        "TokenNotPresent",
        "UserNotLoggedIn",
    }
)
"""Errors after which the module is initialised again, and the call repeated once."""
_WRONG_PIN: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked", "PinExpired"})


@dataclass(slots=True)
class _Login:
    """A session that is logged in, with the private keys that were found in it, by label."""

    session: Any
    pin: bytes = field(repr=False)
    keys: dict[str, Any] = field(default_factory=dict, repr=False)


class PKCS11Tokens:
    """The tokens of all modules. Only `modules` may be loaded, by these very paths.

    A call that takes longer than `timeout` seconds fails, and others with it until it has ended. More than
    `maximum_waiting` calls fail at once. Tokens lock themselves after a few wrong PINs: one that was refused is not
    tried again, and after `maximum_refused` of them only the PIN that was right before. Nor is any other PIN tried at a
    token that says that one more wrong one locks it.

    `load` loads a module by its path; by default python-pkcs11 does.
    """

    def __init__(
        self,
        *,
        modules: Collection[str],
        timeout: float = 10.0,
        maximum_waiting: int = 200,
        maximum_refused: int = 3,
        timer: Callable[[], float] = time.monotonic,
        load: Callable[[str], Any] | None = None,
    ) -> None:
        self._load = load or _load
        self._modules = frozenset(modules)
        self._timeout = timeout
        self._maximum_waiting = maximum_waiting
        self._maximum_refused = maximum_refused
        self._timer = timer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pkcs11")
        self._waiting = 0
        self._began: float | None = None
        self._logins: dict[tuple[str, str], _Login] = {}
        self._accepted: dict[tuple[str, str], bytes] = {}
        self._refused: dict[tuple[str, str], set[bytes]] = {}

    async def find(self, location: KeyLocation) -> StoredKey | None:
        """The key pair with that label; None if the token has none.

        Raises KeyStoreNotReady, and KeyStoreRefused with a reason for a condition.
        """
        store, pin = _opened(location)
        return await self._call(lambda: self._with_login(store, pin, lambda login: _find(login, store)))

    async def make(self, location: KeyLocation, algorithm: str, size: int | None) -> StoredKey:
        """Make a key pair in the token, which cannot leave it. Raises as `find` does."""
        store, pin = _opened(location)
        return await self._call(lambda: self._with_login(store, pin, lambda each: _make(each, store, algorithm, size)))

    async def sign(self, location: KeyLocation, wanted: ToBeSigned) -> bytes:
        """The signature; in DER with ECDSA. Raises as `find` does."""
        store, pin = _opened(location)
        return await self._call(lambda: self._with_login(store, pin, lambda login: _sign(login, store, wanted)))

    async def close(self) -> None:
        """Log out of all tokens, as far as they answer in time."""
        with suppress(KeyStoreNotReady, KeyStoreRefused):
            await self._call(self._log_out)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _call(self, work: Callable[[], T]) -> T:
        """Run in the one thread."""
        began = self._began
        if began is not None and self._timer() - began > self._timeout:
            raise KeyStoreNotReady(f"the PKCS #11 module has not answered a call for {self._timeout:g} s")
        if self._waiting >= self._maximum_waiting:
            raise KeyStoreNotReady(f"{self._waiting} calls are waiting for the PKCS #11 module already")
        self._waiting += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, self._timed, work)
            async with asyncio.timeout(self._timeout):
                return await future
        except TimeoutError:
            raise KeyStoreNotReady(f"the PKCS #11 module did not answer within {self._timeout:g} s") from None
        finally:
            self._waiting -= 1

    def _timed(self, work: Callable[[], T]) -> T:
        self._began = self._timer()
        try:
            return work()
        finally:
            self._began = None

    def _with_login(self, store: PKCS11KeyStore, pin: bytes, act: Callable[[_Login], T]) -> T:
        """Run `act` with a login, and once more after a failure of the device or of the session."""
        pkcs11 = self._imported(store)
        try:
            try:
                return act(self._login(store, pin))
            except pkcs11.PKCS11Error as error:
                if type(error).__name__ not in _NEW_LOGIN:
                    raise
                logger.warning("logging in to the PKCS #11 token again", extra={"error": _describe(error)})
            self._reinitialize(store.module)
            return act(self._login(store, pin))
        except pkcs11.PKCS11Error as error:
            self._logins.pop((store.module, store.token), None)
            raise _translated(error, store) from None

    def _imported(self, store: PKCS11KeyStore) -> Any:
        """python-pkcs11. Raises KeyStoreRefused where it is not installed, or the module may not be loaded."""
        if store.module not in self._modules:
            raise KeyStoreRefused(
                "ModuleNotAllowed",
                f"the PKCS #11 module {store.module} may not be loaded; an administrator allows it with"
                " --pkcs11-module of operator and server",
            )
        try:
            import pkcs11  # noqa: PLC0415 - an extra
        except ImportError:
            raise KeyStoreRefused(
                "ModuleNotAllowed", "python-pkcs11 is not installed; install kms-acme[pkcs11]"
            ) from None
        return pkcs11

    def _login(self, store: PKCS11KeyStore, pin: bytes) -> _Login:
        """The login of this process. The PIN is compared: whoever names a token must know its PIN."""
        import pkcs11  # noqa: PLC0415 - an extra

        place = store.module, store.token
        digest, refused = hashlib.sha256(pin).digest(), self._refused.setdefault(place, set())
        if digest in refused or (len(refused) >= self._maximum_refused and digest != self._accepted.get(place)):
            raise KeyStoreRefused(
                "AuthenticationFailed",
                f"the token {store.token} has refused this PIN before, or others; correct the Secret of pinSecretRef,"
                " and restart the program if it was wrong several times",
            )
        known = self._logins.get(place)
        if known is not None and hmac.compare_digest(known.pin, pin):
            return known
        if known is not None:
            del self._logins[place]
            with suppress(pkcs11.PKCS11Error):
                known.session.close()
        token = self._load(store.module).get_token(token_label=store.token)
        if digest != self._accepted.get(place) and (problem := _locking(token, store)):
            raise KeyStoreRefused("AuthenticationFailed", problem)
        try:
            session = token.open(rw=True, user_pin=pin.decode("utf-8", "replace"))
        except pkcs11.PKCS11Error as error:
            if type(error).__name__ in _WRONG_PIN:
                refused.add(digest)
            raise
        self._accepted[place] = digest
        login = self._logins[place] = _Login(session, pin)
        return login

    def _reinitialize(self, module: str) -> None:
        """Finalise and initialise the module: it then looks for its tokens again."""
        import pkcs11  # noqa: PLC0415 - an extra

        for place in [each for each in self._logins if each[0] == module]:
            login = self._logins.pop(place)
            login.keys.clear()
            with suppress(pkcs11.PKCS11Error):
                login.session.close()
        self._load(module).reinitialize()

    def _log_out(self) -> None:
        for login in self._logins.values():
            login.keys.clear()
            with suppress(RuntimeError):  # what all errors of python-pkcs11 are
                login.session.close()
        self._logins.clear()


def _load(module: str) -> Any:
    import pkcs11  # noqa: PLC0415 - an extra

    return pkcs11.lib(module)


def _locking(token: Any, store: PKCS11KeyStore) -> str | None:
    """Why no PIN is tried at this token: it is locked, or is with the next wrong one; None: it may be tried."""
    from pkcs11 import TokenFlag  # noqa: PLC0415 - an extra

    if token.flags & TokenFlag.USER_PIN_LOCKED:
        return f"the token {store.token} has locked itself after wrong PINs; unlock it with the tools of its vendor"
    if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
        return (
            f"the token {store.token} locks itself with the next wrong PIN, so none is tried; log in with the right PIN"
            " and the tools of its vendor"
        )
    return None


def _opened(location: KeyLocation) -> tuple[PKCS11KeyStore, bytes]:
    store = location.store.pkcs11
    if store is None:
        raise KeyStoreRefused("InvalidSpec", "the key is in no PKCS #11 token")
    return store, location.credential(PIN).rstrip(b"\r\n")


def _find(login: _Login, store: PKCS11KeyStore) -> StoredKey | None:
    import pkcs11  # noqa: PLC0415 - an extra

    try:
        private = login.session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=store.key)
    except pkcs11.NoSuchKey:
        return None
    try:
        public = login.session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=store.key)
    except pkcs11.NoSuchKey:
        raise KeyStoreRefused(
            "InvalidKey",
            f"the token {store.token} has a private key {store.key}, but no public key of that label; store it, too",
        ) from None
    login.keys[store.key] = private
    return StoredKey(_public_key(public, store), exposed=_exposed(private, store))


def _make(login: _Login, store: PKCS11KeyStore, algorithm: str, size: int | None) -> StoredKey:
    import pkcs11  # noqa: PLC0415 - an extra
    from pkcs11.util.ec import encode_named_curve_parameters  # noqa: PLC0415 - likewise

    options: dict[str, Any] = {
        "store": True,
        "label": store.key,
        "id": secrets.token_bytes(8),
        "private_template": {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
    }
    match _size(algorithm, size):
        case "RSA", octets:
            login.session.generate_keypair(pkcs11.KeyType.RSA, octets, **options)
        case "ECDSA", octets:
            parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVES[octets])}
            curve = login.session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
            curve.generate_keypair(**options)
        case _:
            parameters = {pkcs11.Attribute.EC_PARAMS: _ED25519}
            curve = login.session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, parameters, local=True)
            curve.generate_keypair(mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **options)
    made = _find(login, store)
    if made is None:
        raise KeyStoreNotReady(f"the token {store.token} does not show the key {store.key} that it has just made")
    return made


def _size(algorithm: str, size: int | None) -> tuple[str, int]:
    """The algorithm with its size; the default where there is none."""
    if algorithm == "RSA":
        return algorithm, size or 3072
    return algorithm, size or 384


def _sign(login: _Login, store: PKCS11KeyStore, wanted: ToBeSigned) -> bytes:
    import pkcs11  # noqa: PLC0415 - an extra
    from pkcs11.util.ec import encode_ecdsa_signature  # noqa: PLC0415 - likewise

    key = login.keys.get(store.key)
    if key is None:
        key = login.session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=store.key)
        login.keys[store.key] = key
    signature: bytes
    if wanted.hash is None:
        signature = key.sign(wanted.message, mechanism=pkcs11.Mechanism.EDDSA)
    elif key.key_type == pkcs11.KeyType.RSA:
        mechanism = pkcs11.Mechanism[f"{wanted.hash.upper()}_RSA_PKCS"]
        is_long = len(wanted.message) > _PART
        signature = key.sign(_parts(wanted.message) if is_long else wanted.message, mechanism=mechanism)
    else:
        digest = hashlib.new(wanted.hash, wanted.message).digest()
        signature = encode_ecdsa_signature(key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA))
    return signature


def _parts(message: bytes) -> Iterator[bytes]:
    return (message[at : at + _PART] for at in range(0, len(message), _PART))


def _public_key(key: Any, store: PKCS11KeyStore) -> PublicKey:
    import pkcs11  # noqa: PLC0415 - an extra
    from pkcs11.util.ec import encode_ec_public_key  # noqa: PLC0415 - likewise
    from pkcs11.util.rsa import encode_rsa_public_key  # noqa: PLC0415 - likewise

    found: object = None
    with suppress(ValueError, TypeError):
        if key.key_type == pkcs11.KeyType.RSA:
            found = load_der_public_key(encode_rsa_public_key(key))
        elif key.key_type == pkcs11.KeyType.EC:
            found = load_der_public_key(encode_ec_public_key(key))
        elif key.key_type == pkcs11.KeyType.EC_EDWARDS:
            # An OCTET STRING or, with some modules, its contents.
            found = Ed25519PublicKey.from_public_bytes(key[pkcs11.Attribute.EC_POINT][-_ED25519_OCTETS:])
    if not isinstance(found, PublicKey) or key_algorithm(found) is None:
        raise KeyStoreRefused(
            "InvalidKey",
            f"the key {store.key} of the token {store.token} is neither RSA, nor ECDSA on P-256, P-384 or P-521, nor"
            " Ed25519; name another one in spec.internal.keyStore.pkcs11.key",
        )
    return found


def _exposed(private: Any, store: PKCS11KeyStore) -> str | None:
    import pkcs11  # noqa: PLC0415 - an extra

    if private[pkcs11.Attribute.EXTRACTABLE]:
        return f"the key {store.key} is extractable: it can be taken out of the token (CKA_EXTRACTABLE)"
    if not private[pkcs11.Attribute.SENSITIVE]:
        return f"the key {store.key} can be read in the clear (CKA_SENSITIVE is false)"
    return None


def _translated(error: Exception, store: PKCS11KeyStore) -> Exception:
    """The error as one of a key store. Messages of modules do not quote PINs, but ours do not quote them either."""
    name = type(error).__name__
    if name in _WRONG_PIN:
        return KeyStoreRefused(
            "AuthenticationFailed",
            f"the token {store.token} refuses the PIN ({name}); correct the Secret of pinSecretRef",
        )
    if name == "NoSuchToken":
        return KeyStoreRefused("TokenNotFound", f"the module {store.module} has no token with the label {store.token}")
    if name == "NoSuchKey":
        return KeyStoreRefused("KeyLost", f"the token {store.token} has no key with the label {store.key}")
    if name in {"MultipleObjectsReturned", "MultipleTokensReturned"}:
        return KeyStoreRefused(
            "InvalidKey", f"several tokens have the label {store.token}, or several keys the label {store.key}"
        )
    if name in {"MechanismInvalid", "MechanismParamInvalid", "KeySizeRange", "DomainParamsInvalid"}:
        return KeyStoreRefused(
            "InvalidKey", f"the token {store.token} does not support keys of that algorithm and size ({name})"
        )
    return KeyStoreNotReady(f"the module {store.module} failed: {_describe(error)}")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
