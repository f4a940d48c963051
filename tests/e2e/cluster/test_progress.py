"""What a person sees while it builds."""

from __future__ import annotations

import io

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
        tick()
    assert stream.getvalue() == "etcd ...\retcd ... 1 s\retcd ... 2 s\retcd: done in 2.0 s\n"


def test_a_log_gets_a_line_now_and_then() -> None:
    stream, time = io.StringIO(), Time()
    with Progress(stream, monotonic=time).step("etcd") as tick:
        for _ in range(40):
            time.now += 1
            tick()
    assert stream.getvalue().splitlines() == ["etcd ...", "etcd ... 15 s", "etcd ... 30 s", "etcd: done in 40.0 s"]
