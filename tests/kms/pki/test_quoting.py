from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.quoting import quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Example, Inc.", '"Example, Inc."'),
        ("Bücher", '"Bücher"'),
        ("a\nb\x00", '"a\\nb\\x00"'),
        ("\u202eevil", '"\\u202eevil"'),
        ("x" * 81, '"' + "x" * 80 + '..."'),
    ],
)
def test_text_is_quoted_cut_and_escaped(text: str, shown: str) -> None:
    assert quoted(text) == shown


@pytest.mark.requirement("SEC33")
@given(st.text())
def test_whatever_is_quoted_can_be_printed_on_one_line(text: str) -> None:
    assert quoted(text).isprintable()
    assert len(quoted(text)) < 1000
