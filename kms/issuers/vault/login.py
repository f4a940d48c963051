"""Logging in to Vault or OpenBao, and out again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from kms.issuers.vault.client import VaultClient
from kms.issuers.vault.credentials import Credentials
from kms.issuers.vault.errors import BadRequest, LoginFailed, NotServed, PermissionDenied, ServerFailed, Unreachable
from kms.resources.authorities import VaultAuth


@dataclass(frozen=True, slots=True)
class Login:
    """A token. `lease` is how long it is valid; None: it does not end, or nobody knows.

    `is_own`: it comes from a login of ours, so we may revoke it. Its repr does not show it.
    """

    token: str = field(repr=False)
    lease: timedelta | None = None
    is_own: bool = False


async def log_in(client: VaultClient, auth: VaultAuth, credentials: Credentials) -> Login:
    """Log in; without a call where the credentials are a token.

    Raises LoginFailed if the server refuses, and Unreachable if it cannot be asked: never as ambiguous, since whatever
    the login is for has not been sent.
    """
    if auth.kubernetes is not None:
        path = f"auth/{auth.kubernetes.mount_path}/login"
        body = {"role": auth.kubernetes.role, "jwt": credentials.jwt}
        role = f"role {auth.kubernetes.role}"
        fix = "it must exist, and allow the ServiceAccount, its namespace and the audience kms-acme://NAMESPACE/NAME"
    elif auth.app_role is not None:
        path = f"auth/{auth.app_role.mount_path}/login"
        body = {"role_id": auth.app_role.role_id, "secret_id": credentials.secret_id}
        role = "the role ID"
        fix = "check roleID and mountPath, and whether the secret ID has ended"
    else:
        return Login(credentials.token)
    try:
        reply = await client.call("POST", path, body, secrets=credentials.secrets)
    except (BadRequest, PermissionDenied, NotServed) as error:
        # Not what the server says: it may quote what it was sent.
        raise LoginFailed(f"{error}: the server refuses the login with {role}; {fix}") from None
    except ServerFailed as error:  # it may be that the server cannot reach the API server for now
        raise Unreachable(f"{error} at the login") from None
    except Unreachable as error:
        error.is_ambiguous = False
        raise
    if reply.auth is None or not reply.auth.client_token:
        raise LoginFailed(f"POST {path}: the answer has no token (the role may require a second factor)")
    seconds = reply.auth.lease_duration
    return Login(reply.auth.client_token, timedelta(seconds=seconds) if seconds > 0 else None, is_own=True)


async def log_out(client: VaultClient, login: Login) -> None:
    """Revoke the token if it comes from a login of ours. Raises VaultError; batch tokens cannot be revoked."""
    if login.is_own:
        await client.call("POST", "auth/token/revoke-self", token=login.token)
