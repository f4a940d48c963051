"""What a login sends, as the operator hands it to the server in a Secret of the release namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kms.resources.authorities import VaultAuth
from kms.resources.secret_names import VAULT_JWT, VAULT_ROLE_ID, VAULT_SECRET_ID, VAULT_TOKEN


class InvalidCredentials(ValueError):
    """The Secret lacks what the login needs. The message does not quote it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A ServiceAccount's token, a secret ID or a token: the one that the auth method takes. Its repr shows neither."""

    jwt: str = field(default="", repr=False)
    secret_id: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not appear in any message."""
        return tuple(filter(None, (self.jwt, self.secret_id, self.token)))


def credentials_in(data: Mapping[str, bytes], auth: VaultAuth) -> Credentials:
    """The credentials in the data of a Secret, for this way to log in. Raises InvalidCredentials."""
    if auth.kubernetes is not None:
        return Credentials(jwt=_text(data, VAULT_JWT))
    if auth.app_role is not None:
        if _text(data, VAULT_ROLE_ID) != auth.app_role.role_id:
            raise InvalidCredentials("the credentials are for another role ID")
        return Credentials(secret_id=_text(data, VAULT_SECRET_ID))
    return Credentials(token=_text(data, VAULT_TOKEN))


def _text(data: Mapping[str, bytes], key: str) -> str:
    """A value that can stand in a header: visible ASCII, without the line break that editors add at the end."""
    try:
        value = data[key].decode("ascii").strip()
    except KeyError:
        raise InvalidCredentials(f"key {key} is missing") from None
    except UnicodeDecodeError:
        raise InvalidCredentials(f"key {key} is not ASCII") from None
    if not value or not value.isprintable() or " " in value:
        raise InvalidCredentials(f"key {key} is empty, or has characters that no token has")
    return value
