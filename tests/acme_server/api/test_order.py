from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse

from acme_server.problems import ProblemType, Refused, SubProblem, Unavailable
from kms.resources import ACMEOrder
from kms.resources.orders import Identifier, StoredProblem, StoredSubProblem
from tests.support.acme import EXTERNAL_URL, NOW, Edge, b64, problem_of, running_edge

URN = "urn:ietf:params:acme:error:"
PREFIX = f"{EXTERNAL_URL}/acme/pki/web"


@dataclass
class Started:
    """A server with one account and one order of it for two names, the first of them a wildcard."""

    edge: Edge
    kid: str
    name: str

    @property
    def order(self) -> ACMEOrder:
        return self.edge.orders.known[self.name]

    async def post(self, path: str, payload: Any = None) -> ClientResponse:
        return await self.edge.post(f"/acme/pki/web/{path}", payload, kid=self.kid)

    async def got(self, path: str, payload: Any = None) -> Any:
        answer = await self.post(path, payload)
        assert answer.status == 200
        return await answer.json()


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    async with running_edge() as edge:
        kid = edge.opened()
        account = next(iter(edge.accounts.known.values()))
        yield Started(edge, kid, edge.orders.put(account, ["*.example.com", "b.example.com"]).metadata.name)


@pytest.mark.requirement("M56", "M106", "C1")
async def test_a_new_order_is_created_with_its_url(started: Started) -> None:
    answer = await started.post("new-order", {"identifiers": [{"type": "dns", "value": "a.example.com"}]})
    order = await answer.json()
    url = answer.headers["Location"]
    id_ = url.removeprefix(f"{PREFIX}/orders/")
    assert answer.status == 201
    assert order == {
        "status": "pending",
        "expires": "2026-11-24T12:00:00Z",
        "identifiers": [{"type": "dns", "value": "a.example.com"}],
        "authorizations": [f"{PREFIX}/authorizations/{id_}-0"],
        "finalize": f"{url}/finalize",
    }


@pytest.mark.requirement("M45", "S46")
async def test_a_refused_order_says_why_for_each_name(started: Started) -> None:
    identifier = Identifier(type="dns", value="x.example.com")
    started.edge.orders.fails = Refused(
        ProblemType.REJECTED_IDENTIFIER,
        "One name is not allowed.",
        subproblems=(
            SubProblem(ProblemType.REJECTED_IDENTIFIER, "x.example.com is not allowed.", identifier),
            SubProblem(ProblemType.MALFORMED, "That is no name."),
        ),
    )
    answer = await started.post("new-order", {"identifiers": [{"type": "dns", "value": "x.example.com"}]})
    assert await problem_of(answer) == {
        "type": "rejectedIdentifier",
        "detail": "One name is not allowed.",
        "status": 403,
        "subproblems": [
            {
                "type": URN + "rejectedIdentifier",
                "detail": "x.example.com is not allowed.",
                "identifier": {"type": "dns", "value": "x.example.com"},
            },
            {"type": URN + "malformed", "detail": "That is no name."},
        ],
    }


@pytest.mark.requirement("S41", "C4")
async def test_an_order_that_cannot_be_made_now_is_asked_for_again(started: Started) -> None:
    started.edge.orders.fails = Unavailable("Later.", 7)
    answer = await started.post("new-order", {"identifiers": [{"type": "dns", "value": "x.example.com"}]})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "7")


async def test_a_refusal_brings_its_headers_and_members(started: Started) -> None:
    started.edge.orders.fails = Refused(
        ProblemType.USER_ACTION_REQUIRED,
        "The terms have changed.",
        members={"instance": "https://example.com/tos"},
    )
    answer = await started.post("new-order", {"identifiers": [{"type": "dns", "value": "x.example.com"}]})
    assert (await problem_of(answer))["instance"] == "https://example.com/tos"
    assert answer.headers.getall("Link") == [
        '<https://example.com/tos>;rel="terms-of-service"',
        f'<{PREFIX}/directory>;rel="index"',
    ]


