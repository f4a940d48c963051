from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from acme_server.state.turns import Turns
from kms.resources.accounts import ACMEAccount, CredentialBinding
from tests.support.accounts import account


def of_clients(namespace: str, name: str) -> ACMEAccount:
    one = account(name)
    binding = CredentialBinding(name="cred", namespace=namespace, uid="uid", key_id="kid")
    return replace(one, spec=replace(one.spec, external_account=binding))


class Looking:
    """Requests that look through many objects, and the most that did so at once."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.running: list[str] = []
        self.most = 0
        self.most_of_one = 0

    async def look(self, account: str, clients: str = "team") -> None:
        async with self.turns.take(of_clients(clients, account)):
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


@pytest.mark.requirement("SEC75")
async def test_accounts_of_one_client_namespace_delay_another_by_one_turn() -> None:
    looking = Looking(Turns(at_once=2))
    looked: list[str] = []

    async def look(name: str, clients: str) -> None:
        await looking.look(name, clients)
        looked.append(clients)

    await asyncio.gather(*(look(f"a{number}", "busy") for number in range(50)), look("b", "quiet"))
    assert looked.index("quiet") < 4  # before: 50


async def test_a_request_that_is_given_up_gives_its_turn_back() -> None:
    turns = Turns(at_once=1)
    async with turns.take(of_clients("team", "a")):
        waiting = asyncio.create_task(turns.take(of_clients("team", "a")).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
    async with asyncio.timeout(1), turns.take(of_clients("team", "a")):
        pass
