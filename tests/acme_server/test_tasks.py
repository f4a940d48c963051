import asyncio

import pytest

from acme_server.api.readiness import Readiness
from acme_server.tasks import BackgroundTasks, supervise


async def test_work_that_fails_is_begun_again_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise RuntimeError("broken")

    await supervise("the work", work, pause=0.001)
    assert begun == 3
    failures = [vars(each) for each in caplog.records]
    assert [(each["task"], each["retry_in_seconds"]) for each in failures] == [("the work", 0.001), ("the work", 0.002)]
    assert "broken" in caplog.text


async def test_all_work_ends_when_it_is_stopped() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    background = BackgroundTasks()
    background.start({"one": work, "other": work})
    await asyncio.sleep(0)
    await background.stop()
    assert ended == [1, 1]
    await background.stop()


def test_readiness_waits_for_everything_that_is_required() -> None:
    readiness = Readiness()
    here: list[object] = []
    assert readiness.missing() == []
    readiness.require({"one": lambda: bool(here)})
    readiness.require({"other": lambda: True})
    assert readiness.missing() == ["one"]
    here.append(1)
    assert readiness.missing() == []
