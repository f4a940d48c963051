"""What the operator observes of the issuers of external CAs, and which look of several counts.

Nothing watches those issuers: they are another program's objects, of any kind, or no objects at all. So the operator
looks at each from time to time (`kms_operator.observer`); the reconciler decides what follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from kms.resources.authorities import CertificateAuthority

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at the issuer of an external CA has found: the condition IssuerObserved.

    True: the issuer says that it is ready. False: it is not, or there is none. Unknown: it cannot be asked, and counts
    as ready. The message has no secrets, and no more of another program's words than `foreign` leaves.
    `chain` is that of the CA where the issuer tells it, in PEM, the issuing CA first and its trust anchor last.
    `credentials` are the data of the Secret that the server logs in with; None: the Secret stays as it is.
    `is_definite`: what is wrong does not pass by itself, so Ready follows at once.
    """

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    chain: str = ""
    credentials: Mapping[str, bytes] | None = field(default=None, repr=False)
    is_definite: bool = False


Look: TypeAlias = Callable[[CertificateAuthority, Observation | None], Awaitable[Observation]]
"""Looks at the issuer of a CA of one type, once; it gets what the last look at this version of the CA has found.

It changes nothing. It raises kms.cluster.errors.Unavailable where the API server does not answer: then nothing was
observed. Every other failure is an Observation.
"""


@dataclass(frozen=True, slots=True)
class Observed:
    """The `latest` look at a CA in this generation. `failures` looks in a row were False. The next is due at `due`."""

    generation: int
    latest: Observation
    due: datetime
    failures: int = 0


def observed(
    before: Observed | None, latest: Observation, *, generation: int, now: datetime, every: timedelta = MINUTE
) -> Observed:
    """Add a look. What was observed of another generation of the CA does not count."""
    failures = before.failures if before is not None and before.generation == generation else 0
    failures = failures + 1 if latest.status == "False" else 0
    return Observed(generation, latest, now + every, failures)


def foreign(text: str, *, most: int = 256) -> str:
    """Return another program's words as a condition quotes them: one line, without control characters, and short."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
