"""What a directory offers beyond certificates for DNS names by one profile: on a real API server, operator included."""

from __future__ import annotations

import ipaddress
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from e2e.load.client import Client, http01_of, parse_order
from kms.resources.kinds import ORDERS, POLICIES, PROFILES
from tests.support import pki
from tests.support.eventually import becomes
from tests.support.installation import PROFILE, Installation, refusal


async def answered(installation: Installation, client: Client, authorization: str) -> None:
    """Prove an authorization by HTTP-01."""
    challenge = http01_of(await client.authorization(authorization))
    installation.answerer.add(challenge["token"], client.key.thumbprint)
    await client.respond(challenge)

    async def is_valid() -> bool:
        return bool((await client.authorization(authorization))["status"] == "valid")

    await becomes(is_valid)


@pytest.mark.requirement("IP-M1", "IP-M3", "IP-M6", "IP-M8")
async def test_an_address_is_certified_where_policy_and_validation_allow_it(
    installation: Installation, team: str
) -> None:
    enrollment = installation.open_profile(team)
    async with installation.client(enrollment) as client:
        url = (await client.exchange.directory())["newOrder"]

        async def ordered(address: str) -> Any:
            return await client.post("new-order", url, {"identifiers": [{"type": "ip", "value": address}]})

        assert await refusal(ordered("127.0.0.1")) == "rejectedIdentifier"
        installation.apply(team, POLICIES, {"ipAddresses": {"allowed": ["127.0.0.0/8", "169.254.0.0/16"]}})

        async def is_allowed() -> bool:
            return not await refusal(ordered("127.0.0.1"))

        await becomes(is_allowed)
        assert await refusal(ordered("169.254.169.254")) == "rejectedIdentifier"
        answer = await ordered("127.0.0.1")
        order = parse_order(answer, answer.location)
        await answered(installation, client, order.authorizations[0])
        order = await client.finalize(order, pki.csr("127.0.0.1"))
        leaf = (await client.certificate(order)).leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]


@pytest.mark.requirement("PROF-M1", "PROF-M2", "PROF-M5")
async def test_a_directory_lends_the_profiles_that_are_ready(installation: Installation, team: str) -> None:
    enrollment = installation.open_profile(team)
    references = {"issuerRef": {"name": PROFILE}, "policyRef": {"name": PROFILE}}
    offered = [{"name": "short", "profileRef": {"name": "short-lived"}}]
    acme = {"externalAccountBinding": "Disabled", "profiles": offered}
    installation.apply(team, PROFILES, {**references, "enrollment": {"acme": acme}})

    def resolved() -> str:
        (profile,) = (
            each for each in installation.objects("certificateprofiles", team) if each["metadata"]["name"] == PROFILE
        )
        conditions = {each["type"]: each for each in profile["status"]["conditions"]}
        assert conditions["Ready"]["status"] == "True"
        return str(conditions["ResolvedRefs"]["reason"])

    async def is_missing() -> bool:
        return resolved() == "ProfileNotFound"

    await becomes(is_missing)
    async with installation.client(enrollment) as client:
        assert "profiles" not in await meta(client)
        lent = {"description": "for a day", "certificate": {"duration": "24h"}, "enrollment": {"acme": {}}}
        installation.apply(team, PROFILES, {**references, **lent}, name="short-lived")

        async def is_offered() -> bool:
            return (await meta(client)).get("profiles") == {"short": "for a day"}

        await becomes(is_offered)
        assert resolved() == "ResolvedRefs"
        assert await refusal(client.new_order(["www.test"], profile="long")) == "invalidProfile"
        order = await client.new_order(["www.test"], profile="short")
        assert order.body["profile"] == "short"
        await answered(installation, client, order.authorizations[0])
        order = await client.finalize(order, pki.csr("www.test"))
        leaf = (await client.certificate(order)).leaf
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=24)
    stored = installation.order(team, order.url)["spec"]
    assert (stored["profile"], stored["contentsRef"]) == ("short", {"name": "short-lived"})


