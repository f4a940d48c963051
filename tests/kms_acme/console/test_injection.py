"""What strangers write into objects stays text on every page."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from kms.resources.kinds import ACCOUNTS, AUTHORITIES, CREDENTIALS, ORDERS, POLICIES, PROFILES
from kms.resources.meta import ObjectMeta
from kms_acme.console.entries import EVENTS, Event
from tests.support.apiserver import FakeApiServer
from tests.support.console import Visitor, visiting
from tests.support.shown_cluster import AT

HTML = "<script src=//evil.example.com></script><img src=x onerror=alert(1)>\"' onfocus=alert(2) x='</textarea>{{7*7}}"
NAME = "<b onclick=alert(3)>"
"""For names: a path has no slash and no braces in them."""
KEPT = frozenset({"resourceVersion", "uid", "apiVersion", "state", "status", "type", "ownershipValidation", "sub"})
"""Members that the API server sets, or whose other values no model has."""


def poisoned(value: Any, member: str = "") -> Any:
    """The same object with HTML in each text that may be anything."""
    if isinstance(value, dict):
        return {name: poisoned(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, member) for each in value]
    is_fixed = member in KEPT or member.endswith(_TIMES)
    if not isinstance(value, str) or is_fixed or value in _ENUMERATED or member in {"jwk", "key", "validated"}:
        return value
    return f"{value}{HTML}" if member not in {"duration", "orderLifetime"} else value


_TIMES = ("At", "Time", "Timestamp", "time", "expires", "notAfter", "notBefore")
_FIELDS = (
    *("q", "profile", "account", "authority", "state", "expiring", "credential", "names", "name", "duration", "csr"),
    *("page", "credentials"),
)
_ENUMERATED = frozenset(
    {"http-01", "dns-01", "tls-alpn-01", "Required", "Optional", "Disabled", "Skipped", "Same", "All", "Deny", "Allow"}
    | {"ECDSA", "RSA", "Ed25519", "FirstName", "Requested", "None", "dns", "ip", "Selector", "Request"}
    | {"Off", "Report", "Enforce", "SuspendAccounts", "KeepAccounts", "Ignore", "Enabled"}
)


def poison(api: FakeApiServer) -> dict[str, list[tuple[str, str]]]:
    """Put HTML into every object, also into its name; return namespaces and names by kind."""
    api.put(
        EVENTS,
        Event(
            metadata=ObjectMeta(namespace="pki", name="event"),
            event_time=AT,
            type="Warning",
            reason="OrderRefused",
            note="no",
        ),
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for key, body in list(api.store.by_key.items()):
        if key.plural in {"secrets", "namespaces"}:
            continue
        copy = poisoned(body)
        copy["metadata"] = {
            **copy["metadata"],
            "namespace": key.namespace,
            "name": key.name + NAME,
            "annotations": {"a": HTML},
            "labels": body["metadata"].get("labels", {}),
        }
        if key.plural == "events":
            copy["regarding"] = {"kind": HTML, "namespace": HTML, "name": HTML}
            copy["reportingController"] = "pki.kms.hanzo.ai/server"
        copy["metadata"].pop("uid", None)
        copy["metadata"].pop("resourceVersion", None)
        api.store.create(key.plural, key.namespace, copy, keep_status=True)
        found.setdefault(key.plural, []).append((key.namespace, copy["metadata"]["name"]))
    return found


def require_harmless(page: Any, where: str) -> None:
    """No element of the objects, no attribute that runs, no address elsewhere."""
    scripts = [each.attributes for each in page.all("script")]
    assert [set(each) for each in scripts] == [{"src", "defer"}], where
    assert not page.all("img"), where
    assert not page.all("style"), where
    assert not page.all("b"), where
    for each in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in each.attributes), (where, each)
        for name in ("href", "src", "action"):
            address = each.attributes.get(name)
            assert address is None or address.startswith(("/", "?", "#")), (where, each)
            assert address is None or not address.startswith("//"), (where, each)
    assert "<script src=//evil" not in page.html, where


@pytest.mark.requirement("P8")
async def test_html_in_every_field_of_every_object_stays_text(api: FakeApiServer) -> None:
    names = poison(api)
    async with visiting(api) as visitor:
        await visitor.settled()
        shown = ""
        for path in ("", "certificates", "orders", "authorities", "profiles", "accounts", "try"):
            page = await visitor.get(path)
            assert page.status == 200, path
            require_harmless(page, path)
            shown += page.text
        for kind, section in ((ORDERS, "orders"), (ACCOUNTS, "accounts"), (PROFILES, "profiles")):
            for namespace, name in names[kind.plural]:
                page = await visitor.get(f"{section}/{quote(namespace, safe='')}/{quote(name, safe='')}")
                assert page.status == 200, name
                require_harmless(page, name)
                shown += page.text
    assert shown.count("<img src=x onerror=alert(1)>") > 50, "it is shown as text"
    assert "{{7*7}}" in shown
    assert {each.plural for each in (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS, ACCOUNTS, ORDERS)} <= names.keys()


@pytest.mark.requirement("P8")
async def test_html_in_the_address_stays_text(api: FakeApiServer) -> None:
    async with visiting(api) as visitor:
        await visitor.settled()
        for path in ("certificates", "orders", "accounts", "try", "profiles/pki/web"):
            query = dict.fromkeys(_FIELDS, HTML)
            await _require_harmless_at(visitor, path, query)
            for each in query:
                await _require_harmless_at(visitor, path, {each: HTML})
        for path in (f"orders/{quote(HTML, safe='')}/x", f"accounts/pki/{quote(HTML, safe='')}", "orders/../.."):
            page = await visitor.get(path)
            if page.elements:
                require_harmless(page, path)


async def _require_harmless_at(visitor: Visitor, path: str, query: dict[str, str]) -> None:
    page = await visitor.get(path, params=query)
    assert page.status == 200, (path, page.html)
    require_harmless(page, path)
