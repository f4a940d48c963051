"""Whether a name would be issued, for whom, and which certificates exist for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from acme_server.orders.lifetimes import is_over
from kms.resources.meta import Key
from kms.resources.orders import ACMEOrder
from kms_acme.explain.story import Line, Story, clock_time, in_order
from kms_acme.policy_test import Verdict, sentences

_SHOWN = 10
"""How many credentials and certificates a story lists."""


def explain_name(
    name: str,
    verdict: Verdict,
    by_credential: Mapping[Key, Verdict],
    orders: Sequence[ACMEOrder],
    *,
    now: datetime,
) -> Story:
    """The story of a name. `verdict` is for a client without rules of its own, `orders` have certificates for it."""
    profile = "/".join(verdict.request.profile)
    _, *facts = (each.strip() for each in sentences(verdict))
    remedies = tuple(each.removeprefix("To change that: ") for each in facts if each.startswith("To change that: "))
    lines = [
        *(Line(each) for each in facts if not each.startswith("To change that: ")),
        *_credentials(by_credential, verdict),
        *in_order(_certificates(orders, now=now)),
    ]
    refused = verdict.refused
    would = f"would be refused ({refused.type})" if refused is not None else "would be issued"
    return Story(
        title=f"{name} on profile {profile}",
        lines=tuple(lines),
        now=f"A certificate {would}.",
        is_well=verdict.is_granted,
        remedies=remedies,
    )


def _credentials(by_credential: Mapping[Key, Verdict], verdict: Verdict) -> Iterator[Line]:
    if not by_credential:
        return
    granted = ["/".join(key) for key, each in by_credential.items() if each.is_granted]
    if granted:
        more = f" and {len(granted) - _SHOWN} more" if len(granted) > _SHOWN else ""
        yield Line(f"It is granted to clients of EABCredential {', '.join(granted[:_SHOWN])}{more}.")
    known = verdict.problems[0] if verdict.refused is not None else None
    alike = ["/".join(key) for key, each in by_credential.items() if not each.is_granted and each.problems[0] == known]
    if alike:
        more = f" and {len(alike) - _SHOWN} more" if len(alike) > _SHOWN else ""
        yield Line(f"For that reason it is refused to clients of EABCredential {', '.join(alike[:_SHOWN])}{more}.")
    refused = [(key, each) for key, each in by_credential.items() if not each.is_granted and each.problems[0] != known]
    for key, each in refused[:_SHOWN]:
        yield Line(f"It is refused to clients of EABCredential {'/'.join(key)}: {each.problems[0]}.")
    if len(refused) > _SHOWN:
        yield Line(f"It is refused to clients of {len(refused) - _SHOWN} more EABCredentials.")


def _certificates(orders: Sequence[ACMEOrder], *, now: datetime) -> Iterator[Line]:
    if not orders:
        yield Line("There is no certificate for it.")
    for order in orders[:_SHOWN]:
        status = order.status
        state = "valid"
        if status.revocation is not None:
            state = f"revoked ({status.revocation.reason})"
        elif status.not_after is not None and is_over(status.not_after, now=now):
            state = "expired"
        until = f" until {clock_time(status.not_after)}" if status.not_after is not None else ""
        yield Line(
            f"Certificate {status.serial_number} was issued to account"
            f" {order.metadata.namespace}/{order.spec.account_ref.name}: {state}{until}.",
            status.issued_at,
        )
    if len(orders) > _SHOWN:
        yield Line(f"There are {len(orders) - _SHOWN} more certificates: kms-acme certificates lists them.")
