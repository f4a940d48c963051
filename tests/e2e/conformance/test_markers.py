from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from e2e.conformance.markers import BadMarker, Claim, of_module, read


def claims(source: str) -> list[tuple[str, str]]:
    return [(id_, test.name) for id_, test in of_module(dedent(source), "tests/test_x.py")]


def test_a_marker_is_read_from_a_test() -> None:
    assert claims("""
        @pytest.mark.requirement("M75", "SEC12b")
        async def test_a(): ...
        def test_b(): ...
    """) == [("M75", "test_a"), ("SEC12b", "test_a")]


def test_a_marker_of_a_class_is_for_each_test_in_it() -> None:
    assert claims("""
        @pytest.mark.requirement("M1")
        class TestThem:
            def test_a(self): ...
            @pytest.mark.requirement("M2")
            def test_b(self): ...
            def help(self): ...
    """) == [("M1", "test_a"), ("M1", "test_b"), ("M2", "test_b")]


@pytest.mark.parametrize("mark", ["{}", "[{}]", "(pytest.mark.cluster, {})"])
def test_a_marker_of_a_module_is_for_all_its_tests(mark: str) -> None:
    source = f"pytestmark = {mark}\ndef test_a(): ...\n".format('pytest.mark.requirement("S39")')
    assert claims(source) == [("S39", "test_a")]


def test_a_state_machine_becomes_a_test_by_an_assignment() -> None:
    assert claims("""
        pytestmark = pytest.mark.requirement("M66")
        TestOrders = OrderMachine.TestCase
    """) == [("M66", "TestOrders")]


def test_one_case_of_a_parametrised_test_may_have_a_marker() -> None:
    assert claims("""
        CASES: list[Any] = [pytest.param(1, marks=pytest.mark.requirement("M21")), 2]
        @pytest.mark.parametrize("case", CASES)
        def test_a(case): ...
        @pytest.mark.parametrize("case", [pytest.param(1, marks=[pytest.mark.requirement("M22")])])
        def test_b(case): ...
    """) == [("M21", "test_a"), ("M22", "test_b")]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ('@pytest.mark.requirement("M1")\ndef helper(): ...', "is not on a test"),
        ('@pytest.mark.requirement("M1")\nclass Helper: ...', "is not on a test"),
        ('CASES = [pytest.param(1, marks=pytest.mark.requirement("M1"))]', "is not on a test"),
        ("@pytest.mark.requirement()\ndef test_a(): ...", "takes one or more ids"),
        ('@pytest.mark.requirement(id="M1")\ndef test_a(): ...', "takes one or more ids"),
        ("@pytest.mark.requirement(ID)\ndef test_a(): ...", "must be literals"),
        ("@pytest.mark.requirement(1)\ndef test_a(): ...", "must be literals"),
    ],
)
def test_a_marker_that_proves_nothing_is_told(source: str, complaint: str) -> None:
    with pytest.raises(BadMarker, match=r"^tests/test_x\.py:[12]: .*" + complaint):
        claims(source)


def test_all_files_of_the_folders_are_read(tmp_path: Path) -> None:
    for path in ("tests/a/test_a.py", "e2e/stories/test_b.py", "docs/test_c.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text('@pytest.mark.requirement("M1")\ndef test_it(): ...\n')
    assert read(tmp_path, ("tests", "e2e")) == {
        "M1": (Claim("e2e/stories/test_b.py", "test_it"), Claim("tests/a/test_a.py", "test_it"))
    }
