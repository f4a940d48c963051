"""What to trust of a CA: its root, and for a while the roots that it had before.

Whoever has a certificate below a former root keeps it until it ends, so the former root is trusted for as long as the
longest of them, and never beyond its own end. Certificates are read and written anew: whatever else stood beside them
is not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from kms.pki.certificate import certificate_pem
from kms.pki.parsing import PARSER_ERRORS

MAXIMUM_FORMER = 8
"""Roots that are remembered; of more, the earliest are forgotten."""


@dataclass(frozen=True, slots=True)
class Former:
    """A root (PEM) that was replaced, and when."""

    pem: str
    replaced_at: datetime


@dataclass(frozen=True, slots=True)
class Anchors:
    """What to trust, in PEM, the current root first; and when that changes by itself, if it does."""

    pem: str
    count: int
    until: datetime | None


def succeeded(former: Sequence[Former], before: str | None, after: str | None, *, now: datetime) -> tuple[Former, ...]:
    """The former roots once the chain (PEM) of a CA is `after` and was `before`, the latest first.

    A root that has ended is forgotten, and so is one that has become the current one again.
    """
    current, last = _root(after), _root(before)
    replaced = last is not None and current is not None and last != current
    known = (Former(certificate_pem(last), now), *former) if last is not None and replaced else tuple(former)
    kept: list[Former] = []
    for each in known:
        root = _root(each.pem)
        if root is None or root == current or root.not_valid_after_utc <= now:
            continue
        if each.pem not in {other.pem for other in kept}:
            kept.append(each)
    return tuple(kept[:MAXIMUM_FORMER])


def anchors(chain: str | None, former: Sequence[Former], *, overlap: timedelta, now: datetime) -> Anchors | None:
    """What to trust now; None while there is no chain.

    The current root is published also when it has ended, since nothing would be no better.
    """
    current = _root(chain)
    if current is None:
        return None
    trusted, ends = [current], []
    for each in former:
        root = _root(each.pem)
        if root is None or root in trusted:
            continue
        end = min(_later(each.replaced_at, overlap), root.not_valid_after_utc)
        if now < end:
            trusted.append(root)
            ends.append(end)
    return Anchors("".join(map(certificate_pem, trusted)), len(trusted), min(ends, default=None))


def _root(chain: str | None) -> x509.Certificate | None:
    """The topmost certificate of a chain; None where there is none that can be read."""
    try:
        return x509.load_pem_x509_certificates((chain or "").encode())[-1]
    except PARSER_ERRORS:
        return None


def _later(moment: datetime, duration: timedelta) -> datetime:
    try:
        return moment + duration
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo)
