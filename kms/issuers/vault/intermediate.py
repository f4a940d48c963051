"""The certificate of a CA below one of Vault or OpenBao: `root/sign-intermediate` of the PKI secrets engine.

That path asks no role. Whoever may call it can make any CA, so the token needs a policy of its own for it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from kms.issuers.vault.client import VaultClient
from kms.issuers.vault.credentials import Credentials
from kms.issuers.vault.path import SigningPath, signing_path
from kms.issuers.vault.session import VaultSession
from kms.resources.authorities import VaultAuthority


class _Signed(msgspec.Struct, frozen=True):
    certificate: str
    ca_chain: tuple[str, ...] | None = None


class NoCertificate(ValueError):
    """The answer has no certificate."""


def intermediate_path(path: SigningPath) -> str:
    """The path that signs CAs with the issuer that `path` signs with."""
    return f"{path.mount}/{'root' if path.issuer is None else f'issuer/{path.issuer}'}/sign-intermediate"


async def sign_intermediate(
    vault: VaultAuthority,
    credentials: Credentials,
    *,
    request: str,
    common_name: str,
    duration: timedelta,
    path_length: int | None,
    client: VaultClient | None = None,
) -> str:
    """Log in, have a certificate request (PEM) signed, and log out. Returns certificates in PEM, the new one first.

    The engine takes subject, usages and name constraints from the request, but not its path length, and shortens the
    duration without a word. Raises VaultError, NoCertificate and InvalidPath.
    """
    session = VaultSession(vault, lambda: credentials, client=client)
    body: dict[str, Any] = {
        "csr": request,
        "common_name": common_name,
        "use_csr_values": True,
        "ttl": f"{int(duration.total_seconds())}s",
        "format": "pem",
        **({"max_path_length": path_length} if path_length is not None else {}),
    }
    try:
        reply = await session.call("POST", intermediate_path(signing_path(vault.path)), body)
    finally:
        await session.close()
    try:
        signed = msgspec.json.decode(reply.data, type=_Signed)
    except msgspec.MsgspecError:
        raise NoCertificate("the answer has no certificate") from None
    # The engine repeats the certificate at the beginning of the chain.
    blocks = dict.fromkeys(each.strip() for each in (signed.certificate, *(signed.ca_chain or ())) if each.strip())
    return "".join(f"{each}\n" for each in blocks)
