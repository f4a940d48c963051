"""Values that several parts of the server share: profiles, callers, identifiers and outcomes of validations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, NamedTuple

from josepy.json_util import encode_b64jose
from msgspec import Meta, Struct

from acme_server.jose.decoding import base64url, malformed
from acme_server.jose.jwk import AccountKey
from kms.pki.constraints import Constraints
from kms.pki.policy import Policy
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.meta import LocalRef
from kms.resources.orders import ChallengeType, StoredProblem
from kms.resources.profiles import AcmeEnrollment, CertificateProfile


@dataclass(frozen=True)
class Profile:
    """One ACME directory: what clients may request, which CA signs it, and how clients enroll."""

    resource: CertificateProfile
    policy: Policy
    authority: CertificateAuthority
    acme: AcmeEnrollment
    duration: timedelta
    order_lifetime: timedelta
    authorization_lifetime: timedelta
    constraints: tuple[Constraints, ...] = ()
    """The nameConstraints of the CA and of the CAs above it."""
    chain_end: datetime | None = None
    """When the first certificate of the CA's published chain ends; None without a chain."""
    dormant: bool = False
    """Whether the profile is not ready: it takes no orders and no challenge responses, and opens no account."""

    @property
    def authority_end(self) -> datetime | None:
        """When the CA, or one above it, ends: no certificate of the profile lasts longer. None: not known yet."""
        return min(filter(None, (self.chain_end, self.authority.status.not_after)), default=None)

    @cached_property
    def namespace(self) -> str:
        """The namespace of the profile and of its accounts and orders."""
        return self.resource.metadata.namespace

    @cached_property
    def name(self) -> str:
        """The name of the CertificateProfile."""
        return self.resource.metadata.name

    @cached_property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class OrderProfile:
    """The profile of an order: `profile` has the policy, CA and certificate contents that its name stands for.

    `name` and `contents` are stored in the order. Both are None for the directory's own profile, unless it has a name.
    """

    profile: Profile
    name: str | None = None
    contents: LocalRef | None = None


class Caller(Struct, frozen=True):
    """An account and the profile whose directory it uses."""

    profile: Profile
    account: ACMEAccount


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The sender of a request that brings its own key. It may not have an account."""

    profile: Profile
    key: AccountKey


Text = Annotated[str, Meta(max_length=1024)]
"""Text from a client: longer than any identifier or contact can be, short enough to be no burden."""


class RequestedIdentifier(Struct, frozen=True, kw_only=True):
    """An identifier as the client wrote it, of any type."""

    type: Text
    value: Text


class ChallengeId(NamedTuple):
    """A challenge of an order: the position of its identifier, and its type."""

    position: int
    type: ChallengeType


@dataclass(frozen=True, slots=True)
class Valid:
    """Control of the identifier was proven at `at`, and its CAA records were checked at `caa_checked_at`."""

    at: datetime
    caa_checked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Control was not proven. The problem is shown to the client and quotes no fetched data."""

    problem: StoredProblem


Outcome = Valid | Failed
"""The result of a validation."""


class CertificateId(NamedTuple):
    """Identifies a certificate (RFC 9773, 4.1): the key of its CA and its serial number, both in hexadecimal."""

    authority_key_id: str
    serial_number: str

    def __str__(self) -> str:
        """The identifier as clients write it: two values in base64url with a dot between them."""
        serial = int(self.serial_number, 16)
        octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # DER: a leading zero where the top bit is set
        return f"{encode_b64jose(bytes.fromhex(self.authority_key_id))}.{encode_b64jose(octets)}"


def parse_certificate_id(text: str) -> CertificateId:
    """The identifier that `text` spells.

    Each identifier has one spelling. Raises Refused (malformed) for anything else: padding, other alphabets, a serial
    number that is not the content of a positive DER integer in its shortest form.
    """
    authority, dot, serial = text.partition(".")
    if not dot:
        raise malformed("The certificate identifier lacks its dot: authority key identifier, dot, serial number.")
    key, number = base64url(authority, "The authority key identifier"), base64url(serial, "The serial number")
    top_bit = 0x80
    if not key or not number or number[0] >= top_bit or (number[0] == 0 and (len(number) == 1 or number[1] < top_bit)):
        raise malformed("The certificate identifier has no serial number in the form that certificates have it (DER).")
    return CertificateId(key.hex(), f"{int.from_bytes(number, 'big'):x}")
