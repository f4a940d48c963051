"""One method for each page: what it shows, from what has been read or is read now."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from acme_server.orders.policy import Objection
from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Forbidden
from kms.enrollment_guide import CLIENTS, NotSupported, guide, script
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms_acme.certificates import Filter, Row, sort_rows
from kms_acme.configuration import read_configuration
from kms_acme.console import hierarchy, usage
from kms_acme.console.changes import Changes
from kms_acme.console.collection import Collection
from kms_acme.console.entries import Order
from kms_acme.console.inventory import Inventory
from kms_acme.console.links import Link, links_of_account, links_of_order
from kms_acme.console.listing import (
    BadQuery,
    page_of,
    parse_filter,
    parse_hours,
    parse_key,
    searching,
    timeline,
)
from kms_acme.console.notes import Note
from kms_acme.console.overview import (
    SHOWN,
    NotReady,
    ending_authorities,
    last_day,
    not_ready,
    recent_events,
    recent_failures,
    select,
)
from kms_acme.enroll import NotKnown, read_facts
from kms_acme.explain import Story
from kms_acme.lookups import NotFound, account_of, account_story, find_object, order_story
from kms_acme.policy_test import Request, Undecided, evaluate, sentences

T = TypeVar("T")
View = tuple[str, Mapping[str, Any]]
"""The name of a template, and what it shows."""
Query = Mapping[str, str]

_SHARE = 10
"""A summary that took a second is made again after ten."""
_TRIED = 100
"""Names of a try-out: as many as a policy allows at most by default."""


class Pages:
    """The pages of one console."""

    def __init__(
        self, inventory: Inventory, cluster: Cluster, changes: Changes, *, clock: Clock, objection: Objection
    ) -> None:
        self._inventory = inventory
        self._cluster = cluster
        self._changes = changes
        self._clock = clock
        self._objection = objection
        self._summary: tuple[int, float, Mapping[str, Any]] | None = None

    async def overview(self, _: Query) -> View:
        """What needs a person's attention, and the last day."""
        inventory, now = self._inventory, self._clock()
        return "overview", {
            "notes": inventory.notes(*inventory.collections),
            "not_ready": self._not_ready(),
            "authorities": ending_authorities(inventory.authorities.entries.values(), now=now),
            "now": now,
            "shown": SHOWN,
            "events": recent_events(inventory.events.entries.values(), now=now),
            **self._summarize(now),
        }

    async def certificates(self, query: Query) -> View:
        """The inventory: search, filter, and when what was found ends."""
        inventory, now, notes = self._inventory, self._clock(), self._notes(self._inventory.orders)
        try:
            rows = select(inventory.rows(now), parse_filter(query), not_renewed=bool(query.get("not_renewed")), now=now)
            if query.get("q"):
                rows = list(filter(searching(query["q"]), rows))
        except BadQuery as error:
            rows, notes = [], [*notes, Note("problem", str(error))]
        return "certificates", {
            "notes": notes,
            "query": query,
            "picture": timeline(rows, now=now),
            "page": page_of(sort_rows(rows, "not-after"), query),
            "profiles": sorted("/".join(key) for key in inventory.profiles.entries),
            "authorities": sorted("/".join(key) for key in inventory.authorities.entries),
        }

    async def orders(self, query: Query) -> View:
        """All orders, also those that failed."""
        inventory, now, notes = self._inventory, self._clock(), self._notes(self._inventory.orders)
        state, found = query.get("state", ""), list[Order]()
        try:
            profile = parse_key(query.get("profile", ""), "Profile")
            account = parse_key(query.get("account", ""), "Account")
            matches = searching(query["q"]) if query.get("q") else None
            found = [
                each
                for each in inventory.current_orders(now)
                if state in {"", each.state}
                and profile in {None, (each.namespace, each.profile)}
                and account in {None, (each.namespace, each.account)}
                and (matches is None or matches(each))
            ]
        except BadQuery as error:
            notes = [*notes, Note("problem", str(error))]
        found.sort(key=lambda each: _latest(each) or datetime.min.replace(tzinfo=now.tzinfo), reverse=True)
        return "orders", {"notes": notes, "query": query, "page": page_of(found, query), "latest": _latest}

    async def order(self, namespace: str, name: str) -> View:
        """The story of an order."""

        async def read() -> tuple[Story, tuple[Link, ...]]:
            found = await find_object(self._cluster, ORDERS, namespace, name)
            account = await account_of(self._cluster, found)
            return await order_story(self._cluster, found, clock=self._clock), links_of_order(found, account)

        return await self._story(read, "orders")

    async def account(self, namespace: str, name: str) -> View:
        """The story of an account."""

        async def read() -> tuple[Story, tuple[Link, ...]]:
            found = await find_object(self._cluster, ACCOUNTS, namespace, name)
            return await account_story(self._cluster, found), links_of_account(found)

        return await self._story(read, "accounts")

    async def authorities(self, _: Query) -> View:
        """CAs as a tree."""
        roots = hierarchy.tree(self._inventory.authorities.entries.values())
        return "authorities", {
            "notes": self._notes(self._inventory.authorities),
            "roots": roots,
            "all": list(hierarchy.flat(roots)),
            "now": self._clock(),
        }

    async def profiles(self, _: Query) -> View:
        """The profiles."""
        found = self._inventory.profiles
        return "profiles", {
            "notes": self._notes(found),
            "profiles": [found.entries[key] for key in sorted(found.entries)],
            "waiting": {(each.namespace, each.name): each for each in self._not_ready()},
        }

    async def profile(self, namespace: str, name: str, query: Query) -> View:
        """How to enroll with a profile, with each client."""
        key, guides, problem = (namespace, name), list[tuple[str, str, str]](), ""
        missing: tuple[str, ...] = ()
        chosen = query.get("credential", "")
        try:
            facts = await read_facts(self._cluster, key, parse_key(chosen, "Credential"), reveal=False)
            names = tuple(query.get("name", "").split())[:_TRIED]
            enrollment = replace(facts.enrollment, names=names) if names else facts.enrollment
            guides, missing = [(client, *_guide(client, enrollment)) for client in CLIENTS], facts.missing
        except (NotKnown, BadQuery) as error:
            problem = f"{error}."
        except ClusterError as error:
            problem = _failure(error)
        credentials = self._inventory.credentials.entries
        return "profile", {
            "notes": self._notes(self._inventory.profiles),
            "key": key,
            "profile": self._inventory.profiles.entries.get(key),
            "query": query,
            "credentials": sorted("/".join(each) for each, found in credentials.items() if found.profile == key),
            "guides": guides,
            "missing": missing,
            "problem": problem,
        }

    async def accounts(self, query: Query) -> View:
        """Accounts and credentials, with what they have used."""
        inventory, now = self._inventory, self._clock()
        used = usage.by_account(inventory.current_orders(now))
        wanted = query.get("q", "").strip().lower()
        accounts = [
            each
            for each in inventory.live_accounts()
            if not wanted
            or wanted in each.name
            or wanted in each.contact.lower()
            or (each.credential is not None and wanted in "/".join(each.credential))
        ]
        accounts.sort(key=lambda each: (each.namespace, each.profile, each.credential or ("", ""), each.name))
        credentials = sorted(inventory.credentials.entries.values(), key=lambda each: (each.namespace, each.name))
        return "accounts", {
            "notes": self._notes(inventory.credentials, inventory.accounts, inventory.orders),
            "query": query,
            "page": page_of(accounts, query),
            "used": used,
            "credentials": page_of(credentials, {**query, "page": query.get("credentials", "")}),
            "by_credential": usage.by_credential(inventory.live_accounts(), used),
            "none_used": usage.Usage(),
        }

    async def try_out(self, query: Query) -> View:
        """Would this request be granted?"""
        answer: tuple[str, ...] = ()
        problem, is_granted = "", False
        if query.get("profile"):
            try:
                request = _request(query)
                keys = [request.credential] if request.credential is not None else []
                configuration = await read_configuration(self._cluster, request.profile[0], keys)
                verdict = evaluate(configuration, request, now=self._clock(), objection=self._objection)
                answer, is_granted = tuple(each.strip() for each in sentences(verdict)), verdict.is_granted
            except BadQuery as error:
                problem = str(error)
            except Undecided as error:
                problem = f"{error}."
            except ClusterError as error:
                problem = _failure(error)
        inventory = self._inventory
        return "try", {
            "notes": self._notes(inventory.profiles, inventory.credentials),
            "query": query,
            "profiles": sorted("/".join(key) for key in inventory.profiles.entries),
            "credentials": sorted("/".join(key) for key in inventory.credentials.entries),
            "answer": answer,
            "is_granted": is_granted,
            "problem": problem,
        }

    async def _story(self, read: Callable[[], Awaitable[tuple[Story, tuple[Link, ...]]]], section: str) -> View:
        try:
            story, links = await read()
        except NotFound as error:
            problem = f"Not found: {error}."
        except ClusterError as error:
            problem = _failure(error)
        else:
            return "story", {"section": section, "story": story, "links": links, "problem": ""}
        return "story", {"section": section, "story": None, "links": (), "problem": problem}

    def _notes(self, *needed: Collection[Any, Any]) -> list[Note]:
        return self._inventory.notes(*needed)

    def _not_ready(self) -> list[NotReady]:
        inventory = self._inventory
        return [
            *not_ready(
                "CertificateAuthority",
                ((key, each.status.conditions) for key, each in inventory.authorities.entries.items()),
            ),
            *not_ready("CertificatePolicy", inventory.policies.entries.items()),
            *not_ready(
                "CertificateProfile",
                ((key, each.status.conditions) for key, each in inventory.profiles.entries.items()),
            ),
            *not_ready(
                "EABCredential", ((key, each.conditions) for key, each in inventory.credentials.entries.items())
            ),
        ]

    def _summarize(self, now: datetime) -> Mapping[str, Any]:
        """What all orders have to be looked at for: not on each change while a hundred thousand are being read."""
        known, changed, started = self._summary, self._changes.count, time.monotonic()
        if known is not None and (known[0] == changed or started < known[1]):
            return known[2]
        inventory = self._inventory
        due = select(inventory.rows(now), Filter(due=True), not_renewed=True, now=now)
        failures = recent_failures(inventory.uncertified(now), now=now)
        values = {
            "due": sort_rows(due, "not-after")[:SHOWN],
            "due_count": len(due),
            "picture": last_day(inventory.current_orders(now), now=now),
            "failures": failures[:SHOWN],
            "failure_count": len(failures),
            "order_count": len(inventory.orders.entries),
        }
        ended = time.monotonic()
        self._summary = changed, ended + _SHARE * (ended - started), values
        return values


def _guide(client: str, enrollment: Any) -> tuple[str, str]:
    """What `kms-acme enroll` prints, and why not."""
    try:
        return script(guide(client, enrollment)), ""
    except NotSupported as error:
        return "", f"{error}."


def _request(query: Query) -> Request:
    profile = parse_key(query["profile"], "Profile")
    if profile is None:
        raise BadQuery("Profile: write NAMESPACE/NAME.")
    csr = query.get("csr", "").strip()
    names = tuple(query.get("names", "").split())[:_TRIED]
    if not names and not csr:
        raise BadQuery("Names: write at least one, or a certificate request.")
    return Request(
        profile=profile,
        names=names,
        credential=parse_key(query.get("credential", ""), "Credential"),
        csr=csr.encode() if csr else None,
        duration=parse_hours(query.get("duration", ""), "Duration"),
    )


def _latest(order: Order) -> datetime | None:
    return order.issued if isinstance(order, Row) else order.created


def _failure(error: ClusterError) -> str:
    return f"You may not read this: {error}." if isinstance(error, Forbidden) else f"This cannot be read now: {error}."
