"""One request to a receiver.

It goes through the guarded connector, as validation does: one lookup, checked addresses, a bounded handshake. The
certificate of the receiver is verified. No redirect is followed, and of the answer only its head is read. What is told
of a failure names its kind, and neither addresses nor anything that came over the wire.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from acme_server.notifications.receivers import Receiver
from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.connector import Connector, Destination, TLSOptions
from acme_server.validation.net.http_client import Exchange, InvalidResponse
from kms.tls_groups import CLIENT_GROUPS, restrict_key_exchange

DEADLINE: Final = 10.0
"""Seconds for one request: lookup, connection and answer."""
_CONTEXTS: Final = 64
_REASONS = {
    ProblemType.DNS.value: "its name could not be looked up",
    ProblemType.TLS.value: "the TLS handshake failed, or its certificate could not be verified",
}
_NOT_ALLOWED = "it has no address that may be contacted (--validation-allow and --validation-deny of the server)"
_MAXIMUM_WAIT: Final = 3_600


FailureReason = Literal["Failing", "ReceiverNotAllowed"]


class NotDelivered(Exception):
    """The receiver did not take the event. `final`: it never will; `retry_after` is what it asks for, in seconds."""

    def __init__(
        self, message: str, *, final: bool = False, retry_after: int = 0, reason: FailureReason = "Failing"
    ) -> None:
        super().__init__(message)
        self.reason: FailureReason = reason
        self.final = final
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Poster:
    """Sends requests. Contexts of TLS are kept for the CA bundles that were used last."""

    connector: Connector
    deadline: float
    contexts: OrderedDict[str | None, ssl.SSLContext]

    @classmethod
    def build(cls, settings: ValidationSettings, *, deadline: float = DEADLINE) -> Poster:
        """Send over the network, to addresses that validation may contact."""
        connector = Connector(resolver=Resolver.build(settings.resolvers), addresses=AddressFilter(settings))
        return cls(connector, deadline, OrderedDict())

    async def __call__(self, receiver: Receiver, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Post the body. Raises NotDelivered."""
        try:
            async with asyncio.timeout(self.deadline):
                status, retry_after = await self._post(receiver, headers, body)
        except TimeoutError:
            raise NotDelivered("it did not answer in time") from None
        except ValidationFailed as error:
            if error.problem.type == ProblemType.CONNECTION.value and not error.temporary:
                raise NotDelivered(_NOT_ALLOWED, reason="ReceiverNotAllowed") from None
            raise NotDelivered(_REASONS.get(error.problem.type, "there was no connection")) from None
        except (OSError, EOFError, InvalidResponse):
            raise NotDelivered("its answer is no HTTP response") from None
        check_status(status, retry_after)

    async def _post(
        self, receiver: Receiver, headers: Sequence[tuple[str, str]], body: bytes
    ) -> tuple[int, bytes | None]:
        target = receiver.target
        destination = Destination(target.name, target.port, "the receiver", hidden=True)
        tls = TLSOptions(await self._context(receiver.ca_bundle), target.name.value)
        exchange = Exchange(target.host, target.path, method="POST", agent="kms-acme", headers=headers, body=body)
        with await self.connector.connect(destination, tls) as connection:
            return await exchange.read_status(connection.send_request(exchange.request))

    async def _context(self, ca_bundle: str | None) -> ssl.SSLContext:
        context = self.contexts.get(ca_bundle)
        if context is None:
            context = await asyncio.to_thread(_verifying, ca_bundle)  # it reads all roots of the image
        self.contexts[ca_bundle] = context
        self.contexts.move_to_end(ca_bundle)
        if len(self.contexts) > _CONTEXTS:
            self.contexts.popitem(last=False)
        return context


def check_status(status: int, retry_after: bytes | None) -> None:
    """Accept 2xx. Raises NotDelivered for anything else; 400, 413 and 422 refuse the event itself, for good."""
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
        return
    wait = int(retry_after) if retry_after is not None and retry_after.isdigit() and len(retry_after) < 6 else 0  # noqa: PLR2004
    raise NotDelivered(
        f"it answered with status {status}", final=status in {400, 413, 422}, retry_after=min(wait, _MAXIMUM_WAIT)
    )


def _verifying(ca_bundle: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca_bundle)
    except (ValueError, ssl.SSLError):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody: the handshake fails, and is reported
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    restrict_key_exchange(context, CLIENT_GROUPS)
    return context
