"""Secrets are written only if they differ, and only over the version that was seen."""

from __future__ import annotations

import pytest

from kms.resources.core import Secret
from kms_operator.objects import secret_changes
from tests.support.operated import secret


def test_additions_of_others_to_a_secret_are_no_reason_to_write() -> None:
    wanted = secret("x", data={"a": b"1"}, labels={"l": "1"})
    existing = secret("x", data={"a": b"1", "b": b"2"}, labels={"l": "1", "m": "2"}, owner_uids=["somebody"])
    assert secret_changes(existing, wanted) == ()


@pytest.mark.parametrize(
    "existing",
    [
        secret("x", data={"a": b"2"}, labels={"l": "1"}, owner_uids=["o"], version=5),
        secret("x", data={"a": b"1"}, labels={}, owner_uids=["o"], version=5),
        secret("x", data={"a": b"1"}, labels={"l": "1"}, version=5),
    ],
)
def test_what_differs_is_written_over_what_was_seen(existing: Secret) -> None:
    wanted = secret("x", data={"a": b"1"}, labels={"l": "1"}, owner_uids=["o"])
    (written,) = secret_changes(existing, wanted)
    assert written.object.metadata.resource_version == "5"


def test_what_is_not_there_must_not_be_there_when_it_is_written() -> None:
    assert [each.object.metadata.resource_version for each in secret_changes(None, secret("x", version=5))] == [""]


def test_the_type_of_a_secret_cannot_change() -> None:
    (written,) = secret_changes(secret("x", type_="kubernetes.io/tls"), secret("x", data={"a": b"1"}))
    assert written.object.type == "kubernetes.io/tls"  # type: ignore[attr-defined]
