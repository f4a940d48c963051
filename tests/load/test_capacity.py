from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from e2e.load.capacity import (
    CERTIFICATES,
    LIFETIMES,
    Cost,
    limits,
    main,
    needs,
    orders_per_hour,
    settings,
    stored_orders,
)
from e2e.load.tables import markdown

ROOT = Path(__file__).parents[2]


def test_a_certificate_is_renewed_after_two_thirds_of_its_lifetime() -> None:
    assert orders_per_hour(1440, timedelta(days=90)) == pytest.approx(1.0)
    assert orders_per_hour(112, timedelta(days=7)) == pytest.approx(1.0)


def test_an_order_is_stored_until_a_day_after_its_certificate_has_expired() -> None:
    assert stored_orders(6000, timedelta(days=90)) == pytest.approx(6000 / 60 * 91)


def test_what_certificates_need_grows_with_their_number_and_the_cost() -> None:
    head, *rows = needs(Cost(writes=3))
    assert len(rows) == len(CERTIFICATES) * len(LIFETIMES)
    at = head.index("API writes per hour")
    week = len(LIFETIMES) - 1
    assert rows[week][at] == "268"
    assert list(needs(Cost(writes=6)))[1 + week][at] == "536"


def test_a_limit_of_stored_orders_hardly_depends_on_the_lifetime_and_one_of_their_rate_does() -> None:
    _, stored, _, rate, *_ = limits(Cost(cpu=10))
    assert stored[1:] == ("120,000", "79,000", "77,000", "70,000")
    assert rate[1:] == ("36,000 per hour", "52,000,000", "17,000,000", "4,000,000")


@pytest.mark.parametrize(
    "arguments", [["--cpu", "0"], ["--pace", "much"], ["--certificates", "0"], ["--lifetime", "0"]]
)
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_the_command_prints_all_tables() -> None:
    said = CliRunner().invoke(main, ["--writes", "2"])
    assert said.exit_code == 0
    assert said.output.count("\n| --- |") == 3


def test_readers_compute_a_row_of_their_own() -> None:
    said = CliRunner().invoke(main, ["--certificates", "25000", "--lifetime", "30", "--lifetime", "1"])
    assert said.exit_code == 0
    table, limited, _ = said.output.split("\n\n")
    head, _, month, day = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert month[:3] == ["25,000", "30 days", "52"]
    assert (day[1], day[head.index("orders stored")]) == ("1 day", "75,000")
    assert limited.splitlines()[0] == "| limit | orders | certificates of 30 days | certificates of 1 day |"


def test_the_settings_of_the_default_quota_are_the_defaults_of_the_chart() -> None:
    values = yaml.safe_load((ROOT / "charts" / "kms-acme" / "values.yaml").read_text())["server"]
    _, default, *others = settings(Cost())
    defaults = (values["maximumOrders"], values["maximumOrderBytes"], values["resources"]["limits"]["memory"])
    assert default == ("2 GiB", "2147483648", *map(str, defaults))
    assert [each[2:] for each in others] == [("240000", "1342177280", "768Mi"), ("480000", "2684354560", "1280Mi")]
    assert markdown(settings(Cost())) in (ROOT / "docs" / "capacity.md").read_text()
