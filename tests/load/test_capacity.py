from __future__ import annotations

from datetime import timedelta

import pytest
from click.testing import CliRunner

from e2e.load.capacity import CERTIFICATES, LIFETIMES, Cost, limits, main, needs, orders_per_hour, stored_orders


def test_a_certificate_is_renewed_after_two_thirds_of_its_lifetime() -> None:
    assert orders_per_hour(1440, timedelta(days=90)) == pytest.approx(1.0)
    assert orders_per_hour(112, timedelta(days=7)) == pytest.approx(1.0)


def test_an_order_is_stored_until_a_day_after_its_certificate_has_expired() -> None:
    assert stored_orders(6000, timedelta(days=90)) == pytest.approx(6000 / 60 * 91)


def test_what_certificates_need_grows_with_their_number_and_the_cost() -> None:
    head, *rows = needs(Cost(writes=3))
    assert len(rows) == len(CERTIFICATES) * len(LIFETIMES)
    at = head.index("API writes per hour")
    assert rows[1][at] == "268"
    assert list(needs(Cost(writes=6)))[2][at] == "536"


def test_a_limit_of_stored_orders_hardly_depends_on_the_lifetime_and_one_of_their_rate_does() -> None:
    _, stored, _, rate, *_ = limits(Cost(cpu=10))
    assert stored[1:] == ("120,000", "79,000", "70,000")
    assert rate[1:] == ("36,000 per hour", "52,000,000", "4,000,000")


@pytest.mark.parametrize("arguments", [["--cpu", "0"], ["--pace", "much"]])
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_the_command_prints_both_tables() -> None:
    said = CliRunner().invoke(main, ["--writes", "2"])
    assert said.exit_code == 0
    assert said.output.count("\n| --- |") == 2
