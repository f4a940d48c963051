"""What issuances ask the API server for, counted on its audit log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from e2e.cluster.audit import AuditLog
from tests.support.installation import SERVER


def asked(audit: AuditLog) -> Counter[str]:
    """What the server has asked the API server for: `update acmeorders/status` and how often.

    Watches do not count, and neither does the lease that a server renews every few seconds whatever it is asked.
    """
    counts: Counter[str] = Counter()
    for each, count in audit.counts(user=SERVER).items():
        if each.verb != "watch" and not each.resource.startswith("leases"):
            subresource = f"/{each.subresource}" if each.subresource else ""
            counts[f"{each.verb} {each.resource.partition('.')[0]}{subresource}"] += count
    return counts


async def cost(audit: AuditLog, issuance: Callable[[int], Awaitable[object]]) -> Counter[str]:
    """What the cheapest of three issuances asks the API server for; they are numbered.

    A validation that a busy machine holds up for two seconds is stored as processing, which is one write more.
    """
    found = []
    for number in range(3):
        audit.mark()
        await issuance(number)
        found.append(asked(audit))
    return min(found, key=Counter.total)
