"""A CA that takes time, with scripted answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from cryptography.hazmat.primitives.serialization import Encoding

from kms.issuers import IssuerNotReady
from kms.issuers.protocol import Answer, Pending, Returned, Submission
from kms.pki.certificate import LeafTemplate, Signer, sign_leaf
from kms.pki.csr import parse_request
from kms.pki.names import Name
from tests.support import pki

Reply = Answer | Callable[[Submission], Answer]
"""An answer, or what makes one of the submission."""

WAITS = Pending("WaitingForIssuer", "The CA works.")


@dataclass
class ScriptedIssuer:
    """Gives each attempt the answers of the script in turn; the last one for ever. Records what it was asked.

    `requests` are those that exist: begun and not forgotten.
    """

    script: list[Reply] = field(default_factory=list)
    begun: list[Submission] = field(default_factory=list)
    requests: dict[str, Submission] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    revoked: list[bytes] = field(default_factory=list)
    takes_revocations: bool = False
    away: bool = False
    gate: asyncio.Event | None = None
    closed: bool = False

    async def begin(self, submission: Submission) -> None:
        self.begun.append(submission)
        self.requests[submission.name] = submission
        if self.gate is not None:
            await self.gate.wait()

    async def look(self, submission: Submission) -> Answer:
        if not self.script:
            return WAITS
        reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return reply(submission) if callable(reply) else reply

    async def forget(self, submission: Submission) -> None:
        self.forgotten.append(submission.name)
        self.requests.pop(submission.name, None)

    async def revoke(self, certificate: bytes) -> bool:
        if self.away:
            raise IssuerNotReady("the CA does not answer")
        if self.takes_revocations:
            self.revoked.append(certificate)
        return self.takes_revocations

    async def close(self) -> None:
        self.closed = True


_serials = count(2**100)


def foreign_ca(*, days: int) -> Signer:
    """An issuing CA below a root, both valid now."""
    now = datetime.now(UTC).replace(microsecond=0)
    root = pki.root(common_name="Corporate Root", not_before=now - pki.DAY, not_after=now + 9_000 * pki.DAY)
    return pki.below(root, common_name="Corporate CA", not_before=now - pki.DAY, not_after=now + days * pki.DAY)


FOREIGN_CA = foreign_ca(days=300)
_UNLIMITED = foreign_ca(days=8_000)
"""The same key: foreign CAs sign certificates that last longer than themselves."""
ANCHOR = FOREIGN_CA.issuers[0].public_bytes(Encoding.PEM).decode()


def certified(submission: Submission) -> Answer:
    """What an honest CA returns: each time another certificate."""
    return certified_as(submission)


def certified_as(
    submission: Submission, *names: Name, by: Signer = FOREIGN_CA, lasts: timedelta | None = None
) -> Returned:
    """What a CA returns that certifies these names, and for that long."""
    request, now = parse_request(submission.request), datetime.now(UTC).replace(microsecond=0)
    template = LeafTemplate(
        public_key=request.public_key,
        names=names or tuple(sorted(request.names)),
        common_name=None,
        subject={},
        usages=frozenset(submission.usages),
        serial=next(_serials),
        not_before=now - timedelta(seconds=30),
        not_after=now + (submission.duration if lasts is None else lasts),
    )
    above = (by.certificate, *by.issuers[:-1])
    chain = (sign_leaf(template, _UNLIMITED if by is FOREIGN_CA else by), *above)
    return Returned(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
