"""The server's tokens: renewed in time, in every operator, whatever goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from e2e.cluster.ports import free_port
from kms.address import Address
from kms.cluster.service_account_token import RENEWED_AFTER, TOKEN_SECONDS, Token
from kms_operator.metrics import Metrics
from kms_operator.server_token import ServerTokenRenewer, renewal_delay, renewing_server_token
from kms_operator.settings import OperatorSettings, ServerIdentity
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import in_background, until

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SERVICE_ACCOUNT = "kms-acme-server"


def token(seconds: float) -> Token:
    return Token("token", NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("life", "renewed"),
    [
        (3600, 1200),
        (600, 200),  # the API server may give less than it was asked for
        (86400 * 365, 1200),  # or more, or its clock is another
        (0, 10),
        (-3600, 10),
    ],
)
def test_a_token_is_renewed_after_a_third_of_its_life(life: float, renewed: float) -> None:
    assert renewal_delay(token(life), clock=lambda: NOW) == renewed


def test_a_token_is_renewed_long_before_four_fifths_of_its_life() -> None:
    assert renewal_delay(token(TOKEN_SECONDS), clock=lambda: NOW) <= 0.8 * TOKEN_SECONDS
    assert RENEWED_AFTER <= 0.8


@dataclass
class Sleeper:
    """Sleeps as long as the test likes, and remembers how long it was asked to."""

    asked: list[float] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.wake.wait()
        self.wake.clear()


@dataclass
class Kept:
    """A keeper at work."""

    api: FakeApiServer
    folder: Path
    sleeper: Sleeper
    metrics: Metrics
    settings: OperatorSettings

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text()

    async def next(self) -> float:
        """Let it wake up, and say how long it wants to sleep then."""
        count = len(self.sleeper.asked)
        self.sleeper.wake.set()
        await until(lambda: len(self.sleeper.asked) > count)
        return self.sleeper.asked[-1]


def settings(api: FakeApiServer, folder: Path) -> OperatorSettings:
    kubeconfig = api.write_kubeconfig(folder / "kubeconfig")
    config = json.loads(kubeconfig.read_text())
    authority = base64.b64encode(b"certificate").decode()
    config["clusters"][0]["cluster"] = {"server": "https://127.0.0.1:1", "certificate-authority-data": authority}
    kubeconfig.write_text(json.dumps(config))
    shared = folder / "shared"
    shared.mkdir()
    return OperatorSettings(
        external_url="https://acme.example.com",
        namespace="kms-acme",
        metrics_listen=Address("127.0.0.1", free_port()),
        server_identity=ServerIdentity(SERVICE_ACCOUNT, shared),
        kubeconfig=str(kubeconfig),
    )


@asynccontextmanager
async def kept(folder: Path, *, fail: int = 0) -> AsyncIterator[Kept]:
    async with running_api() as api:
        if fail:
            api.fail_next("create", "serviceaccounts", fail, times=2)
        chosen, sleeper, metrics = settings(api, folder), Sleeper(), Metrics()
        assert chosen.server_identity is not None
        keeper = ServerTokenRenewer(chosen.server_identity, chosen, await api.cluster(), metrics, sleep=sleeper)
        async with in_background(keeper.run()):
            await until(lambda: sleeper.asked)
            yield Kept(api, chosen.server_identity.token_directory, sleeper, metrics, chosen)


async def test_the_server_gets_a_token_at_once_and_another_before_that_ends(tmp_path: Path) -> None:
    async with kept(tmp_path) as keeper:
        assert keeper.sleeper.asked == [pytest.approx(TOKEN_SECONDS * RENEWED_AFTER, abs=5)]
        assert keeper.token == f"{SERVICE_ACCOUNT}-1"
        assert (keeper.folder / "ca.crt").read_bytes() == b"certificate"
        assert (keeper.folder / "namespace").read_text() == "kms-acme"
        await keeper.next()
        assert keeper.token == f"{SERVICE_ACCOUNT}-2"
        expires = keeper.metrics.registry.get_sample_value("kms_operator_server_token_expires_timestamp_seconds")
        assert expires == pytest.approx(datetime.now(UTC).timestamp() + TOKEN_SECONDS, abs=60)


@pytest.mark.parametrize("fault", [403, 404, 503, 0], ids=["forbidden", "not found", "unavailable", "no answer"])
async def test_a_token_that_is_not_given_is_asked_for_again_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: int
) -> None:
    async with running_api() as api:
        api.fail_next("create", "serviceaccounts", fault, times=2)
        chosen, sleeper = settings(api, tmp_path), Sleeper()
        assert chosen.server_identity is not None
        keeper = ServerTokenRenewer(chosen.server_identity, chosen, await api.cluster(), Metrics(), sleep=sleeper)
        async with in_background(keeper.run()):
            await until(lambda: sleeper.asked)
            assert sleeper.asked[-1] <= 1
            assert "renewing the server's token failed" in caplog.text
            sleeper.wake.set()
            await until(lambda: len(sleeper.asked) == 2)
            assert sleeper.asked[-1] <= 2
            sleeper.wake.set()
            await until(lambda: len(sleeper.asked) == 3)
            assert sleeper.asked[-1] > 1000
            assert (chosen.server_identity.token_directory / "token").exists()


async def test_the_old_token_stays_while_there_is_no_new_one(tmp_path: Path) -> None:
    async with kept(tmp_path) as keeper:
        keeper.api.fail_next("create", "serviceaccounts", 503)
        assert await keeper.next() <= 1
        assert keeper.token == f"{SERVICE_ACCOUNT}-1"


async def test_a_folder_that_cannot_be_written_to_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(tmp_path) as keeper:
        aside = keeper.folder.rename(tmp_path / "aside")
        assert await keeper.next() <= 1
        assert "renewing the server's token failed" in caplog.text
        aside.rename(keeper.folder)
        assert await keeper.next() > 1000


@pytest.mark.requirement("SEC64")
async def test_no_token_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        async with kept(tmp_path) as keeper:
            keeper.api.fail_next("create", "serviceaccounts", 503)
            await keeper.next()
            await keeper.next()
            assert keeper.token not in caplog.text
    assert all(SERVICE_ACCOUNT not in str(vars(each)) for each in caplog.records)


async def test_without_a_server_beside_it_an_operator_asks_for_no_token() -> None:
    async with running_api() as api:
        alone = OperatorSettings(external_url="https://acme.example.com", namespace="kms-acme")
        stop = threading.Event()
        async with renewing_server_token(alone, await api.cluster(), Metrics(), stop=stop):
            assert not stop.is_set()
        assert api.requests == []


async def test_an_operator_that_stops_stops_renewing(tmp_path: Path) -> None:
    async with running_api() as api:
        chosen, stop = settings(api, tmp_path), threading.Event()
        async with renewing_server_token(chosen, await api.cluster(), Metrics(), stop=stop):
            await until(lambda: api.requests)
            assert not stop.is_set()
        assert stop.is_set()


async def test_a_defect_while_renewing_ends_the_operator_and_is_not_swallowed(tmp_path: Path) -> None:
    def broken() -> datetime:
        raise ZeroDivisionError

    async with running_api() as api:
        chosen, stop = settings(api, tmp_path), threading.Event()
        with pytest.raises(ZeroDivisionError):
            async with renewing_server_token(chosen, await api.cluster(), Metrics(), stop=stop, clock=broken):
                await until(stop.is_set)
