from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.resources.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("2160h", timedelta(days=90)),
        ("1h30m", timedelta(minutes=90)),
        ("45s", timedelta(seconds=45)),
        ("0s", timedelta(0)),
        ("1.5h", timedelta(minutes=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("1m1ms", timedelta(minutes=1, milliseconds=1)),
        ("0h0m90s", timedelta(seconds=90)),
        ("876000h", timedelta(days=36_500)),
    ],
)
def test_a_duration_is_read_as_go_writes_it(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "1",
        "1d",
        "-1h",
        "+1h",
        "1 h",
        " 1h",
        "1h ",
        "1h\n",
        "1.h",
        ".5h",
        "1,5h",
        "1H",
        "٣h",
        "1h30",
        "P1D",
        "1us",
    ],
)
def test_other_text_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="2160h, 1h30m or 45s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 30 + "h", "9" * 400 + "s", "23999999999h" * 2])
def test_a_duration_that_no_calendar_has_room_for_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than any duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=30), "720h"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(0), "0s"),
        (timedelta(seconds=61), "1m1s"),
        (timedelta(milliseconds=1999), "1s"),
    ],
)
def test_a_duration_is_written_in_its_shortest_form(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(st.integers(min_value=0, max_value=10**10))
def test_what_is_written_is_read_back(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789.hms ", max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)
