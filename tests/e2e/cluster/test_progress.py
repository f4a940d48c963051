"""What a person sees while it builds."""

from __future__ import annotations

import io

import pytest

from e2e.cluster.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Time:
    """Moves by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_sees_the_seconds_pass_on_one_line() -> None:
    stream, time = Terminal(), Time()
    with Progress(stream, monotonic=time).step("etcd") as tick:
        time.now += 1
        tick()
        time.now += 1
        tick("7 of 9 packages")
    lines = ["etcd ...", "etcd ... 1 s", "etcd ... 2 s, 7 of 9 packages", "etcd: done in 2.0 s\n"]
    assert stream.getvalue() == "\r\x1b[K".join(lines)


def test_a_log_gets_a_line_now_and_then() -> None:
    stream, time = io.StringIO(), Time()
    with Progress(stream, monotonic=time).step("etcd") as tick:
        for _ in range(40):
            time.now += 1
            tick(f"{time.now - 100:.0f} packages")
    assert stream.getvalue().splitlines() == [
        "etcd ...",
        "etcd ... 15 s, 15 packages",
        "etcd ... 30 s, 30 packages",
        "etcd: done in 40.0 s",
    ]


def test_a_step_that_fails_says_so() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="why"), Progress(stream, monotonic=Time()).step("etcd"):
        raise ValueError("why")
    assert stream.getvalue().splitlines() == ["etcd ...", "etcd: failed after 0.0 s"]
