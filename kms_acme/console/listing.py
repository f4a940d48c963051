"""Search, filter and pages of lists, and the timeline of expiries. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar, cast, get_args
from urllib.parse import urlencode

from kms.resources.durations import parse_duration
from kms.resources.meta import Key
from kms_acme.certificates import Filter, Row, State, name_filter
from kms_acme.console.entries import Order
from kms_acme.console.pictures import Bin, Picture

T = TypeVar("T")

PAGE = 50
"""Rows of a page."""
_WEEK = timedelta(days=7)
_WEEKS = 13


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list of `total` rows. `number` begins with 1."""

    items: Sequence[T]
    number: int
    total: int
    query: Mapping[str, str]

    @property
    def last(self) -> int:
        """The number of the last page."""
        return max(1, -(-self.total // PAGE))

    @property
    def first_row(self) -> int:
        """The number of the first row of the page, from 1."""
        return (self.number - 1) * PAGE + 1

    def link(self, number: int) -> str:
        """The query of another page of the same list."""
        return "?" + urlencode({**self.query, "page": str(number)})


def page_of(rows: Sequence[T], query: Mapping[str, str]) -> Page[T]:
    """The page that the query asks for; the nearest one if there is none of that number."""
    asked = {name: value for name, value in query.items() if value and name != "page"}
    text = query.get("page", "")
    wanted = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1  # noqa: PLR2004 - any page
    last = max(1, -(-len(rows) // PAGE))
    number = min(max(1, wanted), last)
    return Page(rows[(number - 1) * PAGE : number * PAGE], number, len(rows), asked)


class BadQuery(ValueError):
    """A field of a form cannot be understood; the message says which."""


def parse_key(text: str, field: str) -> Key | None:
    """`NAMESPACE/NAME`, None for nothing. Raises BadQuery."""
    if not text:
        return None
    namespace, slash, name = text.strip().partition("/")
    if not (slash and namespace and name):
        raise BadQuery(f"{field}: write NAMESPACE/NAME.")
    return namespace, name


def parse_days(text: str, field: str) -> timedelta | None:
    """A number of days, None for nothing. Raises BadQuery."""
    if not text:
        return None
    days = text.strip().removesuffix("d")
    if not (days.isascii() and days.isdigit() and len(days) <= 5):  # noqa: PLR2004 - up to 270 years
        raise BadQuery(f"{field}: write a number of days.")
    return timedelta(days=int(days))


def parse_hours(text: str, field: str) -> timedelta | None:
    """A duration such as 720h, None for nothing. Raises BadQuery."""
    if not text:
        return None
    try:
        return parse_duration(text.strip())
    except ValueError as error:
        raise BadQuery(f"{field}: {error}.") from None


def parse_filter(query: Mapping[str, str]) -> Filter:
    """The filter of the form of certificates. Raises BadQuery."""
    state = query.get("state", "")
    if state and state not in get_args(State):
        raise BadQuery(f"State: {state} is not one of {', '.join(get_args(State))}.")
    return Filter(
        profile=parse_key(query.get("profile", ""), "Profile"),
        account=parse_key(query.get("account", ""), "Account"),
        authority=parse_key(query.get("authority", ""), "CA"),
        state=cast("State", state) if state else None,
        expiring=parse_days(query.get("expiring", ""), "Ends within"),
        due=bool(query.get("not_renewed")) and not query.get("expiring"),
    )


def searching(text: str) -> Callable[[Order], bool]:
    """Whether an order has the text in a name, its serial number or its own name.

    With a wildcard or a network, it is a pattern as in a policy. Raises BadQuery.
    """
    wanted = text.strip().lower()
    if "*" in wanted or "/" in wanted:
        try:
            matches = name_filter(wanted)
        except ValueError as error:
            raise BadQuery(f"Search: {error}.") from None
        return lambda order: any(map(matches, order.names))
    serial = wanted.replace(":", "").lstrip("0")
    return lambda order: (
        any(wanted in each for each in order.names)
        or order.order == wanted
        or (isinstance(order, Row) and bool(serial) and order.serial.lstrip("0") == serial)
    )


def timeline(rows: Iterable[Row], *, now: datetime) -> Picture:
    """When valid certificates end, by week; the last column has all later ones."""
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    counts = [0] * (_WEEKS + 1)
    for row in rows:
        if row.state == "valid":
            counts[min(_WEEKS, max(0, (row.not_after - start) // _WEEK))] += 1
    bins = [
        Bin(
            f"{start + number * _WEEK:%d %b %Y} to {start + (number + 1) * _WEEK - timedelta(days=1):%d %b %Y}",
            f"{start + number * _WEEK:%d %b}" if number % 3 == 0 else "",
            (counts[number],),
        )
        for number in range(_WEEKS)
    ]
    bins.append(Bin(f"{start + _WEEKS * _WEEK:%d %b %Y} or later", "later", (counts[_WEEKS],)))
    return Picture("timeline", "When valid certificates end, by week (UTC)", "Week", ("certificates",), tuple(bins))
