import aiohttp
import pytest

from e2e.cluster.ports import free_port
from kms.address import Address
from kms_operator.health import application, serving
from kms_operator.metrics import Metrics
from tests.support.eventually import until
from tests.support.flood import silent_connections


@pytest.mark.requirement("SEC39", "SEC75")
async def test_silent_connections_to_the_metrics_port_are_few() -> None:
    address = Address("127.0.0.1", free_port())
    async with (
        serving(application(Metrics(), not_ready=lambda: None), address),
        silent_connections(address.port, 100) as left,
    ):
        await until(lambda: left() == 32)
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/healthz") as answer:
            assert await answer.text() == "ok\n"
            assert answer.headers["Server"] == "kms-acme"
