from __future__ import annotations

import asyncio

import pytest

from acme_server.state.turns import Turns


class Looking:
    """Requests that look through many objects, and the most that did so at once."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.running: list[str] = []
        self.most = 0
        self.most_of_one = 0

    async def look(self, account: str) -> None:
        async with self.turns.take(("pki", account)):
            self.running.append(account)
            self.most = max(self.most, len(self.running))
            self.most_of_one = max(self.most_of_one, self.running.count(account))
            await asyncio.sleep(0)
            self.running.remove(account)


@pytest.mark.requirement("SEC74")
async def test_each_account_looks_once_at_a_time_and_a_few_do_at_once() -> None:
    looking = Looking(Turns(at_once=3))
    await asyncio.gather(*(looking.look(f"account-{number % 10}") for number in range(50)))
    assert (looking.most, looking.most_of_one) == (3, 1)


async def test_a_request_that_is_given_up_gives_its_turn_back() -> None:
    turns = Turns(at_once=1)
    async with turns.take(("pki", "a")):
        waiting = asyncio.create_task(turns.take(("pki", "a")).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
    async with asyncio.timeout(1), turns.take(("pki", "a")):
        pass
