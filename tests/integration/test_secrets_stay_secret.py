"""After a whole story, with debug logs: nothing secret is in a log, a resource, an Event or a metric (SEC64)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.load.client import Client, http01_of
from e2e.load.exchange import Answer, Exchange
from e2e.load.keys import AccountKey, b64url, certificate_key, certificate_request
from e2e.support import http01
from e2e.support.programs import RELEASE
from tests.support.eventually import becomes
from tests.support.installation import PROFILE, Installation, refusal

KINDS = "certificateauthorities,certificatepolicies,certificateprofiles,eabcredentials,acmeaccounts,acmeorders"


class Wire(Exchange):
    """Remembers every signed request that it sends."""

    def __init__(self, directory_url: str, **options: Any) -> None:
        super().__init__(directory_url, **options)
        self.sent: list[dict[str, str]] = []

    async def request(self, method: str, url: str, **options: Any) -> Answer:
        if body := options.get("body"):
            self.sent.append(json.loads(body))
        return await super().request(method, url, **options)


@pytest.mark.requirement("SEC12b", "SEC59", "SEC64")
async def test_after_a_whole_story_no_secret_is_found_outside_of_secrets(installation: Installation, team: str) -> None:
    secrets = await told(installation, team)
    assert all(len(text) >= 32 for text in secrets.values()), "shorter texts would be found by chance"
    for place, text in places(installation, team):
        found = [what for what, value in secrets.items() if value in text]
        assert not found, f"{place} holds {found}"


async def told(installation: Installation, team: str) -> dict[str, str]:
    """A story with a good end and several bad ones; all secrets that came into it, by what they are."""
    enrollment = installation.profile(team)
    first = installation.credential(team)
    async with Wire(enrollment.directory_url, tls=enrollment.tls) as wire:
        client = Client(wire, AccountKey.generate())
        await client.register(external_account=first, contact=["mailto:someone@example.com"])
        certificate = await client.obtain(["story.test"], installation.answerer.add)
        requests = [await finalized_in_vain(installation, client)]
        await refused_in_many_ways(installation, client)
        installation.cluster.kubectl("delete", "secret", f"{PROFILE}-eab", f"--namespace={team}")
        wait = ("wait", "--for=create", f"secret/{PROFILE}-eab", f"--namespace={team}", "--timeout=120s")
        installation.cluster.kubectl(*wait)
        second = installation.credential(team)
        newcomer = Client(wire, AccountKey.generate())
        assert await refusal(newcomer.register(external_account=first)) == "unauthorized"
        await newcomer.register(external_account=second)
        assert certificate.chain
        return {
            **kept(installation),
            "the EAB key": b64url(first.mac_key),
            "the second EAB key": b64url(second.mac_key),
            "the EAB key in base64": base64.b64encode(b64url(first.mac_key).encode()).decode()[:40],
            **{f"the signature of request {at}": each["signature"] for at, each in enumerate(wire.sent)},
            **{f"the payload of request {at}": each["payload"] for at, each in long_payloads(wire)},
            **{f"CSR {at}": b64url(each)[100:160] for at, each in enumerate(requests)},
        }


def kept(installation: Installation) -> dict[str, str]:
    """Lines from the middle of every private key in the release namespace, and the nonce key."""
    found = {}
    items = json.loads(installation.cluster.kubectl("get", "secrets", f"--namespace={RELEASE}", "--output=json"))
    for each in items["items"]:
        name = each["metadata"]["name"]
        for key, value in each["data"].items():
            text = base64.b64decode(value)
            if b"PRIVATE KEY" in text:
                found[f"{name} {key}"] = longest_line(text.decode())
            elif key in {"key", "secret"}:
                found[f"{name} {key} in base64"] = value[:40]
                found[f"{name} {key} in hex"] = text.hex()
    assert any(name.startswith("ca-") for name in found)
    assert "kms-acme-nonce key in hex" in found
    return found


def longest_line(pem: str) -> str:
    """Of the private key: its base64."""
    body = pem.partition("PRIVATE KEY-----")[2].partition("-----END")[0]
    return max(body.splitlines(), key=len)


def long_payloads(wire: Wire) -> Iterator[tuple[int, dict[str, str]]]:
    return ((at, each) for at, each in enumerate(wire.sent) if len(each["payload"]) >= 32)


async def finalized_in_vain(installation: Installation, client: Client) -> bytes:
    """A CSR that the server refuses, and so might want to show."""
    order = await installation.proven(client, "refused.test")
    request = certificate_request(["another.test"], certificate_key())
    assert await refusal(client.finalize(order, request)) == "badCSR"
    return request


async def refused_in_many_ways(installation: Installation, client: Client) -> None:
    exchange, url = client.exchange, (await client.exchange.directory())["newOrder"]
    assert await refusal(client.new_order(["not.allowed.example.com"])) == "rejectedIdentifier"
    for payload in (b"not json", b'{"identifiers": 1}'):
        answer = await exchange.signed(url, payload, key=client.key, kid=client.account_url)
        assert answer.status == 400
    forged = await exchange.signed(url, {}, key=AccountKey.generate(), kid=client.account_url)
    assert forged.status == 400
    failing = await client.new_order(["failing.test"])
    challenge = http01_of(await client.authorization(failing.authorizations[0]))
    installation.answerer.behave(challenge["token"], http01.Text("something else"))
    await client.respond(challenge)

    async def has_failed() -> bool:
        return (await client.order(failing.url)).status == "invalid"

    await becomes(has_failed)


def places(installation: Installation, team: str) -> Iterator[tuple[str, str]]:
    """Where operators of clusters look, with what stands there."""
    kubectl = installation.cluster.kubectl
    for each in installation.programs.all:
        yield f"the log of the {each.name}", each.log.read_text(encoding="utf-8")
        yield f"the metrics of the {each.name}", each.get("/metrics")[1]
    yield "resources", kubectl("get", KINDS, f"--namespace={team}", "--output=yaml", "--show-managed-fields")
    for kind in ("events", "events.events.k8s.io", "configmaps"):
        for namespace in (team, RELEASE):
            yield f"{kind} in {namespace}", kubectl("get", kind, f"--namespace={namespace}", "--output=yaml")
    # Not their data: metadata is read by more people than data is.
    for namespace in (team, RELEASE):
        yield (
            f"metadata of Secrets in {namespace}",
            kubectl("get", "secrets", f"--namespace={namespace}", "--output=jsonpath={.items[*].metadata}"),
        )


@pytest.mark.requirement("SEC63")
async def test_the_logs_that_were_searched_tell_the_story(installation: Installation, team: str) -> None:
    """What finds nothing must have had something to search."""
    async with installation.client(installation.open_profile(team)) as client:
        await client.obtain(["logged.test"], installation.answerer.add)
    texts = dict(places(installation, team))
    assert "logged.test" in texts["the log of the server-1"]
    assert '"level":"debug"' in "".join(texts.values())
    assert "kms_acme_requests_total" in texts["the metrics of the server-1"]
    assert "logged.test" in texts["resources"]
