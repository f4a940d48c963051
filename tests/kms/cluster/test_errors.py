from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.cluster.errors import (
    AlreadyExists,
    Cause,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Unavailable,
    error_of,
    watch_error_of,
)

NOT_LOOKED_AT = {"field": "<nil>", "message": "some validation rules were not checked"}


def status(code: int, reason: str = "", /, **details: object) -> bytes:
    message = "what the API server says"
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    ).encode()


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (400, "BadRequest", Invalid),
        (413, "RequestEntityTooLarge", Invalid),
        (422, "Invalid", Invalid),
        (403, "Forbidden", Forbidden),
        (410, "Expired", Gone),
        (401, "Unauthorized", Unavailable),
        (408, "Timeout", Unavailable),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (599, "", Unavailable),
        (405, "MethodNotAllowed", ClusterError),
        (302, "", ClusterError),
    ],
)
def test_every_status_has_its_error_with_the_api_servers_message(
    code: int, reason: str, expected: type[ClusterError]
) -> None:
    error = error_of(code, status(code, reason))
    assert type(error) is expected
    assert str(error) == "what the API server says"


def test_a_kind_that_is_not_served_says_nothing_about_its_objects() -> None:
    error = error_of(404, b"404 page not found\n")
    assert isinstance(error, Unavailable)
    assert "does not serve this kind: 404 page not found" in str(error)


def test_an_invalid_object_tells_its_fields() -> None:
    causes = [{"field": "spec.duration", "message": "must be positive", "reason": "FieldValueInvalid"}, NOT_LOOKED_AT]
    error = error_of(422, status(422, "Invalid", causes=causes))
    assert isinstance(error, Invalid)
    assert error.causes == (Cause("spec.duration", "must be positive"),)


@pytest.mark.parametrize(
    ("header", "details", "expected"),
    [("7", {}, 7.0), ("7", {"retryAfterSeconds": 3}, 7.0), (None, {"retryAfterSeconds": 3}, 3.0), (None, {}, None)],
)
def test_retry_after_is_honoured(header: str | None, details: dict[str, object], expected: float | None) -> None:
    error = error_of(429, status(429, **details), header)
    assert isinstance(error, Unavailable)
    assert error.retry_after == expected


@pytest.mark.parametrize("header", ["-1", "²", "Wed, 21 Oct 2026 07:28:00 GMT", "", "1e9", "nan"])
def test_a_retry_after_that_is_no_number_of_seconds_is_ignored(header: str) -> None:
    error = error_of(503, b"", header)
    assert isinstance(error, Unavailable)
    assert error.retry_after is None


def test_an_answer_without_text_still_has_a_message() -> None:
    assert str(error_of(502, b"")) == "the API server answered 502"


def test_the_error_of_a_watch_is_that_of_its_status() -> None:
    assert isinstance(watch_error_of(status(410, "Expired")), Gone)
    assert isinstance(watch_error_of(b'{"kind":"Status","message":"?"}'), Unavailable)


@given(st.integers(400, 599), st.binary(max_size=300))
def test_no_answer_is_beyond_understanding(code: int, body: bytes) -> None:
    assert str(error_of(code, body))
    assert isinstance(watch_error_of(body), ClusterError)


def test_an_apply_that_does_not_fit_the_schema_is_refused_for_good() -> None:
    """The API server answers 500, as often as it is asked."""
    said = "failed to create typed patch object (pki/web; cert-manager.io/v1, Kind=Issuer): .spec.acme.solvers[0].x"
    body = {"kind": "Status", "code": 500, "message": said}
    assert isinstance(error_of(500, json.dumps(body).encode()), Invalid)
    assert isinstance(error_of(500, json.dumps({**body, "message": "failed calling webhook"}).encode()), Unavailable)