async def meta(client: Client) -> dict[str, Any]:
    """The directory's metadata, as it is now."""
    answer = await client.exchange.request("GET", client.exchange.directory_url)
    found: dict[str, Any] = answer.json()["meta"]
    return found


@pytest.mark.requirement("M48", "M120", "M122")
async def test_a_name_may_be_proven_before_any_order(installation: Installation, team: str) -> None:
    enrollment = installation.profile(team, externalAccountBinding="Disabled", preAuthorization="Enabled")
    async with installation.client(enrollment) as client:
        url = (await client.exchange.directory())["newAuthz"]
        created = await client.post("new-authz", url, {"identifier": {"type": "dns", "value": "before.test"}})
        assert (created.status, created.json()["status"]) == (201, "pending")
        assert created.location is not None
        await answered(installation, client, created.location)
        order = await client.new_order(["before.test"])
        assert (order.status, order.authorizations) == ("ready", [created.location])
        assert (await client.finalize(order, pki.csr("before.test"))).status == "valid"
    before, after = installation.objects("acmeorders", team)
    assert {before["spec"].get("preauthorization", False), after["spec"].get("preauthorization", False)} == {
        True,
        False,
    }


@pytest.mark.requirement("SEC58", "PROF-M4", "SEC50")
async def test_an_order_written_by_hand_gives_no_certificate_that_the_directory_does_not_give(
    installation: Installation, team: str
) -> None:
    enrollment = installation.profile(
        team, externalAccountBinding="Disabled", challenges=["http-01"], authorizationLifetime="0s"
    )
    references = {"issuerRef": {"name": PROFILE}, "policyRef": {"name": PROFILE}}
    lent = {"certificate": {"usages": ["client auth"]}, "enrollment": {"acme": {}}}
    installation.apply(team, PROFILES, {**references, **lent}, name="internal")
    installation.wait(team, "certificateprofile/internal")
    now = datetime.now(UTC)
    last_year, next_century = f"{now - timedelta(days=365):%Y-%m-%dT%H:%M:%SZ}", "2126-01-01T00:00:00Z"
    async with installation.client(enrollment) as client:
        assert client.account_url is not None
        base, _, account = client.account_url.rpartition("/accounts/")

        async def certified(number: int, **claims: Any) -> str:
            """Create an order by hand, prove its name, finalize it; return the type of the problem."""
            spec = {
                "accountRef": {"name": account},
                "profileRef": {"name": PROFILE},
                "identifiers": [{"type": "dns", "value": "forged.test"}],
                "expires": next_century,
                "challenges": ["http-01"],
                "tokenKey": "k" * 43,
            }
            name = "abcdefgh"[number] * 32
            body = {
                "apiVersion": ORDERS.api_version,
                "kind": ORDERS.kind,
                "metadata": {"name": name, "namespace": team},
                "spec": {**spec, **claims},
            }
            installation.cluster.kubectl("create", "--filename=-", stdin=json.dumps(body))
            order = await client.order(f"{base}/orders/{name}")
            await answered(installation, client, order.authorizations[0])
            return await refusal(client.finalize(order, pki.csr("forged.test")))

        assert not await certified(0)  # one that claims nothing untrue
        assert await certified(1, profile="short", contentsRef={"name": "internal"}) == "invalidProfile"
        assert await certified(2, notBefore=last_year) == "malformed"
        assert await certified(3, notBefore=next_century) == "malformed"
        assert await certified(4, clientNamespace="default") == "orderNotReady"
        acme = {"externalAccountBinding": "Disabled", "challenges": ["dns-01"]}
        installation.apply(team, PROFILES, {**references, "enrollment": {"acme": acme}})

        async def is_by_dns() -> bool:
            order = await client.new_order(["dns.test"])
            challenges = (await client.authorization(order.authorizations[0]))["challenges"]
            return [each["type"] for each in challenges] == ["dns-01"]

        await becomes(is_by_dns)
        assert await certified(5) == "orderNotReady"
    issued = [each for each in installation.objects("acmeorders", team) if "certificate" in each.get("status", {})]
    assert [each["metadata"]["name"] for each in issued] == ["a" * 32]
