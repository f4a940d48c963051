"""Tokens of ServiceAccounts that one program requests for another.

The operator requests a token for the server (TokenRequest API), and writes it to a folder with the same files as the
folder in which the kubelet puts a pod's own token. A token is valid for an hour and is replaced after a third of that,
so two thirds are left to survive an API server that does not answer.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from pathlib import Path

import msgspec

TOKEN_SECONDS = 3600
"""The lifetime that is requested; the API server may grant less."""
RENEWED_AFTER = 1 / 3
"""The share of its lifetime after which a token is replaced."""

TOKEN, AUTHORITY, NAMESPACE = "token", "ca.crt", "namespace"
"""The files, named as the kubelet names them."""

logger = logging.getLogger(__name__)


class Token(msgspec.Struct, frozen=True, rename="camel"):
    """A token and when it ends. Its repr does not show it."""

    token: str
    expiration_timestamp: datetime

    def __repr__(self) -> str:
        return f"Token(expires {self.expiration_timestamp.isoformat()})"


def hand_over(folder: Path, token: str, *, authority: bytes, namespace: str) -> None:
    """Write a token to the folder, after the other files: a reader who finds it finds all. Raises OSError."""
    replace_privately(folder / AUTHORITY, authority)
    replace_privately(folder / NAMESPACE, namespace.encode())
    replace_privately(folder / TOKEN, token.encode())


async def wait_for_token(folder: Path, *, poll: float = 0.1) -> None:
    """Wait until the folder has a token."""
    if not (folder / TOKEN).is_file():
        logger.info("waiting for a token", extra={"folder": str(folder)})
    while not (folder / TOKEN).is_file():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(poll)


def replace_privately(path: Path, content: bytes) -> None:
    """Replace a file atomically by one that only its owner may read. Raises OSError."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)
