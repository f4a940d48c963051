from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state.retention import AFTER_COMPROMISE, AFTER_EXPIRY, WITHOUT_CERTIFICATE, is_abandoned, kept_until
from kms.resources.accounts import AccountState
from kms.resources.orders import ACMEOrder, Revocation, StoredProblem
from tests.support.accounts import account
from tests.support.acmeorders import DIGEST, LIFETIME, NOW, issued, order, proven

DAY = timedelta(days=1)
pytestmark = pytest.mark.requirement("SEC61")


def ready() -> ACMEOrder:
    return proven(order())


def valid(reason: str | None = None) -> ACMEOrder:
    done = transitions.issued(ready(), DIGEST, issued(), now=NOW)
    revocation = None if reason is None else Revocation(time=NOW, reason=reason)
    return replace(done, status=replace(done.status, revocation=revocation))


def test_an_order_that_was_abandoned_goes_a_day_after_its_end() -> None:
    assert kept_until(order()) == NOW + LIFETIME + WITHOUT_CERTIFICATE
    assert kept_until(ready()) == NOW + LIFETIME + WITHOUT_CERTIFICATE


def test_an_order_that_failed_goes_a_day_after_it_failed() -> None:
    problem = StoredProblem(type="unauthorized", detail="No.")
    failed = transitions.failed(order(), problem, reason="Failed", now=NOW + timedelta(hours=1))
    assert kept_until(failed) == NOW + timedelta(hours=1) + WITHOUT_CERTIFICATE


def test_an_order_in_processing_stays() -> None:
    assert kept_until(transitions.accepted(ready(), b"csr", DIGEST, now=NOW)) is None


@pytest.mark.requirement("SEC61")
@pytest.mark.parametrize("reason", [None, "superseded"])
def test_a_certificate_is_kept_until_it_has_expired_also_a_revoked_one(reason: str | None) -> None:
    assert kept_until(valid(reason)) == NOW + 30 * DAY + AFTER_EXPIRY


@pytest.mark.requirement("SEC25")
def test_a_compromised_key_is_remembered_for_longer() -> None:
    assert kept_until(valid("keyCompromise")) == NOW + 30 * DAY + AFTER_COMPROMISE


def test_an_order_stays_as_long_as_others_may_rely_on_its_proofs() -> None:
    before = ready()
    (authorization,) = before.status.authorizations
    lasting = replace(authorization, expires=NOW + 90 * DAY)
    order_ = replace(before, status=replace(before.status, authorizations=(lasting,)))
    assert kept_until(order_) == NOW + 90 * DAY
    given_up = transitions.deactivated(order_, 0, now=NOW)
    assert kept_until(given_up) == NOW + WITHOUT_CERTIFICATE


def aged(days: int, state: AccountState | None = "valid") -> object:
    opened = account("a")
    return replace(
        opened,
        metadata=replace(opened.metadata, creation_timestamp=NOW - days * DAY),
        status=replace(opened.status, state=state),
    )


@pytest.mark.parametrize(
    ("days", "state", "has_orders", "retention", "gone"),
    [
        (91, "valid", False, 90 * DAY, True),
        (89, "valid", False, 90 * DAY, False),
        (91, "valid", True, 90 * DAY, False),
        (91, "valid", False, None, False),
        (91, "deactivated", False, 90 * DAY, False),
        (91, "revoked", False, 90 * DAY, False),
        (91, None, False, 90 * DAY, False),
    ],
)
def test_only_valid_accounts_without_orders_go_and_only_where_the_profile_says_so(
    days: int, state: AccountState | None, has_orders: bool, retention: timedelta | None, gone: bool
) -> None:
    assert is_abandoned(aged(days, state), retention=retention, has_orders=has_orders, now=NOW) is gone  # type: ignore[arg-type]
