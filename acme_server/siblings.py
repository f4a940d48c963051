"""The other workers of the same container, for its probes: the kubelet asks one of them, which answers for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial
from http import HTTPStatus

import aiohttp
from yarl import URL

from kms.address import Address


class Siblings:
    """Asks the other workers every `every` seconds whether they are ready, each for `deadline` seconds.

    One that has not answered for `patience` seconds hangs: then the container is not alive.
    """

    def __init__(
        self,
        addresses: Collection[Address],
        *,
        session: aiohttp.ClientSession,
        every: float = 1.0,
        deadline: float = 2.0,
        patience: float = 60.0,
    ) -> None:
        self._addresses = tuple(addresses)
        self._session = session
        self._every = every
        self._deadline = aiohttp.ClientTimeout(total=deadline)
        self._patience = patience
        self._ready: set[Address] = set()
        now = asyncio.get_running_loop().time()
        self._heard = dict.fromkeys(self._addresses, now)

    @property
    def conditions(self) -> Mapping[str, Callable[[], bool]]:
        """What readiness waits for."""
        return {f"worker at {each}": partial(self._ready.__contains__, each) for each in self._addresses}

    def alive(self) -> bool:
        """Whether every other worker has answered of late."""
        now = asyncio.get_running_loop().time()
        return all(now - heard < self._patience for heard in self._heard.values())

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.gather(*map(self._ask, self._addresses))
            await asyncio.sleep(self._every)

    async def _ask(self, address: Address) -> None:
        url = URL.build(scheme="http", host=address.host, port=address.port, path="/readyz")
        try:
            async with self._session.get(url, timeout=self._deadline, allow_redirects=False) as response:
                ready = response.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError, OSError):
            self._ready.discard(address)
            return
        self._heard[address] = asyncio.get_running_loop().time()
        (self._ready.add if ready else self._ready.discard)(address)
