"""Keys in PKCS #11 tokens, with SoftHSM."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from pkcs11 import PinIncorrect, TokenFlag

from kms.issuers.key_stores import KeyLocation, KeyStoreNotReady, KeyStoreRefused
from kms.issuers.key_stores.pkcs11_tokens import PKCS11Tokens
from kms.pki.certificate import Signer, sign_leaf
from kms.pki.keys import PrivateKey, key_algorithm
from kms.pki.stand_in import ToBeSigned, absent, completed, to_be_signed, verify
from tests.support import pki
from tests.support.softhsm import MODULE, Token, running_token

KEYS = [("ECDSA", 256), ("ECDSA", 384), ("ECDSA", 521), ("RSA", 2048), ("Ed25519", None)]
MESSAGE = ToBeSigned(b"message", "sha384")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    with running_token(tmp_path_factory.mktemp("softhsm")) as token:
        yield token


@pytest.fixture
async def tokens(token: Token) -> AsyncIterator[PKCS11Tokens]:
    tokens = PKCS11Tokens(modules=(MODULE,))
    yield tokens
    await tokens.close()


@pytest.mark.requirement("X57")
@pytest.mark.parametrize(("algorithm", "size"), KEYS)
async def test_a_key_is_made_once_and_signs_a_certificate(
    tokens: PKCS11Tokens, token: Token, algorithm: str, size: int | None
) -> None:
    location = token.location(f"{algorithm}-{size}")
    assert await tokens.find(location) is None
    made = await tokens.make(location, algorithm, size)
    assert made.exposed is None
    assert made == await tokens.find(location)
    assert (key_algorithm(made.public_key) or "").startswith(algorithm)
    signer = Signer(pki.root(with_key=pki.key(algorithm, size)).certificate, absent(made.public_key))
    template = pki.leaf(not_after=pki.NOW + pki.DAY)

    def build(key: PrivateKey) -> object:
        return sign_leaf(template, signer.with_key(key))

    wanted = to_be_signed(build, made.public_key)
    assert completed(build, made.public_key, wanted, await tokens.sign(location, wanted))


async def test_a_long_list_is_signed_in_parts(tokens: PKCS11Tokens, token: Token) -> None:
    location = token.location("lists")
    made = await tokens.make(location, "RSA", 2048)
    wanted = ToBeSigned(bytes(3_000_001), "sha256")
    verify(made.public_key, wanted, await tokens.sign(location, wanted))


@pytest.mark.requirement("X57")
async def test_calls_of_many_tasks_share_one_login_in_one_thread(tokens: PKCS11Tokens, token: Token) -> None:
    location = token.location("shared")
    made = await tokens.make(location, "ECDSA", 256)
    wanted = ToBeSigned(b"message", "sha256")
    before = threading.active_count()
    for signature in await asyncio.gather(*(tokens.sign(location, wanted) for _ in range(20))):
        verify(made.public_key, wanted, signature)
    assert threading.active_count() <= before


@pytest.mark.requirement("X57")
async def test_who_does_not_know_the_pin_does_not_use_the_login_of_others(tokens: PKCS11Tokens, token: Token) -> None:
    location = token.location("guarded")
    made = await tokens.make(location, "ECDSA", 384)
    stranger = token.with_pin("0000").location("guarded")
    for _ in range(2):  # the second time without asking the token, which would lock itself
        with pytest.raises(KeyStoreRefused, match="PIN") as refused:
            await tokens.sign(stranger, MESSAGE)
        assert refused.value.reason == "AuthenticationFailed"
        assert "0000" not in str(refused.value)
    verify(made.public_key, MESSAGE, await tokens.sign(location, MESSAGE))


@pytest.mark.requirement("X57")
async def test_wrong_pins_do_not_lock_the_token_and_the_right_one_stays_good(
    tokens: PKCS11Tokens, token: Token
) -> None:
    location = token.location("locking")
    made, told = await tokens.make(location, "ECDSA", 384), []
    for number in range(20):
        with pytest.raises(KeyStoreRefused, match="PIN") as refused:
            await tokens.sign(token.with_pin(f"{number:04}").location("locking"), MESSAGE)
        told.append(str(refused.value))
        verify(made.public_key, MESSAGE, await tokens.sign(location, MESSAGE))
    assert sum("PinIncorrect" in each for each in told) == 3, "the token was asked"


class Flagged:
    """A module whose token says that it is locked, or about to be; it counts logins."""

    def __init__(self, flag: str) -> None:
        self.flags = TokenFlag.TOKEN_INITIALIZED | (TokenFlag[flag] if flag else TokenFlag(0))
        self.logins = 0

    def get_token(self, **_: str) -> Flagged:
        return self

    def open(self, **_: object) -> object:
        self.logins += 1
        raise PinIncorrect

    def reinitialize(self) -> None:
        """Do nothing."""


@pytest.mark.requirement("X57")
@pytest.mark.parametrize(
    ("flag", "says", "logins"),
    [
        ("USER_PIN_FINAL_TRY", "locks itself with the next wrong PIN, so none is tried", 0),
        ("USER_PIN_LOCKED", "has locked itself after wrong PINs; unlock it", 0),
        ("USER_PIN_COUNT_LOW", "refuses the PIN", 1),
        ("", "refuses the PIN", 1),
    ],
)
async def test_the_last_attempt_at_a_token_is_left_to_people(token: Token, flag: str, says: str, logins: int) -> None:
    """Programs that start anew do not remember what others have tried."""
    module = Flagged(flag)
    for _ in range(3):
        tokens = PKCS11Tokens(modules=(MODULE,), load=lambda _: module)
        with pytest.raises(KeyStoreRefused) as refused:
            await tokens.sign(token.with_pin("0000").location("any"), MESSAGE)
        assert (refused.value.reason, says in str(refused.value)) == ("AuthenticationFailed", True)
        await tokens.close()
    assert module.logins == logins * 3


@pytest.mark.requirement("X57")
async def test_a_session_that_ended_is_opened_again(tokens: PKCS11Tokens, token: Token) -> None:
    import pkcs11  # noqa: PLC0415 - an extra

    location = token.location("again")
    made = await tokens.make(location, "ECDSA", 384)
    # What a module does to its sessions when the device was removed.
    await asyncio.to_thread(pkcs11.lib(MODULE).reinitialize)
    verify(made.public_key, MESSAGE, await tokens.sign(location, MESSAGE))


async def test_only_modules_that_are_allowed_are_loaded(token: Token) -> None:
    for modules in ((), ("/usr/lib/softhsm/../softhsm/libsofthsm2.so",)):
        tokens = PKCS11Tokens(modules=modules)
        with pytest.raises(KeyStoreRefused, match="--pkcs11-module") as refused:
            await tokens.find(token.location("any"))
        assert refused.value.reason == "ModuleNotAllowed"
        await tokens.close()


@pytest.mark.parametrize(("label", "key", "reason"), [("absent", "any", "TokenNotFound"), ("kms", "absent", "KeyLost")])
async def test_what_the_token_lacks_is_named(
    tokens: PKCS11Tokens, token: Token, label: str, key: str, reason: str
) -> None:
    location = Token(label=label, pin=token.pin).location(key)
    with pytest.raises(KeyStoreRefused, match="absent") as refused:
        await tokens.sign(location, MESSAGE)
    assert refused.value.reason == reason


async def test_a_module_that_cannot_be_loaded_is_not_ready() -> None:
    pytest.importorskip("pkcs11")
    tokens = PKCS11Tokens(modules=("/etc/hostname",))
    with pytest.raises(KeyStoreNotReady, match="/etc/hostname"):
        await tokens.find(Token(module="/etc/hostname").location("any"))
    await tokens.close()


async def test_a_module_that_hangs_stops_only_those_that_use_it(token: Token) -> None:
    tokens, location, hung = PKCS11Tokens(modules=(MODULE,), timeout=0.2), token.location("hangs"), threading.Event()
    with pytest.raises(KeyStoreNotReady, match="within"):
        await tokens._call(hung.wait)
    try:
        with pytest.raises(KeyStoreNotReady, match="has not answered"):
            await tokens.find(location)
    finally:
        hung.set()
    await tokens.close()


async def test_more_calls_than_can_wait_fail_at_once(token: Token) -> None:
    tokens = PKCS11Tokens(modules=(MODULE,), maximum_waiting=0)
    with pytest.raises(KeyStoreNotReady, match="waiting"):
        await tokens.find(token.location("any"))


async def test_without_its_credential_a_key_is_not_looked_for(tokens: PKCS11Tokens, token: Token) -> None:
    with pytest.raises(KeyStoreRefused, match="pin"):
        await tokens.find(KeyLocation.of(token.store("any"), {}))


def test_neither_program_loads_what_only_pkcs11_needs() -> None:
    """The image lacks python-pkcs11."""
    program = (
        "import sys, acme_server.main, kms_operator.main;"
        " assert not {'pkcs11', 'asn1crypto'} & set(sys.modules), 'loaded'"
    )
    subprocess.run((sys.executable, "-c", program), check=True, timeout=120)
