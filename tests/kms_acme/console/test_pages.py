"""What each page of the console shows: the same sentences as the commands, and numbers with their pictures."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.x509 import SubjectKeyIdentifier
from msgspec.structs import replace

from kms.pki.certificate import Signer, certificate_pem
from kms.resources.authorities import AuthoritySpec, CertificateAuthority, ImportedAuthority
from kms.resources.kinds import AUTHORITIES, ORDERS, PROFILES
from kms.resources.meta import Condition, LocalRef, ObjectMeta
from kms_acme.cli import main
from kms_acme.console.entries import EVENTS, Event
from tests.support import pki
from tests.support.apiserver import FakeApiServer
from tests.support.console import Page, Visitor, visiting
from tests.support.shown_cluster import AT, CLIENT, FAILED, OLD, SHOP

pytestmark = pytest.mark.requirement("P9")


@pytest.fixture
async def visitor(api: FakeApiServer) -> AsyncIterator[Visitor]:
    async with visiting(api) as visitor:
        await visitor.settled()
        yield visitor


async def printed(api: FakeApiServer, tmp_path: Path, *line: str) -> str:
    """What a command prints."""
    kubeconfig = str(api.write_kubeconfig(tmp_path / "kubeconfig"))
    done = await asyncio.to_thread(CliRunner().invoke, main.main, [*line, "--kubeconfig", kubeconfig])
    return done.output


def plain(text: str) -> str:
    return " ".join(unescape(text).split())


async def test_the_overview_says_what_is_wrong_and_what_ends(api: FakeApiServer) -> None:
    profile = api.read(PROFILES, "pki", "web")
    assert profile is not None
    wrong = Condition(
        type="Ready", status="False", reason="PolicyNotFound", message="there is no policy web", last_transition_time=AT
    )
    api.put(PROFILES, replace(profile, status=replace(profile.status, conditions=(wrong,))))
    authority = api.read(AUTHORITIES, "pki", "issuing")
    assert authority is not None
    api.put(AUTHORITIES, replace(authority, status=replace(authority.status, not_after=AT + timedelta(days=40))))
    order = api.read(ORDERS, "pki", SHOP)
    assert order is not None
    ends = replace(order.status, not_after=AT + timedelta(days=3))
    api.put(ORDERS, replace(order, status=ends))
    event = Event(
        metadata=ObjectMeta(namespace="pki", name="refused"),
        event_time=AT,
        type="Warning",
        reason="OrderRefused",
        note="DNS name not allowed",
    )
    key = api.put(EVENTS, event).metadata
    body = api.store.by_key[next(each for each in api.store.by_key if each.name == key.name)]
    body["reportingController"] = "pki.kms.hanzo.ai/server"
    async with visiting(api) as visitor:
        page = await visitor.settled()
        for _ in range(600):  # on a slow machine, the summary of what had been read before is kept for a moment
            if "shop.apps.example.com" in page.text:
                break
            await asyncio.sleep(0.1)
            page = await visitor.get("")
        assert "CertificateProfile pki/web PolicyNotFound there is no policy web 2026-11-30T09:00:00Z" in page.text
        assert "pki/issuing 2027-01-09T09:00:00Z 40" in page.text
        assert "shop.apps.example.com pki/web 2026-12-03T09:00:00Z" in page.text
        assert "Connecting to 10.1.2.3 port 80 failed: connection refused (5 attempts) (connection)" in page.text
        assert "OrderRefused DNS name not allowed" in page.text
        assert "30 Nov 09:00 2 1" in page.text, "two certificates were issued, one order failed"
        # From the overview to the reason takes one link.
        (link,) = {each.attributes["href"] for each in page.all("a") if each.text == "api.apps.example.com"}
        assert link is not None
        story = await visitor.get(link.partition(visitor.root.rpartition("/")[2] + "/")[2])
        assert "The order failed" in story.text
        # What is not Ready, and what was refused, leads to its page.
        texts = {each.text: each.attributes["href"] for each in page.all("a")}
        assert str(texts["CertificateProfile pki/web"]).endswith("/profiles/pki/web")


async def test_an_order_and_an_account_have_the_story_that_explain_tells(
    visitor: Visitor, api: FakeApiServer, tmp_path: Path
) -> None:
    for section, kind, name in (("orders", "order", FAILED), ("orders", "order", OLD), ("accounts", "account", CLIENT)):
        page = await visitor.get(f"{section}/pki/{name}")
        for line in (await printed(api, tmp_path, "explain", kind, f"pki/{name}")).splitlines():
            text = re.sub(r"^ +(\S+Z|now|to help)? +", "", line)
            if kind == "order" and line.strip().startswith("now"):
                continue  # the console's clock is another one
            assert plain(text) in page.text, line
    # From a story to what it speaks of.
    for section, name, texts in (
        (
            "orders",
            FAILED,
            (f"Account pki/{CLIENT}", "All orders of this account", "What the policy says about these names now"),
        ),
        ("accounts", CLIENT, ("All orders of this account", "Profile pki/web, and how to enroll with it")),
    ):
        links = {
            each.text: str(each.attributes["href"]) for each in (await visitor.get(f"{section}/pki/{name}")).all("a")
        }
        for text in texts:
            led = await visitor.get(links[text].partition(visitor.root.rpartition("/")[2] + "/")[2])
            assert (led.status, "Not found" in led.text) == (200, False), text
    page = await visitor.get("orders/pki/none")
    assert (page.status, "Not found: there is no ACMEOrder pki/none." in page.text) == (200, True)


async def test_a_profile_has_the_guides_that_enroll_prints(
    visitor: Visitor, api: FakeApiServer, tmp_path: Path
) -> None:
    query = "credential=pki/web&name=shop.apps.example.com"
    page = await visitor.get(f"profiles/pki/web?{query}")
    shown = [each.text for each in page.all("code")]
    for client in ("certbot", "caddy", "cert-manager"):
        line = ("-p", "pki/web", "--credential", "pki/web", "--client", client, "--name", "shop.apps.example.com")
        assert await printed(api, tmp_path, "enroll", *line) in shown
    assert "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" not in page.html, "the key is never shown"
    assert "lego" in page.text
    page = await visitor.get("profiles/pki/none")
    assert "there is no CertificateProfile pki/none; the nearest is pki/web." in page.text
    page = await visitor.get("profiles/pki/web?credential=wrong")
    assert "Credential: write NAMESPACE/NAME." in page.text


async def test_the_try_out_has_the_answer_of_policy_test(visitor: Visitor, api: FakeApiServer, tmp_path: Path) -> None:
    for names in ("shop.apps.example.com", "admin.apps.example.com", "a.b.apps.example.com 10.0.0.1"):
        page = await visitor.get("try", params={"profile": "pki/web", "credential": "pki/web", "names": names})
        line = ("policy", "test", "-p", "pki/web", "--credential", "pki/web", *names.split())
        for sentence in (await printed(api, tmp_path, *line)).splitlines():
            assert plain(sentence) in page.text
    for query, problem in (
        ({"profile": "web"}, "Profile: write NAMESPACE/NAME."),
        ({"profile": "pki/web"}, "Names: write at least one, or a certificate request."),
        (
            {"profile": "pki/none", "names": "a.example.com"},
            "there is no CertificateProfile pki/none; the nearest is pki/web.",
        ),
        ({"profile": "pki/web", "names": "a.example.com", "duration": "long"}, "Duration: "),
        ({"profile": "pki/web", "csr": "no request"}, "refused (badCSR): the request"),
    ):
        page = await visitor.get("try", params=query)
        assert (page.status, problem in page.text) == (200, True), page.text


async def test_certificates_are_searched_filtered_and_drawn(visitor: Visitor) -> None:
    async def found(**query: str) -> list[str]:
        page = await visitor.get("certificates", params=query)
        return [name for name in ("shop", "old") if f"{name}.apps.example.com" in page.text]

    assert await found() == ["shop", "old"]
    assert await found(state="valid") == ["shop"]
    assert await found(state="expired") == ["old"]
    for text in ("SHOP.apps", "5F:3A:91:0C", "*.apps.example.com", SHOP):
        assert "shop" in await found(q=text), text
    assert await found(q="10.0.0.0/8") == []
    assert await found(q="shop", authority="pki/issuing", profile="pki/web", account=f"pki/{CLIENT}") == ["shop"]
    assert await found(authority="pki/other") == []
    assert await found(expiring="14") == []
    assert await found(not_renewed="1") == []
    for query, problem in (
        ({"q": "*..com"}, "Search: "),
        ({"expiring": "soon"}, "Ends within: write a number of days."),
        ({"state": "new"}, "State: new is not one of valid, revoked, expired."),
        ({"profile": "web"}, "Profile: write NAMESPACE/NAME."),
    ):
        assert problem in (await visitor.get("certificates", params=query)).text
    page = await visitor.get("certificates")
    table = next(each for each in page.all("table") if "by week" in each.text)
    assert plain(table.text).endswith("01 Mar 2027 or later 1")
    assert [each.text for each in page.all("rect")] == ["01 Mar 2027 or later: 1 certificates"]


async def test_orders_are_found_by_state_and_name(visitor: Visitor) -> None:
    page = await visitor.get("orders", params={"state": "invalid"})
    assert "api.apps.example.com invalid 2026-11-30T09:00:00Z pki/web" in page.text
    assert "shop.apps.example.com" not in page.text
    assert "1 to 1 of 1 orders." in (await visitor.get("orders", params={"q": "api."})).text
    assert "No orders." in (await visitor.get("orders", params={"account": "pki/none"})).text
    page = await visitor.get("orders", params={"q": "www.example.org"})
    (link,) = (str(each.attributes["href"]) for each in page.all("a") if each.text == "Try the name")
    assert link.endswith("/try?profile=&names=www.example.org")
    assert "Profile: write" in (await visitor.get("orders", params={"profile": "none"})).text


async def test_cas_are_a_tree_with_their_ends_and_keys(api: FakeApiServer) -> None:
    authority = api.read(AUTHORITIES, "pki", "issuing")
    assert authority is not None
    assert authority.spec.internal is not None
    root = pki.root()
    below = replace(authority.spec.internal, issuer_ref=LocalRef(name="top"))
    circle = [replace(authority.spec.internal, issuer_ref=LocalRef(name=f"round-{number}")) for number in (2, 1)]
    signed = pki.below(root)
    status = replace(authority.status, certificate=certificate_pem(root.certificate), subject_key_id=None)
    for name, internal, own in (
        ("top", replace(authority.spec.internal, issuer_ref=None), replace(status, subject_key_id=key_id(root))),
        ("issuing", below, status),
        ("round-1", circle[0], status),
        ("round-2", circle[1], status),
        ("damaged", authority.spec.internal, replace(status, certificate="no certificate")),
    ):
        spec = replace(authority.spec, internal=internal)
        api.put(AUTHORITIES, CertificateAuthority(metadata=named(name), spec=spec, status=own))
    imported = AuthoritySpec(imported=ImportedAuthority(secret_ref=LocalRef(name="tls")))
    own = replace(status, certificate=certificate_pem(signed.certificate))
    api.put(AUTHORITIES, CertificateAuthority(metadata=named("imported"), spec=imported, status=own))
    async with visiting(api) as visitor:
        await visitor.settled()
        page = await visitor.get("authorities")
        outer = {each.text.split()[0]: each.text for each in page.all("li") if each.text.startswith("pki/")}
        assert ("pki/issuing" in outer["pki/top"], "pki/imported" in outer["pki/top"]) == (True, True)
        assert "ends 2126-11-30, ECDSA-P256" in plain(outer["pki/issuing"])
        assert {"pki/round-1", "pki/round-2", "pki/damaged"} <= outer.keys()
        assert "Secret of the release namespace" in page.text
        assert "Secret pki/tls" in page.text


async def test_accounts_and_credentials_show_what_they_used(visitor: Visitor) -> None:
    page = await visitor.get("accounts")
    assert "pki/web pki/web yes 1 3 1 1 2026-11-30T09:00:0" in page.text
    assert f"{CLIENT} valid pki/web pki/web mailto:shop@example.com 3 1 1" in page.text
    assert "No accounts." in (await visitor.get("accounts", params={"q": "nobody"})).text
    assert "1 to 1 of 1 accounts." in (await visitor.get("accounts", params={"q": "SHOP@"})).text


def named(name: str) -> ObjectMeta:
    return ObjectMeta(namespace="pki", name=name)


def key_id(signer: Signer) -> str:
    return SubjectKeyIdentifier.from_public_key(signer.certificate.public_key()).digest.hex()


def require_readable(page: Page, path: str) -> None:
    """What screen readers and the keyboard need: landmarks, headings, labels, captions, tables of pictures."""
    tags = [each.tag for each in page.elements]
    assert [tags.count(each) for each in ("main", "header", "footer", "h1")] == [1] * 4, path
    assert page.all("html")[0].attributes["lang"] == "en"
    links = page.all("a")
    assert (links[0].attributes["href"], page.all("main")[0].attributes["id"]) == ("#main", "main")
    assert all(each.text.strip() for each in links), path
    headings = [int(each.tag[1]) for each in page.elements if re.fullmatch("h[1-6]", each.tag)]
    assert all(after - before <= 1 for before, after in pairwise(headings)), path
    identifiers = [name for each in page.elements if (name := each.attributes.get("id"))]
    assert len(identifiers) == len(set(identifiers)), path
    for each in page.elements:
        for name in ("aria-labelledby", "aria-describedby", "list", "for"):
            assert each.attributes.get(name) in {None, *identifiers}, (path, each)
        if each.tag in {"input", "select", "textarea"}:
            assert each.attributes["id"] in {label.attributes["for"] for label in page.all("label")}, path
        if each.tag == "svg":
            assert each.attributes["role"] == "img"
            assert each.attributes["aria-describedby"] in {table.attributes.get("id") for table in page.all("table")}
    assert len(page.all("table")) == len(page.all("caption")), path
    assert all(each.attributes.get("scope") in {"col", "row"} for each in page.all("th")), path
    current = [each for each in links if each.attributes.get("aria-current") == "page"]
    assert len(current) == 1, path


@pytest.mark.requirement("P10")
async def test_every_page_reads_well_without_a_mouse_and_eyes(visitor: Visitor) -> None:
    for path in (
        *("", "certificates", "orders", "authorities", "profiles", "accounts", "try"),
        *(f"orders/pki/{FAILED}", f"accounts/pki/{CLIENT}", "profiles/pki/web", "orders/pki/none"),
        "try?profile=pki/web&names=shop.apps.example.com",
    ):
        require_readable(await visitor.get(path), path)
