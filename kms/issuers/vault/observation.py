"""Whether a CA of Vault or OpenBao can be used, and its chain. Nothing is signed, and the login is undone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from kms.issuers.vault.client import VaultClient
from kms.issuers.vault.credentials import Credentials
from kms.issuers.vault.errors import (
    BadRequest,
    LoginFailed,
    NotServed,
    PermissionDenied,
    Sealed,
    ServerFailed,
    Unreachable,
    VaultError,
)
from kms.issuers.vault.login import Login, log_in, log_out
from kms.issuers.vault.path import InvalidPath, SigningPath, signing_path
from kms.resources.authorities import VaultAuthority

ObservedReason: TypeAlias = Literal["Observed", "AuthenticationFailed", "Unreachable", "Sealed", "RoleNotFound"]

_CHECK: Final = "sys/capabilities-self"
"""The policy `default` allows it."""
_MAY_UPDATE: Final = frozenset({"update", "create", "root", "sudo"})


@dataclass(frozen=True, slots=True)
class Observation:
    """What a look has found. `chain` is PEM, the issuing CA first; it is empty unless the reason is Observed.

    The message has neither credentials nor what the server says.
    """

    reason: ObservedReason
    message: str
    chain: str = ""


class _Chain(msgspec.Struct, frozen=True):
    certificate: str
    ca_chain: tuple[str, ...] | None = None


class _Role(msgspec.Struct, frozen=True):
    issuer_ref: str = "default"


class _Unusable(Exception):
    def __init__(self, reason: ObservedReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def observe(vault: VaultAuthority, credentials: Credentials, *, client: VaultClient | None = None) -> Observation:
    """Log in, look for the role, read the chain, and revoke the token."""
    client = client or VaultClient(vault)
    try:
        path = signing_path(vault.path)
        login = await log_in(client, vault.auth, credentials)
        try:
            return await _look(_Look(client, login, path, vault.path))
        finally:
            with contextlib.suppress(VaultError):  # batch tokens cannot be revoked, and end by themselves
                await log_out(client, login)
    except _Unusable as unusable:
        return Observation(unusable.reason, str(unusable))
    except InvalidPath as error:
        return Observation("RoleNotFound", str(error))
    except VaultError as error:
        return _failed(vault, error)
    finally:
        await client.close()


def _failed(vault: VaultAuthority, error: VaultError) -> Observation:
    match error:
        case LoginFailed() | PermissionDenied():
            return Observation("AuthenticationFailed", str(error))
        case Sealed():
            return Observation("Sealed", f"{vault.server} is sealed; unseal it")
        case Unreachable():
            return Observation("Unreachable", f"{vault.server} cannot be asked: {error}")
        case _:
            return Observation("RoleNotFound", f"{error}; check spec.external.vault: server, namespace and path")


@dataclass(frozen=True, slots=True)
class _Look:
    client: VaultClient
    login: Login
    path: SigningPath
    sign_path: str


async def _look(look: _Look) -> Observation:
    mount, token = look.path.mount, look.login.token
    allowed = await _capabilities(look)
    if allowed is not None and not allowed[look.sign_path]:
        raise _Unusable("AuthenticationFailed", f"the token may not sign; {_grant(look.sign_path)}")
    role = await _role(look)
    issuer = look.path.issuer or role.issuer_ref
    try:
        reply = await look.client.call("GET", f"{mount}/issuer/{issuer}/json", token=token)
    except (ServerFailed, BadRequest):
        raise _Unusable("RoleNotFound", f"the secrets engine {mount} has no issuer {issuer}") from None
    except NotServed:
        # Vault before 1.11 has one issuer for each engine.
        reply = await look.client.call("GET", f"{mount}/cert/ca_chain", token=token)
    try:
        chain = msgspec.json.decode(reply.data, type=_Chain)
    except msgspec.MsgspecError:
        raise _Unusable("RoleNotFound", f"issuer {issuer} of {mount} has no certificate") from None
    revoke = f"{mount}/revoke"
    message = f"signs by role {look.path.role} of {mount}"
    if allowed is not None and not allowed[revoke]:
        message = f"{message}; the token may not revoke: {_grant(revoke)}"
    blocks = dict.fromkeys(each.strip() for each in (chain.certificate, *(chain.ca_chain or ())) if each.strip())
    return Observation("Observed", message, "".join(f"{each}\n" for each in blocks))


async def _capabilities(look: _Look) -> dict[str, bool] | None:
    """Whether the token may sign and revoke, by path; None if the server does not tell."""
    paths = (look.sign_path, f"{look.path.mount}/revoke")
    try:
        reply = await look.client.call("POST", _CHECK, {"paths": paths}, token=look.login.token)
        found = msgspec.json.decode(reply.data, type=dict[str, tuple[str, ...]])
    except PermissionDenied:
        if look.login.is_own:  # it is valid, and lacks the policy `default`
            return None
        raise _Unusable(
            "AuthenticationFailed", f"the token is not valid, or may not be checked; {_grant(_CHECK)}"
        ) from None
    except (NotServed, BadRequest, msgspec.MsgspecError):
        return None
    if not any(path in found for path in paths):
        return None
    return {path: bool(_MAY_UPDATE.intersection(found.get(path, ()))) for path in paths}


async def _role(look: _Look) -> _Role:
    """The role; that of the default issuer where the token may not read it."""
    name = f"{look.path.mount}/roles/{look.path.role}"
    try:
        reply = await look.client.call("GET", name, token=look.login.token)
        return msgspec.json.decode(reply.data, type=_Role)
    except (PermissionDenied, msgspec.MsgspecError):
        return _Role()
    except NotServed:
        message = f"{name} does not exist; create the role, or correct path or namespace"
        raise _Unusable("RoleNotFound", message) from None


def _grant(path: str) -> str:
    return f'add to its policy: path "{path}" {{ capabilities = ["update"] }}'
