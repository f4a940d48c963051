"""What the API server is asked for, counted on its audit log: the write budget, and what strangers cost (SEC37)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from e2e.cluster.audit import AuditLog
from e2e.load.client import Client
from e2e.load.keys import AccountKey, ExternalAccount
from tests.support.installation import SERVER, Installation


@pytest.fixture
async def client(installation: Installation, team: str) -> AsyncIterator[Client]:
    """A client with an account on an open profile whose server has warm caches: it has issued a certificate."""
    async with installation.client(installation.open_profile(team)) as client:
        await client.obtain(["warm.test"], installation.answerer.add)
        yield client


@pytest.fixture
def audit(installation: Installation) -> AuditLog:
    return installation.cluster.audit()


def asked(audit: AuditLog) -> Counter[str]:
    """What the server has asked the API server for: `update acmeorders/status` and how often.

    Watches do not count, and neither does the lease that a server renews every few seconds whatever it is asked.
    """
    counts: Counter[str] = Counter()
    for each, count in audit.counts(user=SERVER).items():
        if each.verb != "watch" and not each.resource.startswith("leases"):
            subresource = f"/{each.subresource}" if each.subresource else ""
            counts[f"{each.verb} {each.resource.partition('.')[0]}{subresource}"] += count
    return counts


@pytest.mark.parametrize("count", [1, 10])
async def test_a_certificate_costs_three_writes_and_no_read_however_many_names_it_has(
    installation: Installation, client: Client, audit: AuditLog, count: int
) -> None:
    names = [f"budget-{number}.test" for number in range(count)]
    audit.mark()
    await client.obtain(names, installation.answerer.add)
    assert asked(audit) == {"create acmeorders": 1, "update acmeorders/status": 2}


@pytest.mark.requirement("M71", "S59")
@pytest.mark.parametrize("count", [1, 10])
async def test_a_certificate_for_names_that_are_proven_costs_two_writes_and_no_read(
    installation: Installation, client: Client, audit: AuditLog, count: int
) -> None:
    names = [f"again-{number}.test" for number in range(count)]
    first = await client.obtain(names, installation.answerer.add)
    audit.mark()
    second = await client.obtain(names, installation.answerer.add)
    assert second.order.authorizations == first.order.authorizations
    assert asked(audit) == {"create acmeorders": 1, "update acmeorders/status": 1}


@pytest.mark.requirement("SEC50")
async def test_where_ownership_is_not_validated_a_certificate_costs_two_writes_and_no_read(
    installation: Installation, team: str, audit: AuditLog
) -> None:
    enrollment = installation.profile(team, ownershipValidation="Skipped")
    async with installation.client(enrollment, external_account=installation.credential(team)) as client:
        await client.obtain(["warm.test"], installation.answerer.add)
        audit.mark()
        certificate = await client.obtain(["trusted-1.test", "trusted-2.test"], installation.answerer.add)
        assert asked(audit) == {"create acmeorders": 1, "update acmeorders/status": 1}
    stored = installation.order(team, certificate.order.url)
    assert stored["spec"]["names"] == "trusted-1.test,trusted-2.test"
    assert [each["authorization"] for each in stored["spec"]["authorized"]] == [0, 1]


@pytest.mark.requirement("SEC37")
async def test_asking_for_the_directory_and_for_nonces_asks_the_api_server_nothing(
    client: Client, audit: AuditLog
) -> None:
    exchange = client.exchange
    directory = await exchange.directory()
    audit.mark()
    for _ in range(5):
        assert (await exchange.request("GET", exchange.directory_url)).status == 200
        await exchange.new_nonce("HEAD")
        await exchange.new_nonce("GET")
    assert (await exchange.request("GET", directory["newAccount"])).status == 405
    assert asked(audit) == {}


@pytest.mark.requirement("SEC37")
async def test_a_bad_signature_asks_the_api_server_nothing(client: Client, audit: AuditLog) -> None:
    exchange, stranger = client.exchange, AccountKey.generate()
    directory = await exchange.directory()
    audit.mark()
    for _ in range(5):
        order = {"identifiers": [{"type": "dns", "value": "forged.test"}]}
        forged = await exchange.signed(directory["newOrder"], order, key=stranger, kid=client.account_url)
        assert (forged.status, forged.problem_type) == (400, "malformed")
        another = {"jwk": client.key.jwk}
        opened = await exchange.signed(directory["newAccount"], {}, key=stranger, protected=another)
        assert (opened.status, opened.problem_type) == (400, "malformed")
    assert asked(audit) == {}


UNKNOWN: dict[str, Callable[[str], str]] = {
    "never seen": lambda url: url[:-52] + "a" * 52,
    "malformed": lambda url: f"{url}%00",
    "elsewhere": lambda url: url.replace("localhost", "example.com"),
    "too long": lambda url: url + "a" * 3000,
}


@pytest.mark.requirement("SEC37")
@pytest.mark.parametrize("made_up", UNKNOWN.values(), ids=UNKNOWN)
async def test_an_unknown_kid_costs_at_most_one_read_of_one_object(
    client: Client, audit: AuditLog, made_up: Callable[[str], str]
) -> None:
    assert client.account_url is not None
    exchange, unknown = client.exchange, made_up(client.account_url)
    url = (await exchange.directory())["newOrder"]
    audit.mark()
    answer = await exchange.signed(url, {}, key=AccountKey.generate(), kid=unknown)
    assert 400 <= answer.status < 500
    assert asked(audit) in ({}, {"get acmeaccounts": 1})


@pytest.mark.requirement("SEC37")
async def test_an_unsigned_request_asks_the_api_server_nothing(client: Client, audit: AuditLog) -> None:
    exchange = client.exchange
    directory = await exchange.directory()
    audit.mark()
    for body in (b"", b"{}", b'{"protected":"","payload":"","signature":""}', b"\xff" * 2000):
        for url in (directory["newAccount"], directory["newOrder"]):
            answer = await exchange.request("POST", url, body=body, headers={"Content-Type": "application/jose+json"})
            assert (answer.status, answer.problem_type) == (400, "malformed")
    assert asked(audit) == {}


@pytest.mark.requirement("SEC37")
async def test_a_made_up_eab_key_identifier_writes_nothing_and_costs_one_read(
    installation: Installation, team: str, audit: AuditLog
) -> None:
    enrollment = installation.profile(team)
    async with installation.client(enrollment, register=False) as client:
        url = (await client.exchange.directory())["newAccount"]
        made_up = ExternalAccount("nobody-has-this-kid", b"k" * 32)
        audit.mark()
        payload = {"externalAccountBinding": made_up.binding(client.key, url)}
        answer = await client.exchange.signed(url, payload, key=client.key)
    assert (answer.status, answer.problem_type) == (403, "unauthorized")
    counts = asked(audit)
    # That the key has no account yet is looked up too: such requests are signed, and M76 comes before EAB.
    assert counts == {"get acmeaccounts": 1, "get secrets": 1}


async def test_a_request_of_a_known_account_that_is_refused_writes_nothing(client: Client, audit: AuditLog) -> None:
    url = (await client.exchange.directory())["newOrder"]
    audit.mark()
    order = {"identifiers": [{"type": "dns", "value": "not.allowed.example.com"}]}
    answer = await client.exchange.signed(url, order, key=client.key, kid=client.account_url)
    assert (answer.status, answer.problem_type) == (403, "rejectedIdentifier")
    assert asked(audit) == {}