@pytest.mark.requirement("M45", "M56", "M60")
async def test_an_order_is_read_with_everything_that_it_has(started: Started) -> None:
    order = started.order
    spec = msgspec.structs.replace(order.spec, not_before=NOW, not_after=NOW)
    started.edge.orders.known[started.name] = msgspec.structs.replace(order, spec=spec)
    error = StoredProblem(
        type="unauthorized",
        detail="no",
        subproblems=(
            StoredSubProblem(type="dns", detail="none", identifier=Identifier(type="dns", value="b.example.com")),
            StoredSubProblem(type="dns", detail="none"),
        ),
    )
    started.edge.orders.status(started.order, state="invalid", error=error)
    shown = await started.got(f"orders/{started.name}")
    assert shown["status"] == "invalid"
    assert (shown["notBefore"], shown["notAfter"]) == ("2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z")
    assert shown["identifiers"][0] == {"type": "dns", "value": "*.example.com"}
    assert shown["error"] == {
        "type": URN + "unauthorized",
        "detail": "no",
        "status": 403,
        "subproblems": [
            {"type": URN + "dns", "detail": "none", "identifier": {"type": "dns", "value": "b.example.com"}},
            {"type": URN + "dns", "detail": "none"},
        ],
    }
    assert "certificate" not in shown


async def test_an_error_of_a_type_that_we_do_not_know_is_shown(started: Started) -> None:
    started.edge.orders.status(started.order, state="invalid", error=StoredProblem(type="unheardOf", detail="no"))
    shown = await started.got(f"orders/{started.name}")
    assert shown["error"] == {"type": URN + "unheardOf", "detail": "no", "status": 400}


@pytest.mark.requirement("M116", "C2")
async def test_while_an_order_is_processing_it_says_when_to_ask_again(started: Started) -> None:
    assert "Retry-After" not in (await started.post(f"orders/{started.name}")).headers
    started.edge.orders.status(started.order, state="processing")
    answer = await started.post(f"orders/{started.name}")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Location"] == f"{PREFIX}/orders/{started.name}"


@pytest.mark.requirement("M26")
@pytest.mark.parametrize("path", ["orders/{}", "orders/{}/certificate"])
@pytest.mark.parametrize("payload", [{}, b"x", []])
async def test_what_can_only_be_read_takes_no_payload(started: Started, path: str, payload: Any) -> None:
    assert (await started.post(path.format(started.name), payload)).status == 400


@pytest.mark.requirement("M106", "M111", "C1")
async def test_finalize_hands_on_the_request_and_tells_the_url_to_poll(started: Started) -> None:
    answer = await started.post(f"orders/{started.name}/finalize", {"csr": b64(b"der")})
    assert started.edge.orders.finalized == [b"der"]
    assert (answer.status, answer.headers["Location"]) == (200, f"{PREFIX}/orders/{started.name}")
    assert (await answer.json())["certificate"] == f"{PREFIX}/orders/{started.name}/certificate"


@pytest.mark.requirement("M111")
@pytest.mark.parametrize("payload", [None, {}, {"csr": "a="}, {"csr": 5}, b"{"])
async def test_finalize_needs_a_request(started: Started, payload: Any) -> None:
    answer = await started.post(f"orders/{started.name}/finalize", payload)
    assert (await problem_of(answer))["type"] == "malformed"
    assert started.edge.orders.finalized == []


@pytest.mark.requirement("SEC03")
async def test_the_owner_of_an_order_is_asked_before_what_is_in_the_request(started: Started) -> None:
    for path in ("orders/{}", "orders/{}/finalize", "orders/{}/certificate", "authorizations/{}-0"):
        assert (await started.post(path.format("b" * 32), b"nonsense")).status == 404


@pytest.mark.requirement("M123")
async def test_the_certificate_is_a_pem_chain(started: Started) -> None:
    pem = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
    started.edge.orders.status(started.order, state="valid", certificate=pem)
    answer = await started.post(f"orders/{started.name}/certificate")
    assert (answer.status, await answer.text()) == (200, pem)
    assert answer.headers["Content-Type"] == "application/pem-certificate-chain"


@pytest.mark.requirement("SEC56")
async def test_a_certificate_that_another_replica_has_just_issued_is_found(started: Started) -> None:
    assert (await started.post(f"orders/{started.name}/certificate")).status == 404
    status = msgspec.structs.replace(started.order.status, state="valid", certificate="pem\n")
    started.edge.orders.fresh[started.name] = msgspec.structs.replace(started.order, status=status)
    assert (await started.post(f"orders/{started.name}/certificate")).status == 200


