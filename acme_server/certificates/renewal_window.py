"""When to renew a certificate (RFC 9773). Pure.

The window lies around two thirds of the lifetime of a certificate and is a fifteenth of it wide. Each client draws a
time within its window, so clients that were installed in the same hour do not renew in the same hour. The start follows
from the serial number, so every request gets the same window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from acme_server.orders.lifetimes import BACKDATE
from acme_server.state.certificates import CertificateRecord

_BEGINS = 0.63
"""The share of a lifetime after which the earliest windows begin."""
_WIDTH = 15
_SHIFT = 30
"""A window is a fifteenth of the lifetime wide, and its start varies by a thirtieth of the lifetime."""
_SHORTEST = timedelta(seconds=2)
"""Caddy ignores a window without a whole second between its first and its last one."""
_AT_ONCE = timedelta(hours=1)
"""The length of the window of a revoked certificate; it lies before the revocation."""
_MOMENT = timedelta(seconds=1)
_ASKED_AGAIN = 60
_SELDOM = timedelta(hours=6)
_OFTEN = timedelta(minutes=1)


class Window(NamedTuple):
    """When to renew: some time from `start` on, before `end`."""

    start: datetime
    end: datetime


def suggest_window(certificate: CertificateRecord, *, issued_before: Iterable[datetime], now: datetime) -> Window:
    """When the certificate should be renewed.

    A revoked certificate: at once. `issued_before` are times by which an administrator asks for early renewal: a
    certificate that was issued before one of them is renewed from that time on, unless its window is earlier.

    cert-manager ignores a window that begins before its certificate does, because it takes that for the window of the
    previous certificate. So a window never begins before its own certificate. A window of early renewal that has
    begun lies before every certificate that is issued from now on, so that no later certificate is renewed for it.

    With dates at the ends of the calendar, which somebody has put into the order, it is renewed at once.
    """
    try:
        return _window(certificate, issued_before, now)
    except OverflowError:
        return Window(now, now + _SHORTEST)


def _window(certificate: CertificateRecord, issued_before: Iterable[datetime], now: datetime) -> Window:
    if certificate.revocation is not None:
        revoked = certificate.revocation.time
        after = min(certificate.not_before + _MOMENT, revoked - _SHORTEST)
        return Window(max(revoked - _AT_ONCE, after), revoked)
    begins = max(certificate.not_before, certificate.issued_at)
    lifetime = max(certificate.not_after - begins, timedelta(0))
    start = begins + lifetime * _BEGINS + lifetime / _SHIFT * _share(certificate.serial_number)
    asked = (each - BACKDATE if each <= now else each for each in issued_before if certificate.issued_at < each)
    start = min((start, *asked)).replace(microsecond=0)
    return Window(start, start + max(lifetime / _WIDTH, _SHORTEST))


def retry_after_of(certificate: CertificateRecord) -> timedelta:
    """How long a client should wait before it asks again: shorter for certificates with a short lifetime."""
    lifetime = certificate.not_after - certificate.not_before
    return min(max(lifetime / _ASKED_AGAIN, _OFTEN), _SELDOM)


def _share(serial_number: str) -> float:
    """A number from 0 to 1 that follows from the serial number, spread evenly."""
    digest = hashlib.sha256(serial_number.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
