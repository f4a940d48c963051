"""A CA that is about to end shortens certificates, which is told, and issues none that would end at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from kms.pki.ca import chain_to_root_pem, subject_key_id
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.keys import private_key_pem
from kms.resources.authorities import AuthorityStatus
from kms.resources.kinds import ORDERS
from kms.resources.meta import Condition, condition
from kms.resources.secret_names import TLS_CERTIFICATE, TLS_PRIVATE_KEY, signing_key_name
from tests.support import pki
from tests.support.domain import NAMESPACE, RELEASE
from tests.support.server import Server, running_server

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NAME = "www.example.com"
COUNTER = b"kms_acme_certificates_shortened_total"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        await running.register()
        yield running


def shortened(server: Server) -> float:
    """How many certificates the server has shortened."""
    line = next(each for each in server.world.metrics.exposition().splitlines() if each.startswith(COUNTER + b" "))
    return float(line.split()[1])


def told_in_order(server: Server) -> Condition | None:
    """The condition of the only order."""
    (key,) = server.world.stored_orders()
    stored = server.world.api.read(ORDERS, *key)
    assert stored is not None
    return condition(stored.status.conditions, "DurationShortened")


async def test_a_certificate_that_ends_with_its_ca_is_told_in_its_order_and_counted(server: Server) -> None:
    end = server.world.clock() + 10 * DAY
    server.world.install_authority(not_after=end)
    ready = await server.ready(NAME)
    assert (await server.finalize(ready)).json["status"] == "valid"
    told = told_in_order(server)
    assert told is not None
    assert (told.status, told.reason) == ("True", "CertificateAuthorityEnds")
    assert f"{end:%Y-%m-%dT%H:%M:%SZ}" in told.message
    assert "720h" in told.message
    assert shortened(server) == 1


async def test_a_certificate_that_lasts_as_long_as_it_should_says_nothing(server: Server) -> None:
    assert (await server.finalize(await server.ready(NAME))).json["status"] == "valid"
    assert told_in_order(server) is None
    assert shortened(server) == 0


@pytest.mark.parametrize("rest", [timedelta(seconds=22), 59 * MINUTE], ids=str)
async def test_a_ca_that_ends_too_soon_issues_nothing_until_it_is_renewed(server: Server, rest: timedelta) -> None:
    ready = await server.ready(NAME)
    server.world.install_authority(not_after=server.world.clock() + rest)
    refused = [await server.order(NAME), await server.finalize(ready)]
    assert [each.status for each in refused] == [503, 503]
    assert all(int(each.headers["Retry-After"]) > 0 for each in refused)
    server.world.install_authority()
    assert (await server.order(NAME)).status == 201
    assert (await server.finalize(ready)).json["status"] == "valid"


def install_below(server: Server, end: datetime) -> None:
    """Install a CA that lasts for a year, below a root that ends."""
    world, now = server.world, server.world.clock()
    begin, year = now - DAY, now + 365 * DAY
    issuing = pki.below(pki.root(not_before=begin, not_after=year), not_before=begin, not_after=year)
    signer = Signer(issuing.certificate, issuing.key, (pki.root(not_before=begin, not_after=end).certificate,))
    chain = chain_to_root_pem(signer)
    world.install_authority()
    found = world.authorities.get(NAMESPACE, "ca")
    assert found is not None
    status = AuthorityStatus(
        certificate=certificate_pem(signer.certificate),
        chain=chain,
        subject_key_id=subject_key_id(signer.certificate),
        not_after=signer.certificate.not_valid_after_utc,
    )
    world.authorities.put(replace(found, status=status))
    secret = world.secrets.get(RELEASE, signing_key_name("ca-uid"))
    assert secret is not None
    data = {TLS_CERTIFICATE: chain.encode(), TLS_PRIVATE_KEY: private_key_pem(signer.key)}
    world.secrets.put(replace(secret, data=data))


async def test_the_end_of_a_ca_above_the_issuing_one_is_known_before_challenges_are_solved(server: Server) -> None:
    now = server.world.clock()
    install_below(server, now + 10 * DAY)
    late = f"{now + 20 * DAY:%Y-%m-%dT%H:%M:%SZ}"
    refused = await server.order(NAME, notAfter=late)
    assert (refused.status, refused.problem["type"]) == (400, "malformed")
    assert f"{now + 10 * DAY:%Y-%m-%dT%H:%M:%SZ}" in refused.problem["detail"]
    in_time = await server.ready(NAME, notAfter=f"{now + 9 * DAY:%Y-%m-%dT%H:%M:%SZ}")
    assert (await server.finalize(in_time)).json["status"] == "valid"
    install_below(server, now + 22 * MINUTE)
    too_late = await server.order(NAME)
    assert (too_late.status, too_late.headers["Retry-After"]) == (503, "60")


async def test_a_client_that_asks_for_an_end_before_that_of_the_ca_gets_it(server: Server) -> None:
    now = server.world.clock()
    server.world.install_authority(not_after=now + 30 * MINUTE)
    ready = await server.ready(NAME, notAfter=f"{now + 20 * MINUTE:%Y-%m-%dT%H:%M:%SZ}")
    assert (await server.finalize(ready)).json["status"] == "valid"
    assert shortened(server) == 0
