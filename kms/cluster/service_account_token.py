"""Tokens of ServiceAccounts that a program is to act under without having asked for them itself.

Whoever may, asks the TokenRequest API and hands the token over in a folder that looks like the one in which the kubelet
puts a pod's own. A token is good for an hour and is replaced after a third of its life, so two thirds are left to get
over an API server that is away.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from pathlib import Path

import msgspec

TOKEN_SECONDS = 3600
"""How long a token is asked for; the API server may give less."""
RENEWED_AFTER = 1 / 3
"""The part of its life after which a token is replaced."""

TOKEN, AUTHORITY, NAMESPACE = "token", "ca.crt", "namespace"
"""The files, named as the kubelet names them."""
_POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


class Token(msgspec.Struct, frozen=True, rename="camel"):
    """A token and when it ends. Its repr does not show it."""

    token: str
    expiration_timestamp: datetime

    def __repr__(self) -> str:
        return f"Token(expires {self.expiration_timestamp.isoformat()})"


def hand_over(folder: Path, token: str, *, authority: bytes, namespace: str) -> None:
    """Put a token into the folder. It comes last, so whoever sees it finds the rest. Raises OSError."""
    replace_privately(folder / AUTHORITY, authority)
    replace_privately(folder / NAMESPACE, namespace.encode())
    replace_privately(folder / TOKEN, token.encode())


async def handed_over(folder: Path) -> None:
    """Wait until there is a token in the folder."""
    if not (folder / TOKEN).is_file():
        logger.info("waiting for a token", extra={"folder": str(folder)})
    while not (folder / TOKEN).is_file():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(_POLL_SECONDS)


def replace_privately(path: Path, content: bytes) -> None:
    """Replace a file in one step; nobody but its owner may read it. Raises OSError."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)
