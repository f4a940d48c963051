"""Every decision that a client can provoke, on the whole server: it writes exactly one line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.accounts.transitions import resumed, suspended
from acme_server.audit.decisions import Envelope, of_order
from acme_server.audit.record import AuditRecord, NamedProblem, NamespacedName
from acme_server.orders import transitions
from acme_server.state.suspensions import Suspensions
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms.resources.orders import ACMEOrder, StoredProblem
from tests.support import pki
from tests.support.acme import EXTERNAL_URL, ClientKey, b64, binding
from tests.support.acmeorders import NOW, order, proven
from tests.support.audit import Lines
from tests.support.domain import KEY_ID_1, MAC, World, certificate_of, wrong
from tests.support.eventually import until
from tests.support.server import Answer, Server, running_server


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def server(lines: Lines) -> AsyncIterator[Server]:
    """A server whose profile requires bindings, and a client with an account of the credential team/cred."""

    def configure(world: World) -> None:
        world.configure(external_account_binding="Required", pre_authorization="Enabled")
        world.audit = lines.stream(world.clock)

    async with running_server(configure) as running:
        running.world.put_credential()
        await register(running)
        lines.take()
        yield running


async def register(server: Server, key: ClientKey | None = None, **changes: Any) -> Answer:
    chosen = key or server.key
    url = f"{EXTERNAL_URL}/acme/pki/web/new-account"
    bound = binding(chosen, url=url, **{"kid": KEY_ID_1, **changes})
    return await server.register(chosen, externalAccountBinding=bound)


def only(lines: Lines) -> AuditRecord:
    (line,) = lines.take()
    return line


async def stored(server: Server) -> ACMEOrder:
    ((namespace, name), *_) = server.world.stored_orders()
    found = server.world.api.read(ORDERS, namespace, name)
    assert found is not None
    return found


async def test_the_story_of_a_certificate_is_one_line_for_each_decision(server: Server, lines: Lines) -> None:
    key = ClientKey()
    await register(server, key)
    opened = only(lines)
    assert (opened.decision, opened.by, opened.client) == ("account.opened", "key", "127.0.0.1")
    assert (opened.namespace, opened.profile) == ("pki", "web")
    assert opened.credential == NamespacedName(namespace="team", name="cred")
    await register(server, key)  # finds the account: nothing is decided
    assert lines.take() == []
    order = await server.order("a.example.com", "b.example.com")
    created = only(lines)
    assert (created.decision, created.names) == ("order.opened", ("a.example.com", "b.example.com"))
    assert created.credential == NamespacedName(namespace="team", name="cred")
    assert created.client_namespace == "team"
    for url in order.json["authorizations"]:
        challenge = (await server.post(url)).json["challenges"][0]
        await server.post(challenge["url"], {})
    await until(server.world.services.worker.is_idle)
    ready = await server.post(order.location)
    proofs = lines.take()
    assert [(each.decision, each.names, each.challenge) for each in proofs] == [
        ("challenge.valid", ("a.example.com",), "http-01"),
        ("challenge.valid", ("b.example.com",), "http-01"),
    ]
    assert {(each.by, each.client, each.order) for each in proofs} == {("account", "127.0.0.1", created.order)}
    csr = pki.csr("a.example.com", "b.example.com")
    await server.finalize(ready, csr)
    await server.finalize(ready, csr)  # the same CSR again is the same certificate
    issued = only(lines)
    leaf = certificate_of(await stored(server))
    assert (issued.decision, issued.serial_number) == ("certificate.issued", f"{leaf.serial_number:x}")
    assert issued.account == created.account
    assert issued.not_after is not None
    chain = await server.certificate(await server.post(order.location))
    der = b64(chain.public_bytes(Encoding.DER))
    revoked = await server.post(f"{server.base}/revoke-cert", {"certificate": der, "reason": 4})
    assert revoked.status == 200
    line = only(lines)
    assert (line.decision, line.reason, line.serial_number) == (
        "certificate.revoked",
        "superseded",
        issued.serial_number,
    )
    await server.post(f"{server.base}/revoke-cert", {"certificate": der})
    refused = only(lines)
    assert (refused.decision, refused.rule, refused.serial_number) == (
        "revocation.refused",
        "alreadyRevoked",
        issued.serial_number,
    )


async def test_changes_of_an_account_are_decisions(server: Server, lines: Lines) -> None:
    kid = server.kid
    assert kid is not None
    await server.post(kid, {"contact": ["mailto:a@example.com"]})
    await server.post(kid, {"contact": ["mailto:a@example.com"]})
    assert lines.decisions() == ["account.updated"]
    order = await server.post(f"{server.base}/new-authz", {"identifier": {"type": "dns", "value": "a.example.com"}})
    assert lines.decisions() == ["authorization.opened"]
    await server.post(order.location, {"status": "deactivated"})
    assert lines.decisions() == ["authorization.deactivated", "order.invalid"]
    await server.post(kid, {"status": "deactivated"})
    assert lines.decisions() == ["account.deactivated"]


async def test_a_proof_that_fails_is_one_line(server: Server, lines: Lines) -> None:
    server.world.validator.failures["a.example.com"] = wrong("the answer is wrong")
    order = await server.order("a.example.com")
    challenge = (await server.post(order.json["authorizations"][0])).json["challenges"][0]
    await server.post(challenge["url"], {})
    await until(server.world.services.worker.is_idle)
    opened, failed = lines.take()
    assert (opened.decision, failed.decision, failed.rule) == ("order.opened", "challenge.invalid", "unauthorized")
    assert failed.detail == "the answer is wrong"


@pytest.mark.parametrize(
    ("names", "members", "rule"),
    [
        (("www.example.org",), {}, "rejectedIdentifier"),
        (("a_b.example.com",), {}, "malformed"),
        (("www.example.com",), {"profile": "none"}, "invalidProfile"),
        (("www.example.com",), {"notAfter": "2001-01-01T00:00:00Z"}, "malformed"),
        (("www.example.com",), {"replaces": "AA.AA"}, "malformed"),
        (("x" * 900, *("n" * 1000,) * 9), {}, "malformed"),
    ],
)
async def test_each_refused_order_is_one_line_that_names_the_rule(
    server: Server, lines: Lines, names: tuple[str, ...], members: dict[str, Any], rule: str
) -> None:
    answer = await server.order(*names, **members)
    line = only(lines)
    assert (line.decision, line.rule) == ("order.refused", answer.problem["type"]) == ("order.refused", rule)
    assert (line.account, line.by) == ((server.kid or "").rpartition("/")[2], "account")
    assert line.credential == NamespacedName(namespace="team", name="cred")
    assert len(line.names) + line.names_omitted == len(names)
    assert answer.problem["detail"].startswith((line.detail or "none")[:400])
    if "subproblems" in answer.problem:
        assert line.problems[0] == NamedProblem(rule=rule, name=names[0], detail=line.problems[0].detail)


async def test_an_account_that_may_not_act_is_refused_in_one_line(server: Server, lines: Lines) -> None:
    server.world.change_credential(suspended=True)
    await server.order("www.example.com")
    line = only(lines)
    assert (line.decision, line.rule, line.names) == ("order.refused", "unauthorized", ("www.example.com",))
    await register(server, ClientKey())
    line = only(lines)
    assert (line.decision, line.by, line.rule) == ("account.refused", "key", "unauthorized")
    assert line.credential == NamespacedName(namespace="team", name="cred")


async def test_refused_accounts_keys_and_requests_are_one_line_each(server: Server, lines: Lines) -> None:
    await server.register(ClientKey())
    line = only(lines)
    assert (line.decision, line.rule, line.credential) == ("account.refused", "externalAccountRequired", None)
    await register(server, ClientKey(), mac_key=b"wrong")
    assert only(lines).decision == "account.refused"
    await server.register(ClientKey(), onlyReturnExisting=True)  # a question, not a request
    assert lines.take() == []
    ready = await server.ready("a.example.com")
    lines.take()
    await server.finalize(ready, pki.csr("b.example.com"))
    line = only(lines)
    assert (line.decision, line.rule, line.names) == ("certificate.refused", "badCSR", ("a.example.com",))
    assert line.order == ready.location.rpartition("/")[2]
    await server.post(f"{server.base}/new-authz", {"identifier": {"type": "dns", "value": "*.example.com"}})
    line = only(lines)
    assert (line.decision, line.names) == ("authorization.refused", ("*.example.com",))
    await server.post(f"{server.base}/key-change", {})
    assert only(lines).decision == "account.keyChangeRefused"
    await server.post(f"{server.base}/revoke-cert", {"certificate": b64(pki.csr("a.example.com"))})
    assert only(lines).decision == "revocation.refused"


async def test_whoever_is_not_authenticated_writes_nothing(server: Server, lines: Lines) -> None:
    url = f"{server.base}/new-order"
    await server.post(url, {"identifiers": []}, key=ClientKey())  # another key than the account's
    await server.post(url, {"identifiers": []}, kid=f"{server.base}/accounts/{'a' * 52}")
    await server.post(url, {"identifiers": []}, nonce="none")
    await server.post(url, body=b"{}")
    await server.get(url)
    assert lines.take() == []


async def test_text_of_clients_stays_on_one_line_and_lines_stay_short(server: Server, lines: Lines) -> None:
    for name in ('a\n{"decision":"certificate.issued"}\u2028', "\x7f\x85" * 400, "\U0001f4a3" * 1000, '"\\' * 500):
        await server.order(*(name,) * 4)  # `take` holds each line to the schema, to its length and to one line
        line = only(lines)
        assert line.decision == "order.refused"
        assert line.names_omitted == 4 - len(line.names)


async def test_no_line_has_a_secret(server: Server, lines: Lines) -> None:
    await register(server, ClientKey())
    ready = await server.ready("a.example.com")
    await server.finalize(ready)
    order = await stored(server)
    text = "".join(lines.texts)
    assert order.spec.token_key is not None
    for secret in (MAC, KEY_ID_1, order.spec.token_key, order.status.csr_digest or "-", "BEGIN"):
        assert secret not in text


async def test_a_write_whose_answer_was_lost_still_has_its_line(server: Server, lines: Lines) -> None:
    ready = await server.ready("a.example.com")
    lines.take()
    server.world.api.fail_next("update", ORDERS.plural, 503, done=True)
    csr = pki.csr("a.example.com")
    assert (await server.finalize(ready, csr)).status == 503
    assert lines.decisions() == []
    assert (await server.finalize(ready, csr)).json["status"] == "valid"
    assert lines.decisions() == ["certificate.issued"]


async def test_two_replicas_write_one_line_for_one_certificate(lines: Lines) -> None:
    async with running_server(lambda world: setattr(world, "audit", lines.stream(world.clock))) as server:
        server.world.sole_writer = False
        account = await server.world.account()
        order = await server.world.proven(account)
        other = server.world.another()
        other.audit = server.world.audit
        other.start()
        lines.take()
        der = pki.csr("www.example.com")
        await server.world.finalized(account, order, der)
        await other.finalized(account, order, der)
        assert lines.decisions() == ["certificate.issued"]


async def test_a_revocation_by_an_administrator_is_one_line_and_that_of_a_client_stays_one(lines: Lines) -> None:
    async with running_server(lambda world: setattr(world, "audit", lines.stream(world.clock))) as server:
        world = server.world
        account = await world.account()
        order = await world.finalized(account, await world.proven(account))
        lines.take()
        revoked = transitions.revoked(order, "superseded", now=world.clock())
        world.services.state.orders.apply_event(world.api.put(ORDERS, revoked), False)
        for _ in range(2):
            await world.services.recorder.record_missing()
        line = only(lines)
        assert (line.decision, line.by, line.reason) == ("certificate.revoked", "administrator", "superseded")
        assert line.serial_number == order.status.serial_number


def test_an_external_ca_that_gives_up_refuses_a_certificate() -> None:
    """Whatever wrote the change: the line follows from the order before and after it."""
    before = replace(proven(order()), status=replace(proven(order()).status, state="processing"))
    problem = StoredProblem(type="serverInternal", detail="The issuing CA could not issue the certificate.")
    after = transitions.failed(before, problem, reason="IssuerFailed", now=NOW)
    (line,) = of_order(before, after, Envelope(NOW, "server-0", None))
    assert (line.decision, line.by, line.reason, line.rule) == (
        "certificate.refused",
        "server",
        "IssuerFailed",
        "serverInternal",
    )
    assert not list(of_order(after, after, Envelope(NOW, "server-0", None)))


async def test_what_administrators_do_is_recorded_by_the_replica_that_leads(lines: Lines) -> None:
    async with running_server(lambda world: setattr(world, "audit", lines.stream(world.clock))) as server:
        world, leading = server.world, [False]
        state = world.services.state
        Suspensions(state.account_index, world.audit, is_due=lambda: leading[0])
        state.account_index.mark_complete()
        account = await world.account()
        lines.take()
        changes = []
        for step in (suspended, resumed, suspended):
            account = world.api.put(ACCOUNTS, step(account, now=world.clock()))
            state.accounts.apply_event(account, False)
            changes += lines.take()
            leading[0] = True
        assert [(each.decision, each.by, each.client) for each in changes] == [
            ("account.resumed", "administrator", None),
            ("account.suspended", "administrator", None),
        ]
