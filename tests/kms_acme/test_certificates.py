"""The inventory: filters, renewals, and a hundred thousand orders."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from kms.cluster.codec import Page
from kms.resources.kinds import ORDERS, PROFILES
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import Identifier, Revocation
from kms_acme.certificates import (
    Filter,
    ListedOrder,
    Renewals,
    Row,
    _Spec,
    _Status,
    list_orders,
    name_filter,
    row_of,
    select_rows,
    sort_rows,
)
from kms_acme.cli import main
from tests.support.apiserver import FakeApiServer, running_api, spoil
from tests.support.shown_cluster import CLIENT, SHOP, fill

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DAY = timedelta(days=1)
CA = "ab" * 20


def listed(
    number: int = 1,
    *names: str,
    days: float = 20,
    profile: str = "web",
    revoked: bool = False,
    replaces: str | None = None,
) -> ListedOrder:
    return ListedOrder(
        metadata=ObjectMeta(namespace="pki", name=f"order-{number}"),
        spec=_Spec(
            account_ref=LocalRef(name=f"account-{number % 7}"),
            profile_ref=LocalRef(name=profile),
            identifiers=tuple(Identifier(type="dns", value=each) for each in names or (f"host-{number}.example.com",)),
            replaces=replaces,
        ),
        status=_Status(
            serial_number=f"{number:x}",
            authority_key_id=CA,
            issued_at=NOW - 10 * DAY,
            not_before=NOW - 10 * DAY,
            not_after=NOW + days * DAY,
            revocation=Revocation(time=NOW, reason="superseded") if revoked else None,
        ),
    )


def row(*args: Any, **members: Any) -> Row:
    made = row_of(listed(*args, **members), {("pki", CA): "issuing"}, now=NOW)
    assert made is not None
    return made


@pytest.mark.requirement("P3")
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(), {1, 2, 3, 4}),
        (Filter(profile=("pki", "other")), {4}),
        (Filter(account=("pki", "account-2")), {2}),
        (Filter(accounts={("pki", "account-1"), ("other", "account-2")}), {1}),
        (Filter(authority=("pki", "issuing")), {1, 2, 3, 4}),
        (Filter(authority=("pki", "gone")), set()),
        (Filter(name=name_filter("**.host-3.example.com")), set()),
        (Filter(name=name_filter("host-3.example.com")), {3}),
        (Filter(state="revoked"), {2}),
        (Filter(state="expired"), {3}),
        (Filter(expiring=14 * DAY), {4}),
        (Filter(due=True), {4}),
    ],
)
def test_a_filter_chooses_certificates(chosen: Filter, expected: set[int]) -> None:
    rows = (row(1), row(2, revoked=True), row(3, days=-1), row(4, days=5, profile="other"))
    assert {int(each.serial) for each in rows if chosen.matches(each, now=NOW)} == expected


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "*.a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("**.example.com", "a.b.example.com", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "a.example.com", False),
        ("10.1.2.3", "10.1.2.3", True),
    ],
)
def test_a_name_is_chosen_by_a_pattern_as_in_a_policy(pattern: str, name: str, *, matches: bool) -> None:
    assert name_filter(pattern)(name) is matches


@pytest.mark.requirement("P3")
def test_a_certificate_is_renewed_by_a_later_one_for_its_names_or_by_one_that_replaces_it() -> None:
    old = row(1, "a.example.com", "b.example.com", days=5)
    for successor, renewed in (
        (row(2, "b.example.com", "a.example.com", days=20), True),
        (row(2, "a.example.com", days=20), False),
        (row(2, "a.example.com", "b.example.com", days=20, profile="other"), False),
        (row(2, "a.example.com", "b.example.com", days=20, revoked=True), False),
        (row(2, "c.example.com", days=20, replaces=old.id), True),
        (row(2, "c.example.com", days=20, replaces=old.id, revoked=True), False),
    ):
        renewals = Renewals()
        for each in (old, successor):
            renewals.note(each)
        assert renewals.has_successor(old) is renewed
        assert not renewals.has_successor(successor)


def test_rows_are_sorted() -> None:
    rows = [row(1, "b.example.com", days=9), row(2, "a.example.com", days=30), row(3, "c.example.com", days=1)]
    assert [each.serial for each in sort_rows(rows, "not-after")] == ["3", "1", "2"]
    assert [each.serial for each in sort_rows(rows, "name")] == ["2", "1", "3"]
    assert [each.serial for each in sort_rows(rows, "profile")] == ["2", "1", "3"]


class Pager:
    """An API server with any number of orders, which are made when a page is asked for."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pages = 0
        self.query: object = None

    async def raw_page(self, *_: object, limit: int, token: str, query: object, **__: object) -> Page:
        self.pages += 1
        self.query = query
        first = int(token or 0)
        last = min(first + limit, self.number)
        items = tuple(msgspec.Raw(msgspec.json.encode(_stored(number))) for number in range(first, last))
        octets = sum(map(len, items))
        return Page(
            items=items, resource_version="1", continue_token=str(last) if last < self.number else "", octets=octets
        )


