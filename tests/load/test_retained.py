"""The measurement of many retained orders, with few of them: what it does has to be right before it takes long."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner

from e2e.cluster import Progress
from e2e.load import retained
from e2e.load.copies import EXPIRED, copies
from e2e.load.retained import Retained, Started, main, measure

ORDER = {
    "metadata": {"name": "a", "uid": "1"},
    "spec": {"identifiers": [{"type": "dns", "value": "first.load.test"}], "expires": "2026-11-25T00:00:00Z"},
    "status": {"authorizations": [{"identifier": {"type": "dns", "value": "first.load.test"}}], "serialNumber": "1"},
}


def started(*, seconds: float = 10.0, resident: int = 300_000_000, peak: int = 300_000_000) -> Started:
    return Started(seconds, 5.0, 9.0, resident, peak, 0.0)


def seen(filled: Started, *, unlimited: tuple[str, ...] = (), swept: float = 20.0, peak: int = 0) -> Retained:
    return Retained(100_000, started(), filled, 200, unlimited, swept, peak)


@pytest.mark.parametrize(
    ("measured", "missed"),
    [
        (seen(started()), []),
        (seen(started(seconds=30.0)), ["ready within 30 s: 30.0 s"]),
        (seen(started(resident=350_000_000)), ["at most 350 MB of memory when ready: 350 MB"]),
        (seen(started(peak=400_000_000)), ["at most 400 MB of memory: 400 MB"]),
        (seen(started(), peak=500_000_000), ["at most 400 MB of memory: 500 MB"]),
        (seen(started(), unlimited=("/apis/a",)), ["every list has a limit: 199 of 200"]),
        (seen(started(), swept=2.5), ["garbage collection removes 2.8 orders per second: 2.5"]),
    ],
)
def test_each_promise_can_be_missed(measured: Retained, missed: list[str]) -> None:
    assert [text for text, kept in measured.promises() if not kept] == missed


def test_no_two_copies_have_anything_in_common_that_must_be_unique() -> None:
    made = list(copies(ORDER, 50))
    for find in (
        lambda each: each["metadata"]["name"],
        lambda each: each["metadata"]["uid"],
        lambda each: each["spec"]["identifiers"][0]["value"],
        lambda each: each["status"]["serialNumber"],
        lambda each: each["status"]["publicKeyDigest"],
    ):
        assert len(set(map(find, made))) == 50
    assert all(each["spec"]["identifiers"][0] == each["status"]["authorizations"][0]["identifier"] for each in made)
    assert not any(each["metadata"]["name"].startswith(EXPIRED) for each in made)


def test_expired_copies_have_ended_long_ago_and_are_told_by_their_names() -> None:
    for each in copies(ORDER, 5, expired=True):
        assert each["metadata"]["name"].startswith(EXPIRED)
        assert each["status"]["notAfter"] < "2026-06"


@pytest.mark.cluster
def test_a_server_is_ready_among_many_orders_lists_them_in_pages_and_sweeps_those_that_expired(tmp_path: Path) -> None:
    """The same as at full size, which is `python -m e2e.load.retained --orders 100000 --expired 10000`."""
    told: list[str] = []
    measured = measure(tmp_path, Progress(io.StringIO()), orders=1_200, expired=25, tell=told.append)
    beginnings = ["no orders", "1,225 orders of ", "1,226 orders", "per order", "garbage collection"]
    assert [line[: len(expected)] for line, expected in zip(told, beginnings, strict=True)] == beginnings
    assert measured.swept is not None
    assert measured.swept >= retained.SWEEP_LIMIT
    assert measured.unlimited == ()
    assert measured.lists > 2 * 3, "a garbage collection of three pages, and those of informers"
    assert measured.filled.resident <= measured.filled.peak < retained.MEMORY_LIMIT


def test_wrong_usage_ends_with_exit_code_2() -> None:
    assert CliRunner().invoke(main, ["--orders", "0"]).exit_code == 2
