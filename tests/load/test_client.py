from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from e2e.load.client import Client, OrderFailed, Refused
from e2e.load.exchange import Exchange, ProtocolError
from e2e.load.keys import AccountKey, ExternalAccount
from tests.support.scripted_acme import ScriptedAcme, problem

NAMES = ["a.load.test", "b.load.test"]


@pytest.fixture
async def exchange(acme: ScriptedAcme) -> AsyncIterator[Exchange]:
    async with Exchange(f"{acme.base}/directory") as exchange:
        yield exchange


class Sleeper:
    """Sleeps no time and remembers how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def client(exchange: Exchange, sleeper: Sleeper) -> Client:
    return Client(exchange, AccountKey.generate(), sleep=sleeper)


@pytest.fixture
async def account(client: Client) -> Client:
    await client.register()
    return client


def publish(_token: str, _thumbprint: str) -> None:
    """Publish nothing: the scripted server does not look."""


AGAIN: dict[str, Any] = {"Retry-After": "60"}


def document(body: Any, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(body, status=status, headers=headers)


async def test_a_certificate_is_obtained_for_two_names(acme: ScriptedAcme, account: Client) -> None:
    published: list[tuple[str, str]] = []
    certificate = await account.obtain(NAMES, lambda *told: published.append(told))
    assert published == [("t", account.key.thumbprint)] * 2
    assert certificate.order.status == "valid"
    assert acme.count()["challenge"] == 2


async def test_an_order_of_one_name_takes_nine_requests_when_nothing_has_to_be_waited_for(
    acme: ScriptedAcme, account: Client
) -> None:
    before = len(acme.seen)
    await account.new_nonce()
    await account.obtain(NAMES[:1], publish)
    assert [each.step for each in acme.seen[before:]] == [
        "nonce", "new-order", "authorization", "challenge", "authorization", "order", "finalize", "order",
        "certificate",
    ]  # fmt: skip


async def test_every_step_is_observed(exchange: Exchange) -> None:
    steps: dict[str, float] = {}
    client = Client(exchange, AccountKey.generate(), observe=steps.__setitem__)
    await client.register()
    await client.new_nonce()
    await client.obtain(NAMES, publish)
    assert set(steps) == {
        "new-account", "new-nonce", "new-order", "authorization", "challenge", "authorization (poll)", "order (ready)",
        "finalize", "order (valid)", "certificate",
    }  # fmt: skip
    assert all(seconds > 0 for seconds in steps.values())


async def test_requests_are_signed_by_the_account_for_the_url_they_go_to(acme: ScriptedAcme, account: Client) -> None:
    order = await account.new_order(NAMES)
    first, second = acme.seen[-2:]
    assert first.protected["jwk"] == account.key.jwk
    assert "jwk" not in second.protected
    assert second.protected["kid"] == f"{acme.base}/account/1"
    assert second.protected["url"] == f"{acme.base}/new-order"
    assert order.url == f"{acme.base}/order/0"


async def test_no_nonce_is_used_twice(acme: ScriptedAcme, account: Client) -> None:
    await account.obtain(NAMES, publish)
    nonces = [each.protected["nonce"] for each in acme.seen if each.protected]
    assert len(nonces) == len(set(nonces))
    assert all(first != second for first, second in pairwise(nonces))


async def test_bad_nonce_is_retried_once_with_another_nonce(acme: ScriptedAcme, account: Client) -> None:
    acme.script("new-order", problem("badNonce", 400))
    await account.new_order(NAMES)
    assert account.counts == {"badNonce": 1}
    assert acme.count()["new-order"] == 2


async def test_a_second_bad_nonce_is_an_error(acme: ScriptedAcme, account: Client) -> None:
    acme.script("new-order", problem("badNonce", 400), problem("badNonce", 400))
    with pytest.raises(Refused, match="badNonce"):
        await account.new_order(NAMES)


async def test_unavailable_is_waited_for_as_long_as_the_server_says(
    acme: ScriptedAcme, account: Client, sleeper: Sleeper
) -> None:
    retry = {"Retry-After": "3"}
    acme.script("new-order", *(problem("serverInternal", 503, **retry) for _ in range(2)))
    await account.new_order(NAMES)
    assert sleeper.slept == [3.0, 3.0]
    assert account.counts == {"503": 2}


async def test_unavailable_for_ever_is_an_error(acme: ScriptedAcme, account: Client) -> None:
    retry = {"Retry-After": "1"}
    acme.script("new-order", *(problem("serverInternal", 503, **retry) for _ in range(9)))
    with pytest.raises(Refused, match="serverInternal"):
        await account.new_order(NAMES)
    assert acme.count()["new-order"] == 5


async def test_unavailable_without_retry_after_is_a_breach(acme: ScriptedAcme, account: Client) -> None:
    acme.script("new-order", problem("serverInternal", 503))
    with pytest.raises(ProtocolError, match="Retry-After"):
        await account.new_order(NAMES)


async def test_a_refusal_carries_the_problem(acme: ScriptedAcme, account: Client) -> None:
    acme.script("new-order", problem("rejectedIdentifier", 403))
    with pytest.raises(Refused, match="said rejectedIdentifier") as caught:
        await account.new_order(NAMES)
    assert caught.value.answer.problem_type == "rejectedIdentifier"
    assert caught.value.answer.status == 403


ORDER = {"status": "pending", "identifiers": [], "authorizations": [], "finalize": "f"}


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (lambda: document(ORDER, 200, Location="o"), "answers 201"),
        (lambda: document(ORDER, 201), "no Location"),
        (lambda: document(ORDER, 201, Location="o"), "other identifiers"),
        (lambda: document({"status": "pending"}, 201, Location="o"), "an order without"),
        (lambda: document(ORDER | {"certificate": "c"}, 201, Location="o"), "certificate is for valid orders"),
        (lambda: document(ORDER | {"status": "invalid"}, 201, Location="o"), "invalid order without error"),
        (lambda: document(ORDER, 201, **{"Location": "o", "X-Bare": "1"}), 'rel="index"'),
        (
            lambda: document(ORDER, 201, **{"Location": "o", "X-Bare": "1", "Link": '<d>;rel="index"'}),
            "no Replay-Nonce",
        ),
        (lambda: document(ORDER, 201, **{"Location": "o", "Replay-Nonce": "not base64!"}), "not base64url"),
        (lambda: document({}, 400), "without problem document"),
        (lambda: problem("unauthorized", 403, **{"X-Bare": "1"}), 'rel="index"'),
        (lambda: web.Response(text="{", status=201, headers={"Location": "o"}), "not JSON"),
    ],
)  # fmt: skip
async def test_an_answer_to_new_order_that_breaks_the_rules_is_a_breach(
    acme: ScriptedAcme, account: Client, answer: Any, rule: str
) -> None:
    acme.script("new-order", answer())
    with pytest.raises(ProtocolError, match=rule):
        await account.new_order(NAMES)


async def test_a_certificate_that_another_server_shows_too_early_is_counted(acme: ScriptedAcme) -> None:
    shown = ORDER | {"identifiers": [{"type": "dns", "value": name} for name in NAMES], "certificate": "c"}
    async with Exchange(f"{acme.base}/directory", lenient=True) as exchange:
        client = Client(exchange, AccountKey.generate())
        await client.register()
        acme.script("new-order", document(shown, 201, Location="o"))
        assert (await client.new_order(NAMES)).status == "pending"
        assert exchange.breaches["certificate is for valid orders (M60)"] == 1


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"type": "about:blank", "status": 400}, "unregistered type"),
        ({"type": "urn:ietf:params:acme:error:malformed", "status": 500}, "another status"),
    ],
)
async def test_a_problem_document_that_breaks_the_rules_is_a_breach(
    acme: ScriptedAcme, account: Client, body: dict[str, Any], rule: str
) -> None:
    acme.script("new-order", web.json_response(body, status=400, content_type="application/problem+json"))
    with pytest.raises(ProtocolError, match=rule):
        await account.new_order(NAMES)


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (lambda: document({"status": "valid"}, 202, Location="a"), "answers 201 or 200"),
        (lambda: document({"status": "valid"}, 201), "no Location"),
        (lambda: document({"status": "revoked"}, 200, Location="a"), "not valid"),
    ],
)
async def test_an_answer_to_new_account_that_breaks_the_rules_is_a_breach(
    acme: ScriptedAcme, client: Client, answer: Any, rule: str
) -> None:
    acme.script("account", answer())
    with pytest.raises(ProtocolError, match=rule):
        await client.register()


async def test_registration_sends_contact_binding_and_only_return_existing(acme: ScriptedAcme, client: Client) -> None:
    credential = ExternalAccount.parse("key-1", "c2VjcmV0")
    await client.register(contact=["mailto:a@b.test"], external_account=credential, only_return_existing=True)
    payload = acme.seen[-1].payload
    assert payload["contact"] == ["mailto:a@b.test"]
    assert payload["onlyReturnExisting"] is True
    assert payload["termsOfServiceAgreed"] is True
    assert payload["externalAccountBinding"] == credential.binding(client.key, f"{acme.base}/account")


async def test_a_challenge_answer_without_its_authorization_is_a_breach(acme: ScriptedAcme, account: Client) -> None:
    order = await account.new_order(NAMES)
    authorization = await account.authorization(order.authorizations[0])
    acme.script("challenge", document({"url": authorization["challenges"][1]["url"]}))
    with pytest.raises(ProtocolError, match="up"):
        await account.respond(authorization["challenges"][1])


async def test_an_authorization_that_is_pending_is_asked_for_again(
    acme: ScriptedAcme, account: Client, sleeper: Sleeper
) -> None:
    pending = {"status": "pending", "identifier": {"type": "dns", "value": NAMES[0]}, "challenges": []}
    order = await account.new_order(NAMES[:1])
    challenge = {"type": "http-01", "url": f"{acme.base}/challenge/100", "token": "t"}
    acme.script("authorization", document(pending | {"challenges": [challenge]}), document(pending))
    await account.obtain(NAMES[:1], publish)
    assert len(sleeper.slept) == 1
    assert order.status == "pending"


async def test_an_authorization_that_is_valid_already_is_not_answered(acme: ScriptedAcme, account: Client) -> None:
    valid = {"status": "valid", "identifier": {"type": "dns", "value": NAMES[0]}, "challenges": []}
    acme.script("authorization", document(valid), document(valid))
    invalid = dict(ORDER, status="invalid", error={"detail": "nobody answered"})
    acme.script("order", document(invalid))
    with pytest.raises(OrderFailed, match="nobody answered"):
        await account.obtain(NAMES[:1], publish)
    assert acme.count()["challenge"] == 0


async def test_a_failed_authorization_tells_the_servers_reason(acme: ScriptedAcme, account: Client) -> None:
    base = {"identifier": {"type": "dns", "value": NAMES[0]}}
    challenge = {"type": "http-01", "url": f"{acme.base}/challenge/0", "token": "t"}
    failed = {**base, "status": "invalid", "challenges": [challenge | {"error": {"detail": "connection refused"}}]}
    acme.script("authorization", document({**base, "status": "pending", "challenges": [challenge]}), document(failed))
    with pytest.raises(OrderFailed, match="connection refused"):
        await account.obtain(NAMES[:1], publish)


@pytest.mark.parametrize(
    "answer",
    [
        document({"suggestedWindow": {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}}, **AGAIN),
        document({"suggestedWindow": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}}),
        document({}, status=404),
    ],
    ids=["window ends before it starts", "no Retry-After", "404"],
)
async def test_renewal_information_that_breaks_the_rules_is_a_breach(
    acme: ScriptedAcme, account: Client, answer: web.Response
) -> None:
    certificate = await account.obtain(NAMES[:1], publish)
    acme.script("renewal-info", answer)
    with pytest.raises(ProtocolError, match="ARI-M"):
        await account.renewal_info(certificate)


async def test_an_authorization_without_http01_is_a_failure(acme: ScriptedAcme, account: Client) -> None:
    body = {"status": "pending", "identifier": {"type": "dns", "value": NAMES[0]}, "challenges": []}
    acme.script("authorization", document(body))
    with pytest.raises(OrderFailed, match="no http-01"):
        await account.obtain(NAMES[:1], publish)


@pytest.mark.parametrize(("names", "rule"), [(NAMES[:1], "another key"), (["evil.test"], "issued")])
async def test_a_certificate_for_another_key_or_name_is_a_breach(
    acme: ScriptedAcme, account: Client, names: list[str], rule: str
) -> None:
    chain = acme.wrong_key_chain(names)
    acme.script("certificate", web.Response(text=chain, content_type="application/pem-certificate-chain"))
    with pytest.raises(ProtocolError, match=rule):
        await account.obtain(NAMES[:1], publish)


async def test_a_certificate_of_another_media_type_is_a_breach(acme: ScriptedAcme, account: Client) -> None:
    acme.script("certificate", web.Response(text="-----BEGIN", content_type="text/plain"))
    with pytest.raises(ProtocolError, match="text/plain"):
        await account.obtain(NAMES[:1], publish)
