"""The payloads of requests (RFC 8555, 7.3 to 7.6). Unknown members are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import Meta

from acme_server.jose.decoding import base64url, json_object, malformed
from acme_server.model import RequestedIdentifier, Text

MAXIMUM_IDENTIFIERS = 100
MAXIMUM_CONTACTS = 10


class Payload(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all payloads: immutable, camelCase on the wire."""


T = TypeVar("T", bound=Payload)
MAXIMUM_CERTIFICATE = 32 * 1024
"""Octets of a certificate that is to be revoked: a hundred of the longest names fit."""
_ZERO_TIME = re.compile(r"0001-01-01T00:00:00(\.0+)?(Z|[+-]00:00)")
Time = Annotated[datetime, Meta(tz=True)]
Contacts = Annotated[tuple[Text, ...], Meta(max_length=MAXIMUM_CONTACTS)]


class NewAccount(Payload, frozen=True, kw_only=True):
    """The request for an account (RFC 8555, 7.3). `external_account_binding` is a flattened JWS, not looked at yet."""

    contact: Contacts = ()
    terms_of_service_agreed: bool = False
    only_return_existing: bool = False
    external_account_binding: dict[str, Any] | None = None


class AccountUpdate(Payload, frozen=True, kw_only=True):
    """A change to an account (RFC 8555, 7.3.2, 7.3.6); None: not mentioned."""

    contact: Contacts | None = None
    status: Text | None = None


class NewOrder(Payload, frozen=True, kw_only=True):
    """The request for a certificate (RFC 8555, 7.4).

    `replaces` identifies the certificate that this one comes for (RFC 9773, 5).
    """

    identifiers: Annotated[tuple[RequestedIdentifier, ...], Meta(min_length=1, max_length=MAXIMUM_IDENTIFIERS)]
    not_before: Time | None = None
    not_after: Time | None = None
    profile: Text | None = None
    replaces: Text | None = None


class NewAuthorization(Payload, frozen=True, kw_only=True):
    """The request for an authorization before any order (RFC 8555, 7.4.1)."""

    identifier: RequestedIdentifier


class AuthorizationUpdate(Payload, frozen=True, kw_only=True):
    """A change to an authorization (RFC 8555, 7.5.2); its one use is `deactivated`."""

    status: Text | None = None


class ChallengeResponse(Payload, frozen=True, kw_only=True):
    """The answer to a challenge (RFC 8555, 7.5.1): an object without members of interest."""


class Finalization(Payload, frozen=True, kw_only=True):
    """The request to issue (RFC 8555, 7.4)."""

    csr: str

    def request(self) -> bytes:
        """The CSR in DER. Raises Refused (malformed) if it is not base64url."""
        return base64url(self.csr, "The csr")


class Revocation(Payload, frozen=True, kw_only=True):
    """The request to revoke (RFC 8555, 7.6). `reason` is a code of RFC 5280, 5.3.1; None: the request has none."""

    certificate: str
    reason: int | None = None

    def der(self) -> bytes:
        """The certificate in DER. Raises Refused (malformed) if it is not base64url, or too long to be one."""
        der = base64url(self.certificate, "The certificate")
        if len(der) > MAXIMUM_CERTIFICATE:
            raise malformed(f"The certificate is longer than {MAXIMUM_CERTIFICATE} octets.")
        return der


def without_absent(members: dict[str, Any], type_: type[Payload]) -> dict[str, Any]:
    """The members without those that are optional and say nothing: null, "", and for times Go's zero time.

    Clients whose language has no absent values send these.
    """
    optional = _optional(type_)
    return {
        name: value
        for name, value in members.items()
        if name not in optional
        or not (value is None or value == "" or (optional[name] and _ZERO_TIME.fullmatch(str(value))))
    }


@cache
def _optional(type_: type[Payload]) -> Mapping[str, bool]:
    """The optional members of the type, and whether they are times."""
    fields = (each for each in msgspec.structs.fields(type_) if not each.required)
    return {each.encode_name: Time in get_args(each.type) for each in fields}


def decode(payload: bytes, type_: type[T]) -> T:
    """The payload as a value of that type; see `without_absent`.

    Raises Refused (malformed) that says which member is wrong.
    """
    try:
        return msgspec.convert(without_absent(json_object(payload, "The payload"), type_), type_)
    except msgspec.ValidationError as error:
        raise malformed(f"The payload is not what this resource takes: {error}.") from None
