"""The write budget: what issuances ask the API server for, counted on its audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from e2e.cluster import CommandFailed
from e2e.cluster.audit import AuditLog
from e2e.load.client import Client
from e2e.load.keys import certificate_id
from e2e.load.solvers import CHALLENGES, ByDNS, ByHTTP, ByTLS, Solver
from e2e.support import tlsalpn01
from tests.support.budget import asked, cost
from tests.support.eventually import until
from tests.support.external_cas import vault_ca
from tests.support.installation import SERVER, Installation
from tests.support.openbao import OpenBao
from tests.support.retrying import retried


@pytest.fixture
async def client(installation: Installation, team: str) -> AsyncIterator[Client]:
    """A client with an account on an open profile whose server has warm caches: it has issued a certificate."""
    async with installation.client(installation.open_profile(team)) as client:
        await client.obtain(["warm.test"], installation.answerer.add)
        yield client


@pytest.fixture
def audit(installation: Installation) -> AuditLog:
    return installation.cluster.audit()


@pytest.mark.parametrize("count", [1, 10])
async def test_a_certificate_costs_three_writes_and_no_read_however_many_names_it_has(
    installation: Installation, client: Client, audit: AuditLog, count: int
) -> None:
    async def issue(one: int) -> None:
        await client.obtain([f"budget-{one}-{number}.test" for number in range(count)], installation.answerer.add)

    assert await cost(audit, issue) == {"create acmeorders": 1, "update acmeorders/status": 2}


async def test_orders_refer_to_one_chain_which_cannot_be_changed(
    installation: Installation, client: Client, team: str
) -> None:
    issued = [await client.obtain([f"chain-{number}.test"], installation.answerer.add) for number in range(2)]
    orders = [installation.order(team, each.order.url)["status"] for each in issued]
    (chain,) = installation.objects("certificatechains", team)
    assert [each["chainRef"] for each in orders] == 2 * [{"name": chain["metadata"]["name"]}]
    assert [each["certificate"] + chain["spec"]["certificates"] for each in orders] == [each.chain for each in issued]
    name, patch = chain["metadata"]["name"], '{"spec": {"certificates": "another"}}'
    with pytest.raises(CommandFailed, match="the spec of a certificate chain cannot be changed"):
        installation.cluster.kubectl("patch", "kchain", name, f"--namespace={team}", "--type=merge", f"--patch={patch}")


@pytest.mark.requirement("M71", "S59")
@pytest.mark.parametrize("count", [1, 10])
async def test_a_certificate_for_names_that_are_proven_costs_two_writes_and_no_read(
    installation: Installation, client: Client, audit: AuditLog, count: int
) -> None:
    names = [f"again-{number}.test" for number in range(count)]
    first = await client.obtain(names, installation.answerer.add)
    audit.mark()
    second = await client.obtain(names, installation.answerer.add)
    assert second.order.authorizations == first.order.authorizations
    assert asked(audit) == {"create acmeorders": 1, "update acmeorders/status": 1}


@pytest.mark.requirement("SEC50")
async def test_where_ownership_is_not_validated_a_certificate_costs_two_writes_and_no_read(
    installation: Installation, team: str, audit: AuditLog
) -> None:
    enrollment = installation.profile(team, names="*.trusted.test", ownershipValidation="Skipped")
    async with installation.client(enrollment, external_account=installation.credential(team)) as client:
        await client.obtain(["warm.trusted.test"], installation.answerer.add)
        audit.mark()
        certificate = await client.obtain(["1.trusted.test", "2.trusted.test"], installation.answerer.add)
        assert asked(audit) == {"create acmeorders": 1, "update acmeorders/status": 1}
    stored = installation.order(team, certificate.order.url)
    assert stored["spec"]["names"] == "1.trusted.test, 2.trusted.test"
    assert [each["authorization"] for each in stored["spec"]["authorized"]] == [0, 1]


@pytest.mark.requirement("P14")
async def test_requests_of_a_known_account_that_are_refused_write_one_event_and_nothing_else(
    client: Client, audit: AuditLog
) -> None:
    url = (await client.exchange.directory())["newOrder"]
    audit.mark()
    for number in range(20):
        order = {"identifiers": [{"type": "dns", "value": f"{number}.not.allowed.example.com"}]}
        answer = await client.exchange.signed(url, order, key=client.key, kid=client.account_url)
        assert (answer.status, answer.problem_type) == (403, "rejectedIdentifier")
    await until(lambda: bool(asked(audit)))  # it is written in the background
    assert asked(audit) == {"create events": 1}


@pytest.fixture
def solvers(installation: Installation) -> Iterator[dict[str, Solver]]:
    """A way for each type of challenge."""
    answerer = tlsalpn01.Answerer()
    with tlsalpn01.serving(answerer, port=installation.programs.validation.tls_alpn01_port):
        ways: list[Solver] = [ByHTTP(installation.answerer.add), ByDNS(installation.zone), ByTLS(answerer)]
        yield {each.type: each for each in ways}


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("challenge", CHALLENGES)
async def test_a_certificate_costs_the_same_whatever_the_challenge(
    installation: Installation, team: str, audit: AuditLog, solvers: dict[str, Solver], *, challenge: str, count: int
) -> None:
    enrollment = installation.profile(team, externalAccountBinding="Disabled", challenges=[challenge])
    async with installation.client(enrollment) as client:

        async def issue(one: int) -> None:
            await client.obtain_by(solvers[challenge], [f"budget-{one}-{number}.test" for number in range(count)])

        await client.obtain_by(solvers[challenge], ["warm.test"])
        assert await cost(audit, issue) == {"create acmeorders": 1, "update acmeorders/status": 2}


@pytest.mark.requirement("ARI-M8", "ARI-M13")
@pytest.mark.parametrize(("lifetime", "updates"), [("24h", 1), ("0s", 2)], ids=["still proven", "to be proven again"])
async def test_a_renewal_costs_no_more_than_the_first_certificate_and_less_while_names_are_proven(
    installation: Installation, team: str, audit: AuditLog, lifetime: str, updates: int
) -> None:
    enrollment = installation.profile(team, externalAccountBinding="Disabled", authorizationLifetime=lifetime)
    solver, names = ByHTTP(installation.answerer.add), ["renewed-1.test", "renewed-2.test"]
    async with installation.client(enrollment) as client:
        certificates = [await client.obtain_by(solver, names)]

        async def renew(_: int) -> None:
            await client.renewal_info(certificates[-1])
            certificates.append(await client.renew(certificates[-1], solver, names))

        assert await cost(audit, renew) == {"create acmeorders": 1, "update acmeorders/status": updates}
    for old, new in pairwise(certificates):
        assert new.order.body["replaces"] == certificate_id(old.leaf)


@pytest.mark.requirement("X15", "X63")
async def test_a_certificate_of_openbao_costs_one_write_more_and_no_read(
    installation: Installation, audit: AuditLog, openbao: OpenBao
) -> None:
    with vault_ca(installation, openbao) as authority:
        async with installation.client(authority.enrollment) as client:

            async def issue(one: int) -> None:
                await client.obtain([f"openbao-{one}.test"], installation.answerer.add)

            await client.obtain(["warm.test"], installation.answerer.add)
            before = openbao.certificates_of(authority.mount)
            assert await cost(audit, issue) == {"create acmeorders": 1, "update acmeorders/status": 3}
            assert openbao.certificates_of(authority.mount) - before == 3


@pytest.mark.soak
@pytest.mark.requirement("X23", "X50")
async def test_without_an_external_ca_a_server_that_starts_asks_for_no_requests(
    installation: Installation, client: Client, audit: AuditLog
) -> None:
    audit.mark()
    installation.programs.server.restart()
    await retried(
        lambda: client.obtain(["started.test"], installation.answerer.add)
    )  # connections ended with the server
    found = {each.resource.partition(".")[0] for each in audit.counts(user=SERVER)}
    assert "acmeorders" in found
    assert not found & {"certificaterequests", "certificatesigningrequests"}
