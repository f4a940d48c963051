"""The format of a backup: what was written is read again, and nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kms_acme.backup.encryption import (
    CHUNK,
    HIGHEST_COST,
    LOWEST_COST,
    BackupUnreadable,
    Encryptor,
    WrongPassphrase,
    decrypt,
)
from tests.support.operated import entropy

PASSPHRASE = "correct horse battery staple"
FEW = settings(max_examples=25)
"""scrypt takes some milliseconds for each."""
HEADER, CHECKED = 62, 42
"""Octets of the header, and of its part before the checksum."""


def encrypted(*pieces: bytes, passphrase: str = PASSPHRASE, seed: str = "") -> bytes:
    file = io.BytesIO()
    encryptor = Encryptor(passphrase, file.write, entropy=entropy(seed), cost=LOWEST_COST)
    for each in pieces:
        encryptor.add(each)
    encryptor.finish()
    return file.getvalue()


def read(file: bytes, passphrase: str = PASSPHRASE) -> bytes:
    return b"".join(decrypt(io.BytesIO(file), passphrase))


TWO_AND_A_HALF = b"".join(bytes([each]) * CHUNK for each in (1, 2)) + bytes(CHUNK // 2)
FILE = encrypted(TWO_AND_A_HALF)


@pytest.mark.requirement("P6")
@FEW
@given(st.lists(st.integers(0, 2 * CHUNK + 1), max_size=4), st.text(min_size=1, max_size=20))
@example([CHUNK], "ä")
@example([0], "a")
@example([CHUNK - 1, 1, CHUNK], "a")
def test_what_was_written_is_read_again(lengths: list[int], passphrase: str) -> None:
    pieces = [bytes([number]) * length for number, length in enumerate(lengths)]
    file = encrypted(*pieces, passphrase=passphrase)
    assert read(file, passphrase) == b"".join(pieces)
    chunks = max(1, -(-sum(lengths) // CHUNK))
    assert len(file) == HEADER + sum(lengths) + 16 * chunks


@pytest.mark.requirement("P6")
@FEW
@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
@example(len(FILE) - 1, 1)
@example(HEADER, 128)
def test_an_octet_that_was_changed_is_refused(place: int, difference: int) -> None:
    damaged = bytearray(FILE)
    damaged[place] ^= difference
    with pytest.raises(BackupUnreadable) as refused:
        read(bytes(damaged))
    # Damage is no wrong passphrase, unless it hit what tells them apart.
    assert isinstance(refused.value, WrongPassphrase) == (46 <= place < HEADER)


@pytest.mark.requirement("P6")
@FEW
@given(st.integers(0, len(FILE) - 1))
@example(HEADER + CHUNK + 16)
@example(HEADER + 2 * (CHUNK + 16))
@example(HEADER)
def test_a_file_that_was_cut_is_refused(length: int) -> None:
    with pytest.raises(BackupUnreadable) as refused:
        read(FILE[:length])
    assert not isinstance(refused.value, WrongPassphrase)


@pytest.mark.requirement("P6")
@FEW
@given(st.binary(min_size=1, max_size=100))
def test_what_was_appended_is_refused(more: bytes) -> None:
    with pytest.raises(BackupUnreadable):
        read(FILE + more)


@pytest.mark.requirement("P6")
def test_chunks_in_another_order_or_of_another_file_are_refused() -> None:
    first, second = (slice(HEADER + each * (CHUNK + 16), HEADER + (each + 1) * (CHUNK + 16)) for each in (0, 1))
    other = encrypted(TWO_AND_A_HALF, seed="other")
    last = FILE[second.stop :]
    for chunks in (
        FILE[second] + FILE[first] + last,
        FILE[first] + last,
        FILE[first] + FILE[first] + FILE[second] + last,
        other[first] + FILE[second] + last,
    ):
        with pytest.raises(BackupUnreadable, match="is damaged"):
            read(FILE[:HEADER] + chunks)


@pytest.mark.requirement("P6")
def test_another_passphrase_is_told_from_damage() -> None:
    with pytest.raises(WrongPassphrase, match="another passphrase"):
        read(FILE, "correct horse battery stable")


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("cost", [0, LOWEST_COST - 1, HIGHEST_COST + 1, 63, 255])
def test_a_file_cannot_ask_for_more_memory_than_is_accepted(cost: int) -> None:
    begin = bytearray(FILE[:CHECKED])
    begin[17] = cost
    forged = bytes(begin) + struct.pack(">I", zlib.crc32(begin)) + FILE[CHECKED + 4 :]
    with pytest.raises(BackupUnreadable, match="scrypt's N"):
        read(forged)


@pytest.mark.requirement("P6")
def test_a_later_version_is_named() -> None:
    begin = bytearray(FILE[:CHECKED])
    begin[16] = 2
    forged = bytes(begin) + struct.pack(">I", zlib.crc32(begin)) + FILE[CHECKED + 4 :]
    with pytest.raises(BackupUnreadable, match="has version 2 of the format; this program reads version 1"):
        read(forged)


@pytest.mark.requirement("P6")
def test_two_files_of_the_same_share_nothing() -> None:
    assert encrypted(b"same", seed="one")[HEADER:] != encrypted(b"same", seed="two")[HEADER:]
    assert b"same" not in encrypted(b"same")
