"""The format of a backup: a header, then chunks that are encrypted and authenticated one by one.

The header, 62 octets:

    16  "kms-acme backup" and a line feed
     1  version of the format: 1
     1  binary logarithm of scrypt's N (RFC 7914); r is 8, and p is 1
     8  zeros, for later versions
    16  salt
     4  CRC-32 of the 42 octets before it: tells a damaged header from a wrong passphrase
    16  HMAC-SHA256 of the 46 octets before it, cut to 16 octets: tells whether the passphrase is right

scrypt derives 64 octets of the passphrase (UTF-8): 32 for the HMAC, 32 for ChaCha20-Poly1305 (RFC 8439). Each chunk has
64 KiB of plain text and 16 octets of tag; the last may be shorter, and only the last chunk of an empty backup is empty.
The nonce is the number of the chunk (11 octets, from 0), then 1 for the last chunk and 0 for all others, as in age and
STREAM: chunks that are missing, doubled, or in another order are refused. The header is the associated data. The salt
is new for every file, so no key is used with the same nonce twice.
"""

from __future__ import annotations

import hmac
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kms.clock import Entropy

COST: Final = 17
"""scrypt's N is 2 to the power of this: 128 MiB of memory and about half a second for each passphrase that is tried."""
LOWEST_COST, HIGHEST_COST = 10, 18
"""What is accepted in a file: it may not use more than 256 MiB before its passphrase is known to be right."""
CHUNK: Final = 64 * 1024
_MAGIC, _VERSION = b"kms-acme backup\n", 1
_HEADER = struct.Struct(">16sBB8s16s")
_SALT, _MAC, _TAG, _KEY = 16, 16, 16, 32
_HEADER_LENGTH = _HEADER.size + 4 + _MAC
_BLOCK_SIZE, _PARALLELIZATION = 8, 1


class BackupUnreadable(Exception):
    """The file cannot be read; the message is a clause about it."""


class WrongPassphrase(BackupUnreadable):
    """The header is whole, but was made with another passphrase."""


def _derive(passphrase: str, salt: bytes, cost: int) -> tuple[bytes, bytes]:
    scrypt = Scrypt(salt=salt, length=2 * _KEY, n=2**cost, r=_BLOCK_SIZE, p=_PARALLELIZATION)
    derived = scrypt.derive(passphrase.encode())
    return derived[:_KEY], derived[_KEY:]


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")[:_MAC]


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


class Encryptor:
    """Encrypts a backup piece by piece; `write` receives what the file shall contain."""

    def __init__(
        self, passphrase: str, write: Callable[[bytes], object], *, entropy: Entropy, cost: int = COST
    ) -> None:
        salt = entropy(_SALT)
        begin = _HEADER.pack(_MAGIC, _VERSION, cost, bytes(8), salt)
        begin += struct.pack(">I", zlib.crc32(begin))
        mac_key, key = _derive(passphrase, salt, cost)
        self._header = begin + _mac(mac_key, begin)
        self._cipher = ChaCha20Poly1305(key)
        self._write = write
        self._pending = bytearray()
        self._number = 0
        write(self._header)

    def add(self, content: bytes) -> None:
        """Encrypt a piece of any length."""
        self._pending += content
        while len(self._pending) > CHUNK:  # what is left may be the last chunk
            self._encrypt(bytes(self._pending[:CHUNK]), last=False)
            del self._pending[:CHUNK]

    def finish(self) -> None:
        """Write the last chunk."""
        self._encrypt(bytes(self._pending), last=True)
        self._pending.clear()

    def _encrypt(self, content: bytes, *, last: bool) -> None:
        self._write(self._cipher.encrypt(_nonce(self._number, last=last), content, self._header))
        self._number += 1


def decrypt(file: IO[bytes], passphrase: str) -> Iterator[bytes]:
    """The plain text, chunk by chunk.

    Only if the iteration ends without an error, the file is whole. Raises WrongPassphrase and BackupUnreadable.
    """
    header, key = _open(file, passphrase)
    cipher = ChaCha20Poly1305(key)
    number, chunk = 0, file.read(CHUNK + _TAG)
    while True:
        following = file.read(CHUNK + _TAG)
        try:
            content = cipher.decrypt(_nonce(number, last=not following), chunk, header)
        except InvalidTag:
            raise BackupUnreadable("is damaged, or its end is missing: a part does not match its checksum") from None
        if not content and number:
            raise BackupUnreadable("is damaged: its last part is empty")
        yield content
        if not following:
            return
        number, chunk = number + 1, following


def _open(file: IO[bytes], passphrase: str) -> tuple[bytes, bytes]:
    header = file.read(_HEADER_LENGTH)
    if header[: len(_MAGIC)] != _MAGIC:
        raise BackupUnreadable("is no backup of kms-acme, or its beginning is damaged")
    if len(header) < _HEADER_LENGTH:
        raise BackupUnreadable("is damaged: it ends within its header")
    _, version, cost, reserved, salt = _HEADER.unpack_from(header)
    begin, mac = header[:-_MAC], header[-_MAC:]
    if begin[_HEADER.size :] != struct.pack(">I", zlib.crc32(begin[: _HEADER.size])):
        raise BackupUnreadable("is damaged: its header does not match its checksum")
    if version != _VERSION or any(reserved):
        raise BackupUnreadable(f"has version {version} of the format; this program reads version {_VERSION}")
    if not LOWEST_COST <= cost <= HIGHEST_COST:
        raise BackupUnreadable(f"asks for 2^{cost} as scrypt's N; 2^{LOWEST_COST} to 2^{HIGHEST_COST} are accepted")
    mac_key, key = _derive(passphrase, salt, cost)
    if not hmac.compare_digest(_mac(mac_key, begin), mac):
        raise WrongPassphrase("was encrypted with another passphrase")
    return header, key
