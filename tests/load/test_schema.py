"""The comparison of schemas: its files, its changes, what it sends, and what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import aiohttp
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from e2e.load.copies import Etcd
from e2e.load.goruntime import GoRuntime
from e2e.load.recording import load, save
from e2e.load.replay import replaying
from e2e.load.schema import APISERVER, BASE, ETCD, SHIPPED, TODAY, Figures, Measuring, Row, goals, keep, main, table
from e2e.load.schemas import CRD, TRIALS, WRITES, base_writes, schema
from tests.support.recorded_writes import recorded_writes

SHIPPED_WRITES = load(SHIPPED / WRITES)


def row(apiserver: float, stored: int, allocated: int = 0) -> Row:
    """Three quiet rounds, and one with a collection."""
    rounds = [apiserver, apiserver, apiserver, 3 * apiserver]
    return Row(rounds, [allocated] * 4, [0.001] * 4, stored=stored, written=2 * stored, sent=9)


async def test_the_writes_of_an_order_are_repeated_as_they_were_recorded() -> None:
    compared = schema(0, BASE, SHIPPED / CRD, SHIPPED_WRITES)
    async with recorded_writes() as (api, written), replaying(api, [compared]) as replays:
        await replays[BASE].orders(3)
    orders = [each for each in written if each.method in {"POST", "PUT"}]
    assert [each.status for each in orders if each.method == "POST"] == [201] * 3
    assert [each.status for each in orders if each.method == "PUT"] == [200] * 6, "each at the version before"
    assert len({each.body["metadata"]["name"] for each in orders}) == 3
    first = [each for each in orders if each.body["metadata"]["name"] == orders[0].body["metadata"]["name"]]
    for sent, recorded in zip(first, SHIPPED_WRITES, strict=True):
        body = msgspec.json.decode(recorded.body)
        assert sent.path.startswith(f"/apis/{compared.group}/")
        assert (sent.body["spec"], sent.body.get("status")) == (body["spec"], body.get("status"))
    assert len(compared.group) == len("pki.kms.hanzo.ai"), "managed fields repeat it"


async def test_a_write_that_the_api_server_refuses_ends_the_measurement_with_its_answer() -> None:
    compared = schema(0, BASE, SHIPPED / CRD, SHIPPED_WRITES)
    async with recorded_writes(refuse="PUT") as (api, _), replaying(api, [compared]) as replays:
        with pytest.raises(Exception, match="base: "):
            await replays[BASE].order()


async def test_orders_that_a_busy_api_server_aborts_do_not_count() -> None:
    compared = schema(0, BASE, SHIPPED / CRD, SHIPPED_WRITES)
    async with recorded_writes() as (api, _), replaying(api, [compared]) as replays:
        assert await replays[BASE].orders(3) == 3
    async with recorded_writes(refuse="PUT", refusal=504) as (api, _), replaying(api, [compared]) as replays:
        assert await replays[BASE].orders(3) == 0


@pytest.mark.parametrize("trial", TRIALS)
def test_each_trial_changes_the_schema_and_nothing_else_of_the_crd(trial: str) -> None:
    base = schema(0, BASE, SHIPPED / CRD, SHIPPED_WRITES).crd
    changed = schema(0, trial, SHIPPED / CRD, SHIPPED_WRITES, TRIALS[trial]).crd
    assert changed != base
    for document in (changed, base):
        (version,) = document["spec"]["versions"]
        del version["schema"]
        version.pop("selectableFields", None)
    assert changed == base


def test_trials_remove_what_they_name() -> None:
    text = json.dumps(schema(0, "", SHIPPED / CRD, (), TRIALS["no-rules-atomic"]).crd)
    assert "x-kubernetes-validations" not in text
    assert text.count('"x-kubernetes-map-type"') == json.dumps(schema(0, "", SHIPPED / CRD, ()).crd).count(
        '"x-kubernetes-map-type"'
    ) + len(("spec", "status"))


def test_what_is_kept_of_today_can_be_a_base_and_an_export_has_the_writes_of_today(tmp_path: Path) -> None:
    keep(tmp_path, SHIPPED_WRITES)
    assert yaml.safe_load((tmp_path / CRD).read_text())["metadata"]["name"] == "acmeorders.pki.kms.hanzo.ai"
    assert base_writes(tmp_path, ()) == SHIPPED_WRITES
    (tmp_path / WRITES).unlink()
    assert base_writes(tmp_path, SHIPPED_WRITES[:1]) == SHIPPED_WRITES[:1]
    save(tmp_path / WRITES, SHIPPED_WRITES)
    assert (tmp_path / WRITES).read_bytes() == (SHIPPED / WRITES).read_bytes()


def test_the_table_has_ratios_to_the_base() -> None:
    rows = {BASE: row(0.01, 4000, 2_000_000), TODAY: row(0.006, 3000, 1_500_000)}
    _, base, today = table(Figures(rows, collection=0)).splitlines()
    assert base.split()[:3] == [BASE, "1.00", "1.00"]
    assert today.split()[1:3] == ["0.60", "0.75"]
    assert today.split()[5] == "0.75"


def test_collections_are_shared_by_what_each_order_allocates() -> None:
    rows = {BASE: row(0.008, 1, 2_000_000), TODAY: row(0.006, 1, 1_000_000)}
    assert Figures(rows, collection=1e-9).cpu(TODAY) == pytest.approx(0.007 / 0.010)


async def test_what_the_api_server_allocates_is_counted_without_its_metrics() -> None:
    compared = schema(0, BASE, SHIPPED / CRD, SHIPPED_WRITES)
    readings = iter(range(100))

    def metrics() -> str:
        at = next(readings)
        return f"go_memstats_alloc_bytes_total {at}e+06\ngo_cpu_classes_gc_total_cpu_seconds_total {at / 1000}\n"

    async with (
        aiohttp.ClientSession() as session,
        recorded_writes(metrics=metrics) as (api, _),
        replaying(api, [compared]) as replays,
    ):
        measuring = Measuring(Etcd(session, ""), dict.fromkeys((APISERVER, ETCD), os.getpid()), replays)
        collection = await measuring.rounds(2, 3)
    assert measuring.rows[BASE].allocated == [0, 0], "each reading alone allocates as much"
    assert collection == pytest.approx(0.001 / 1e6)


def test_metrics_of_another_program_are_refused() -> None:
    with pytest.raises(ValueError, match="go_cpu_classes_gc_total_cpu_seconds_total is missing"):
        GoRuntime.parse("go_memstats_alloc_bytes_total 1\n")


@pytest.mark.parametrize(("cpu", "stored", "missed"), [(0.007, 3200, 0), (0.0071, 3200, 1), (0.0071, 3201, 2)])
def test_each_goal_can_be_missed(cpu: float, stored: int, missed: int) -> None:
    told = goals(Figures({BASE: row(0.01, 4000), TODAY: row(cpu, stored)}, collection=0))
    assert [kept for _, kept in told].count(False) == missed


def test_wrong_usage_ends_with_exit_code_2(tmp_path: Path) -> None:
    for arguments in (["--rounds", "1"], ["--trial", "none"], ["--base", str(tmp_path)]):
        assert CliRunner().invoke(main, arguments).exit_code == 2