def _stored(number: int) -> ListedOrder:
    return listed(number, days=number % 40)


@pytest.mark.requirement("P3")
async def test_a_long_list_is_shown_as_it_comes_and_no_page_is_kept() -> None:
    pager, chosen = Pager(20_000), Filter(expiring=14 * DAY)
    orders = list_orders(pager, chosen, None, on_unreadable=lambda _: None)  # type: ignore[arg-type]
    rows = select_rows(orders, chosen, authorities={}, not_renewed=False, now=NOW, on_read=lambda _: None)
    first = await anext(aiter(rows))
    assert (first.serial, pager.pages <= 2) == ("0", True)
    shown = 1 + len([each async for each in rows])
    assert shown == 20_000 * 15 // 40
    assert pager.query == {"fieldSelector": "status.state=valid"}


@pytest.mark.requirement("P3")
async def test_each_order_is_counted_for_the_progress_and_those_without_successor_come_at_the_end() -> None:
    async def orders() -> AsyncIterator[ListedOrder]:
        yield listed(1, "a.example.com", days=3)
        yield listed(2, "b.example.com", days=3)
        yield msgspec.structs.replace(listed(3), status=_Status())
        yield listed(4, "a.example.com", days=30)

    seen: list[int] = []
    chosen = Filter(expiring=14 * DAY)
    rows = select_rows(orders(), chosen, authorities={}, not_renewed=True, now=NOW, on_read=seen.append)
    assert [each.names async for each in rows] == [("b.example.com",)]
    assert seen == [1, 2, 3, 4]


@dataclass
class Terminal:
    """An administrator's terminal, and the cluster of the page."""

    api: FakeApiServer
    kubeconfig: Path

    async def list(self, *line: str) -> Result:
        arguments = ["certificates", *line, "--kubeconfig", str(self.kubeconfig)]
        return await asyncio.to_thread(CliRunner().invoke, main.main, arguments)


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with running_api() as api:
        fill(api)
        yield Terminal(api, api.write_kubeconfig(tmp_path / "kubeconfig"))


async def test_programs_read_json_yaml_and_csv(terminal: Terminal) -> None:
    rows = json.loads((await terminal.list("-o", "json")).stdout)
    assert rows == yaml.safe_load((await terminal.list("-o", "yaml")).stdout)
    table = list(csv.DictReader(io.StringIO((await terminal.list("-o", "csv")).stdout)))
    assert [each["serial"] for each in table] == [each["serial"] for each in rows] == ["5f3a910c", "10d0"]
    assert rows[0]["authority"] == "pki/issuing"
    for format_ in ("json", "yaml"):
        empty = await terminal.list("-o", format_, "--name", "none.example.org")
        assert (empty.exit_code, yaml.safe_load(empty.stdout)) == (0, [])


async def test_the_exit_code_tells_whether_something_expires(terminal: Terminal) -> None:
    assert (await terminal.list("--expiring", "14d")).exit_code == 0
    assert (await terminal.list("--expiring", "99999d")).exit_code == 3
    assert (await terminal.list("--expiring", "99999d", "--name", "none.example.org")).exit_code == 0
    assert (await terminal.list("--expiring", "99999d", "--credential", "pki/web")).exit_code == 3
    assert (await terminal.list("--expiring", "soon")).exit_code == 2
    assert (await terminal.list("--name", "a..b")).exit_code == 2
    spoil(terminal.api, ORDERS, SHOP, "spec.identifiers", 7)
    done = await terminal.list()
    assert done.exit_code == 1
    assert f"ACMEOrder pki/{SHOP} cannot be read and is left out" in done.stderr


@pytest.mark.requirement("P3")
@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [
        ("--profile", "pki/wbe", "pki/web"),
        ("--profile", "team-a/web", "pki/web"),
        ("--authority", "pki/isuing", "pki/issuing"),
        ("--credential", "pki/webb", "pki/web"),
        ("--account", f"pki/{CLIENT[:-1]}", f"pki/{CLIENT}"),
    ],
)
async def test_a_name_that_does_not_exist_is_wrong_usage_and_the_nearest_is_named(
    terminal: Terminal, option: str, wrong: str, right: str
) -> None:
    done = await terminal.list(option, wrong, "-o", "json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.search(
        rf"{option}: there is no \w+ {wrong}; the nearest (is|are) .*{right}", " ".join(done.stderr.split())
    )
    terminal.api.fail_next("get", "*", 403, times=9)
    assert (await terminal.list(option, wrong)).exit_code == 0


async def test_certificates_of_a_profile_that_was_deleted_are_listed(terminal: Terminal) -> None:
    terminal.api.remove(PROFILES, "pki", "web")
    done = await terminal.list("--profile", "pki/web")
    assert (done.exit_code, "5f3a910c" in done.output) == (0, True), done.output
