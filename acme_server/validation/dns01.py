"""The dns-01 challenge (RFC 8555, 8.4): a TXT record with the digest of the key authorization."""

from __future__ import annotations

import hashlib
import hmac

from josepy.b64 import b64encode

from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import LookupFailed, Records, Resolver
from kms.resources.orders import Identifier

LABEL = "_acme-challenge"


class DNS01:
    """Validates dns-01 challenges, also for the base name of a wildcard."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    @classmethod
    def build(cls, settings: ValidationSettings) -> DNS01:
        """The validator for these settings. Raises OSError and ValueError if they name no usable DNS servers."""
        return cls(Resolver.build(settings.resolvers))

    async def __call__(self, identifier: Identifier, token: str, key_authorization: str) -> None:  # noqa: ARG002 - the token is part of the key authorization
        """Make one attempt. Raises ValidationFailed, which says where the proof was expected and what is wrong.

        Every failure is temporary: the servers of a zone learn of a change one after the other, and a wrong record may
        be that of an earlier order.
        """
        if identifier.type != "dns":
            raise ValidationFailed(ProblemType.MALFORMED, "dns-01 cannot validate IP addresses (RFC 8738, 7).")
        name = f"{LABEL}.{identifier.value}"
        try:
            found = await self._resolver.txt(name)
        except LookupFailed as error:
            raise ValidationFailed(
                ProblemType.DNS, f"The DNS lookup (TXT) of {name} failed: {error}.", temporary=True
            ) from None
        # All are compared, so that the time does not tell which one matches.
        if sum(hmac.compare_digest(each, digest(key_authorization)) for each in found.values):
            return
        raise _failure(name, found)


def digest(key_authorization: str) -> bytes:
    """The value of the record: the digest of the key authorization in base64url, 43 characters."""
    return b64encode(hashlib.sha256(key_authorization.encode("ascii")).digest())


def _failure(name: str, found: Records[bytes]) -> ValidationFailed:
    if not found.name_exists:
        return ValidationFailed(ProblemType.DNS, f"The name {name} does not exist (NXDOMAIN).", temporary=True)
    wanted = "the digest of this challenge's key authorization: SHA-256 in base64url, 43 characters"
    count = len(found.values)
    if not count:
        detail = f"The name {name} has no TXT record; it needs one with {wanted}."
    elif count == 1:
        detail = f"The TXT record of {name} is not {wanted}."
    else:
        detail = f"None of the {count} TXT records of {name} is {wanted}."
    return ValidationFailed(ProblemType.UNAUTHORIZED, detail, temporary=True)
