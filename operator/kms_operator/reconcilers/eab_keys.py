"""Keys for external account binding: generating them, and reading those of users (RFC 8555, 7.3.4)."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from josepy.errors import DeserializationError
from josepy.json_util import decode_b64jose, encode_b64jose

from kms.clock import Entropy
from kms.resources.core import Secret
from kms.resources.meta import is_label_value
from kms.resources.secret_names import EAB_SECRET, KEY_ID

MINIMUM_BYTES = 32
"""RFC 7518, 3.2: a key for HS256 has at least the size of the hash."""
MAXIMUM_CHARACTERS = 1024
RECIPE = "make one with: openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\\n'"
KEY_ID_BYTES = 15
_HYPHEN = 62
"""The place of `-` in the alphabet of base64url (RFC 4648, 5)."""
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class InvalidKey(ValueError):
    """What is wrong with a key in a Secret, and how to make a valid one. Never quotes the key."""


@dataclass(frozen=True, slots=True)
class BindingKey:
    """A key identifier and an HMAC key; `secret` is the unpadded base64url text that users see."""

    key_id: str
    secret: str = field(repr=False)

    @property
    def data(self) -> dict[str, bytes]:
        """The two keys of a Secret."""
        return {KEY_ID: self.key_id.encode(), EAB_SECRET: self.secret.encode()}


def new_key(entropy: Entropy) -> BindingKey:
    """Generate a key under a new identifier (120 random bits)."""
    key_id = base64.b32encode(entropy(KEY_ID_BYTES)).decode().lower()
    octets = entropy(MINIMUM_BYTES)
    # People type the secret behind an option of their client, where a leading hyphen makes another option of it.
    while octets[0] >> 2 == _HYPHEN:
        octets = entropy(MINIMUM_BYTES)
    return BindingKey(key_id, encode_b64jose(octets))


def key_in(secret: Secret) -> BindingKey:
    """The key that the Secret holds. Raises InvalidKey with a message for its author."""
    missing = [each for each in (KEY_ID, EAB_SECRET) if each not in secret.data]
    if missing:
        raise InvalidKey(f"it has no key {' and no key '.join(repr(each) for each in missing)}")
    return BindingKey(_key_id(secret.text(KEY_ID)), _secret(secret.text(EAB_SECRET)))


def _key_id(text: str | None) -> str:
    if text is None or not text.isascii():
        raise InvalidKey(f"{KEY_ID!r} is not plain text")
    if text != text.strip():
        raise InvalidKey(f"{KEY_ID!r} has a line break or blanks around it; write it with printf, not with echo")
    if not is_label_value(text):
        raise InvalidKey(
            f"{KEY_ID!r} must be 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"
        )
    return text


def _secret(text: str | None) -> str:
    if text is None or not text.isascii():
        raise InvalidKey(f"{EAB_SECRET!r} is raw bytes; it must be their text in unpadded base64url; {RECIPE}")
    if text != text.strip():
        raise InvalidKey(f"{EAB_SECRET!r} has a line break or blanks around it; {RECIPE}")
    if text.endswith("="):
        raise InvalidKey(f"{EAB_SECRET!r} is padded with '='; {RECIPE}")
    if len(text) > MAXIMUM_CHARACTERS:
        raise InvalidKey(f"{EAB_SECRET!r} is longer than {MAXIMUM_CHARACTERS} characters; {RECIPE}")
    if not _BASE64URL.fullmatch(text) or (decoded := _decode(text)) is None:
        raise InvalidKey(f"{EAB_SECRET!r} is not base64url (letters, digits, '-' and '_'); {RECIPE}")
    if len(decoded) < MINIMUM_BYTES:
        raise InvalidKey(
            f"{EAB_SECRET!r} is {len(decoded)} bytes long, at least {MINIMUM_BYTES} are required; {RECIPE}"
        )
    return text


def _decode(text: str) -> bytes | None:
    try:
        return decode_b64jose(text)
    except DeserializationError:
        return None
