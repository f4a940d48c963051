"""Problem documents: what clients receive for each error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from acme_server.api.problems import URN, HTTPRefusal, answer_refusal, answer_unavailable, stored_problem
from acme_server.problems import AccountNotValid, NotFound, ProblemType, Refused, SubProblem
from kms.resources.orders import Identifier, StoredProblem, StoredSubProblem


def document(response: web.Response) -> Any:
    assert response.content_type == "application/problem+json"
    assert isinstance(response.body, bytes)
    read = json.loads(response.body)
    assert read["status"] == response.status
    return read


@pytest.mark.requirement("M45", "S46")
def test_a_refused_order_says_why_for_each_name() -> None:
    refused = Refused(
        ProblemType.REJECTED_IDENTIFIER,
        "One name is not allowed.",
        subproblems=(
            SubProblem(ProblemType.REJECTED_IDENTIFIER, "Not allowed.", Identifier(type="dns", value="x.example.com")),
            SubProblem(ProblemType.MALFORMED, "That is no name."),
        ),
    )
    assert document(answer_refusal(refused)) == {
        "type": URN + "rejectedIdentifier",
        "detail": "One name is not allowed.",
        "status": 403,
        "subproblems": [
            {
                "type": URN + "rejectedIdentifier",
                "detail": "Not allowed.",
                "identifier": {"type": "dns", "value": "x.example.com"},
            },
            {"type": URN + "malformed", "detail": "That is no name."},
        ],
    }


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (Refused(ProblemType.MALFORMED, "no"), 400),
        (AccountNotValid(), 401),
        (Refused(ProblemType.UNAUTHORIZED, "no"), 403),
        (NotFound(), 404),
        (Refused(ProblemType.ALREADY_REPLACED, "no"), 409),
        (HTTPRefusal(ProblemType.MALFORMED, "no", status=415), 415),
        (Refused(ProblemType.SERVER_INTERNAL, "no"), 500),
        (Refused(ProblemType.RATE_LIMITED, "no", retry_after=30), 503),
    ],
)
def test_every_refusal_has_its_status(refused: Refused, status: int) -> None:
    assert answer_refusal(refused).status == document(answer_refusal(refused))["status"] == status


@pytest.mark.requirement("M40", "S41", "C4")
def test_a_limit_says_when_to_come_again() -> None:
    answer = answer_refusal(Refused(ProblemType.RATE_LIMITED, "Too many.", retry_after=30))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "30")


@pytest.mark.requirement("S41", "C4", "C6")
@pytest.mark.parametrize(("asked", "told"), [(None, "2"), (0.2, "1"), (3.5, "4"), (60, "60")])
def test_an_answer_that_must_wait_says_for_how_many_whole_seconds(asked: float | None, told: str) -> None:
    answer = answer_unavailable("Later.", asked)
    assert (answer.status, answer.headers["Retry-After"]) == (503, told)
    assert document(answer)["type"] == URN + "serverInternal"


def test_an_action_of_a_person_is_linked_and_named() -> None:
    members = {"instance": "https://example.com/tos"}
    answer = answer_refusal(Refused(ProblemType.USER_ACTION_REQUIRED, "The terms have changed.", members=members))
    assert document(answer)["instance"] == "https://example.com/tos"
    assert answer.headers["Link"] == '<https://example.com/tos>;rel="terms-of-service"'


def test_a_stored_error_is_shown_with_its_subproblems() -> None:
    identifier = Identifier(type="dns", value="b.example.com")
    subproblems = (
        StoredSubProblem(type="dns", detail="none", identifier=identifier),
        StoredSubProblem(type="dns", detail="none"),
    )
    assert stored_problem(StoredProblem(type="unauthorized", detail="no", subproblems=subproblems)) == {
        "type": URN + "unauthorized",
        "detail": "no",
        "status": 403,
        "subproblems": [
            {"type": URN + "dns", "detail": "none", "identifier": identifier},
            {"type": URN + "dns", "detail": "none"},
        ],
    }


def test_an_error_of_an_unknown_type_is_shown() -> None:
    shown = stored_problem(StoredProblem(type="unheardOf", detail="no"))
    assert shown == {"type": URN + "unheardOf", "detail": "no", "status": 400}
