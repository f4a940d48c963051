"""A CA that takes time, with scripted answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from kms.issuers import IssuerNotReady
from kms.issuers.protocol import Answer, Pending, Submission

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
