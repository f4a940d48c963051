"""What the commands print."""

from __future__ import annotations

import pytest

from kms_acme.cli.output import printable


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
