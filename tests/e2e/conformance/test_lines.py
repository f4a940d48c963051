from __future__ import annotations

from pathlib import Path

import pytest

from e2e.conformance.lines import BadLines, Line, by_id, read

HEAD = 'part = {}\ntitle = "T{}"\nabout = "About."\n'


def written(folder: Path, *bodies: str) -> Path:
    for number, body in enumerate(bodies):
        (folder / f"{number}.toml").write_text(HEAD.format(9 - number, number) + body)
    return folder


def test_parts_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    one, other = read(written(tmp_path, '[lines.M1]\nsays="a"\nmet="b"\n', '[lines.M2]\nsays="c"\nreason="d"\n'))
    assert (one.title, one.lines) == ("T1", (Line("M2", "c", reason="d"),))
    assert (other.title, other.lines) == ("T0", (Line("M1", "a", met="b"),))
    assert by_id((one, other)).keys() == {"M1", "M2"}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('[lines.M1]\nmet="b"\n', "0.toml: M1 lacks the requirement"),
        ('[lines.M1]\nsays="a"\n', "0.toml: M1 has neither `met` nor `reason`"),
        ('[lines.M1]\nsays="a"\nmet="b"\nhow="c"\n', "0.toml: M1 has how; it takes says, met, reason and departs"),
    ],
)
def test_a_line_that_does_not_say_enough_is_told(tmp_path: Path, body: str, complaint: str) -> None:
    with pytest.raises(BadLines, match=complaint):
        read(written(tmp_path, body))


def test_an_id_names_one_line(tmp_path: Path) -> None:
    line = '[lines.M1]\nsays="a"\nmet="b"\n'
    with pytest.raises(BadLines, match=r"M1 is in 0\.toml and in 1\.toml"):
        read(written(tmp_path, line, line))