@pytest.mark.requirement("M57", "M61", "M64")
async def test_an_authorization_is_for_the_base_name_of_a_wildcard(started: Started) -> None:
    url = f"{PREFIX}/authorizations/{started.name}-0"
    assert await started.got(f"authorizations/{started.name}-0") == {
        "status": "pending",
        "expires": "2026-11-24T12:00:00Z",
        "identifier": {"type": "dns", "value": "example.com"},
        "wildcard": True,
        "challenges": [
            {"type": "http-01", "url": f"{url}/challenges/http-01", "status": "pending", "token": "token-0"}
        ],
    }
    assert "wildcard" not in await started.got(f"authorizations/{started.name}-1")


async def test_a_position_that_the_order_does_not_have_is_not_found(started: Started) -> None:
    assert (await started.post(f"authorizations/{started.name}-2")).status == 404
    assert (await started.post(f"authorizations/{started.name}-999/challenges/http-01")).status == 404


@pytest.mark.requirement("M65", "M143")
async def test_a_settled_authorization_shows_the_challenges_that_were_tried(started: Started) -> None:
    order = started.order
    first = order.status.authorizations[0]
    tried = msgspec.structs.replace(first.challenges[0], state="valid", validated=NOW)
    other = msgspec.structs.replace(first.challenges[0], type="dns-01")
    settled = msgspec.structs.replace(first, state="valid", challenges=(tried, other))
    started.edge.orders.status(order, authorizations=(settled, order.status.authorizations[1]))
    shown = await started.got(f"authorizations/{started.name}-0")
    assert [each["type"] for each in shown["challenges"]] == ["http-01"]
    assert shown["challenges"][0]["validated"] == "2026-11-23T12:00:00Z"


@pytest.mark.requirement("M134", "SEC02")
async def test_an_authorization_is_deactivated_and_changed_in_no_other_way(started: Started) -> None:
    path = f"authorizations/{started.name}-0"
    for payload in ({}, {"status": "valid"}, {"status": None}, {"status": "revoked"}):
        assert (await problem_of(await started.post(path, payload)))["type"] == "malformed"
    assert (await started.got(path, {"status": "deactivated", "resource": "authz"}))["status"] == "deactivated"


@pytest.mark.requirement("M127", "M129", "M132")
@pytest.mark.parametrize("payload", [{}, {"resource": "challenge", "keyAuthorization": "x"}])
async def test_a_response_to_a_challenge_begins_its_validation(started: Started, payload: Any) -> None:
    url = f"authorizations/{started.name}-1"
    answer = await started.post(f"{url}/challenges/http-01", payload)
    assert started.edge.orders.responded == [(started.name, 1, "http-01")]
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers.getall("Link") == [f'<{PREFIX}/{url}>;rel="up"', f'<{PREFIX}/directory>;rel="index"']
    assert await answer.json() == {
        "type": "http-01",
        "url": f"{PREFIX}/{url}/challenges/http-01",
        "status": "processing",
        "token": "token-1",
    }
    assert (await started.post(url)).headers["Retry-After"] == "1"


@pytest.mark.requirement("M27", "S131")
async def test_an_empty_payload_reads_a_challenge_and_begins_nothing(started: Started) -> None:
    order = started.order
    first = order.status.authorizations[0]
    failed = msgspec.structs.replace(
        first.challenges[0], state="invalid", error=StoredProblem(type="connection", detail="refused")
    )
    invalid = msgspec.structs.replace(first, state="invalid", challenges=(failed,))
    started.edge.orders.status(order, authorizations=(invalid, order.status.authorizations[1]))
    shown = await started.got(f"authorizations/{started.name}-0/challenges/http-01")
    assert (shown["status"], shown["error"]["type"]) == ("invalid", URN + "connection")
    assert started.edge.orders.responded == []


@pytest.mark.requirement("SEC02", "SEC50")
@pytest.mark.parametrize("payload", [None, {}])
async def test_a_challenge_that_is_not_offered_is_not_found(started: Started, payload: Any) -> None:
    path = f"authorizations/{started.name}-0/challenges/dns-01"
    assert (await started.post(path, payload)).status == 404


@pytest.mark.requirement("M128")
@pytest.mark.parametrize("payload", [b"x", [], "x"])
async def test_a_response_that_is_no_object_is_malformed(started: Started, payload: Any) -> None:
    answer = await started.post(f"authorizations/{started.name}-0/challenges/http-01", payload)
    assert (await problem_of(answer))["type"] == "malformed"
    assert started.edge.orders.responded == []
