"""The trust anchors of a CA: its root, and for some time its former roots.

Certificates below a former root stay in use until they expire. So the former root is trusted as long as the longest of
them may last, and never beyond its own end. Certificates are parsed and encoded again: other text beside them is not
published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from kms.pki.certificate import certificate_pem
from kms.pki.parsing import PARSER_ERRORS

MAXIMUM_FORMER = 8
"""Former roots that are kept; the oldest go first."""


@dataclass(frozen=True, slots=True)
class ReplacedRoot:
    """A root (PEM) that was replaced, and when."""

    pem: str
    replaced_at: datetime


@dataclass(frozen=True, slots=True)
class Anchors:
    """The trust anchors in PEM, the current root first, and the time when one of them ends, if any.

    `former` are those behind the current root.
    """

    pem: str
    former: str
    count: int
    until: datetime | None


def former_roots(
    former: Sequence[ReplacedRoot], before: str | None, after: str | None, *, now: datetime
) -> tuple[ReplacedRoot, ...]:
    """The former roots after the chain (PEM) of a CA has changed from `before` to `after`, the latest first.

    Expired roots are left out, and so is one that is the current root again.
    """
    current, last = _root(after), _root(before)
    replaced = last is not None and current is not None and last != current
    known = (ReplacedRoot(certificate_pem(last), now), *former) if last is not None and replaced else tuple(former)
    kept: list[ReplacedRoot] = []
    for each in known:
        root = _root(each.pem)
        if root is None or root == current or root.not_valid_after_utc <= now:
            continue
        if each.pem not in {other.pem for other in kept}:
            kept.append(each)
    return tuple(kept[:MAXIMUM_FORMER])


def anchors(chain: str | None, former: Sequence[ReplacedRoot], *, overlap: timedelta, now: datetime) -> Anchors | None:
    """The trust anchors at `now`; None while there is no chain.

    The current root is published even when it has expired: many programs do not start with an empty file.
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
    current_pem, *former_pems = map(certificate_pem, trusted)
    former_pem = "".join(former_pems)
    return Anchors(current_pem + former_pem, former_pem, len(trusted), min(ends, default=None))


def root_pem(chain: str | None) -> str | None:
    """The topmost certificate of a chain in PEM; None if there is none that can be read."""
    root = _root(chain)
    return certificate_pem(root) if root is not None else None


def _root(chain: str | None) -> x509.Certificate | None:
    """The topmost certificate of a chain; None if there is none that can be read."""
    try:
        return x509.load_pem_x509_certificates((chain or "").encode())[-1]
    except PARSER_ERRORS:
        return None


def _later(moment: datetime, duration: timedelta) -> datetime:
    try:
        return moment + duration
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo)
