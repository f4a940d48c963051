from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.quoting import printable, quoted


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


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("shop.example.com", "shop.example.com"),
        ("café 日本", "café 日本"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("one\ntwo\r", "one\\ntwo\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
def test_what_stands_in_objects_commands_no_terminal(text: str, printed: str) -> None:
    assert printable(text) == printed
