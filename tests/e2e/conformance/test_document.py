from __future__ import annotations

from e2e.conformance.document import document, faults
from e2e.conformance.lines import Line, Part
from e2e.conformance.markers import Claim

PROVEN = Line("M1", "One thing.", met="By `x`.")
NOT_OFFERED = Line("M2", "Another | thing.", reason="Not offered.")
OTHERWISE = Line("M3", "A third.", met="Nearly.", departs="With 503.")
PARTS = (Part("RFC 1", "About one.", (PROVEN, NOT_OFFERED)), Part("RFC 2", "About two.", (OTHERWISE,)))
TESTS = {
    "M1": (
        Claim("tests/a.py", "test_it_works"),
        Claim("tests/a.py", "test_it_always_does"),
        Claim("tests/b.py", "test_c"),
    ),
    "M3": (Claim("tests/b.py", "test_c"),),
}


def test_a_line_needs_a_test_or_a_reason() -> None:
    assert faults(PARTS, TESTS) == []
    assert faults(PARTS, {"M1": TESTS["M1"]}) == [
        "M3 has neither a test nor a reason: mark a test with it, or add a reason"
    ]


def test_a_marker_needs_a_line() -> None:
    assert faults(PARTS, {**TESTS, "M4": (Claim("tests/b.py", "test_c"),)}) == [
        "tests/b.py: test_c proves M4, which is not in tests/conformance/"
    ]


def test_a_row_tells_the_line_how_it_is_met_and_the_tests() -> None:
    rows = document(PARTS, TESTS).splitlines()
    tests = "[tests/a](../../tests/a.py): it works; it always does<br>[tests/b](../../tests/b.py): c"
    assert f"| M1 | One thing. | By `x`. | {tests} |" in rows
    assert "| M2 | Another \\| thing. | *Not offered.* |  |" in rows
    assert "| M3 | A third. | Nearly. Departs: With 503. | [tests/b](../../tests/b.py): c |" in rows


def test_departures_stand_before_all_lines() -> None:
    page = document(PARTS, TESTS)
    departs = page.index("| M3 | A third. | With 503. |")
    assert page.index("## Departures") < departs < page.index("## RFC 1") < page.index("## RFC 2")


def test_lines_are_counted() -> None:
    rows = document(PARTS, TESTS).splitlines()
    assert "| RFC 1 | 2 | 1 | 1 |" in rows
    assert "| all | 3 | 2 | 1 |" in rows
