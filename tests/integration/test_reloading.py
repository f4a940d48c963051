"""Changes act while the programs run, without a restart: of certificates, profiles, policies and credentials."""

from __future__ import annotations

import ssl
from functools import partial

import pytest
from cryptography import x509

from e2e.load.client import Refused
from e2e.load.exchange import Exchange
from e2e.load.keys import ExternalAccount, certificate_key, certificate_request
from e2e.support.enrollment import external_account_of, secret
from e2e.support.programs import RELEASE
from kms.resources.kinds import CREDENTIALS, POLICIES
from tests.support.eventually import becomes, until
from tests.support.installation import PROFILE, Installation, refusal


def presented(installation: Installation) -> x509.Certificate:
    """The certificate that the server shows to whoever connects."""
    port = installation.programs.server.port
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port), timeout=10).encode())


@pytest.mark.requirement("SEC65")
async def test_the_server_presents_a_new_serving_certificate_without_a_restart(
    installation: Installation, team: str
) -> None:
    enrollment = installation.open_profile(team)
    async with installation.client(enrollment) as connected:
        before = presented(installation)
        installation.cluster.kubectl("delete", "secret", "kms-acme-serving", f"--namespace={RELEASE}")

        async def is_new() -> bool:
            return presented(installation).serial_number != before.serial_number

        await becomes(is_new)
        stored = secret(installation.cluster, RELEASE, "kms-acme-serving")["tls.crt"]
        assert presented(installation) == x509.load_pem_x509_certificate(stored.encode())
        # Neither who is connected already nor who comes with what he was once given to trust notices anything.
        await connected.obtain(["connected.test"], installation.answerer.add)
    async with installation.client(enrollment) as later:
        await later.obtain(["later.test"], installation.answerer.add)


@pytest.mark.requirement("SEC28")
async def test_an_order_that_the_policy_does_not_allow_any_more_gets_no_certificate(
    installation: Installation, team: str
) -> None:
    async with installation.client(installation.open_profile(team)) as client:
        ready = await installation.proven(client, "withdrawn.test")
        installation.apply(team, POLICIES, {"dnsNames": {"allowed": ["only.test"]}})

        async def is_refused() -> bool:
            return await refusal(client.new_order(["withdrawn.test"])) == "rejectedIdentifier"

        await becomes(is_refused)
        request = certificate_request(["withdrawn.test"], certificate_key())
        with pytest.raises(Refused) as refused:
            await client.finalize(ready, request)
        assert refused.value.answer.problem_type == "badCSR"
        assert (await client.order(ready.url)).status == "ready"
        await client.obtain(["only.test"], installation.answerer.add)


@pytest.mark.requirement("o52")
async def test_a_change_of_the_profile_acts_at_once(installation: Installation, team: str) -> None:
    enrollment = installation.open_profile(team)
    terms = "https://example.com/terms"

    async def has_terms() -> bool:
        async with installation.client(enrollment, register=False) as client:
            meta: dict[str, object] = (await client.exchange.directory()).get("meta", {})
            return meta.get("termsOfService") == terms

    assert not await has_terms()
    installation.profile(team, externalAccountBinding="Disabled", termsOfService=terms)
    await becomes(has_terms)


async def test_a_deleted_profile_is_gone_for_its_clients_too(installation: Installation, team: str) -> None:
    async with installation.client(installation.open_profile(team)) as client:
        installation.cluster.kubectl("delete", "certificateprofile", PROFILE, f"--namespace={team}")

        async def is_gone() -> bool:
            return (await client.exchange.request("GET", client.exchange.directory_url)).status == 404

        await becomes(is_gone)


@pytest.mark.requirement("SEC12b")
async def test_a_suspended_credential_opens_no_account_and_its_accounts_order_nothing(
    installation: Installation, team: str
) -> None:
    enrollment = installation.profile(team)
    external_account = installation.credential(team)
    async with installation.client(enrollment, external_account=external_account) as client:
        await client.new_order(["before.test"])
        installation.apply(team, CREDENTIALS, {"profileRef": {"name": PROFILE}, "suspended": True})

        async def is_refused() -> bool:
            return await refusal(client.new_order(["after.test"])) == "unauthorized"

        await becomes(is_refused)
        async with installation.client(enrollment, register=False) as newcomer:
            assert await refusal(newcomer.register(external_account=external_account)) == "unauthorized"
        installation.apply(team, CREDENTIALS, {"profileRef": {"name": PROFILE}, "suspended": False})

        async def is_accepted() -> bool:
            return not await refusal(client.new_order(["after.test"]))

        await becomes(is_accepted)


@pytest.mark.requirement("SEC12b", "SEC77")
async def test_what_a_credential_said_last_outlives_it_and_its_accounts_follow_the_next_of_its_name(
    installation: Installation, team: str
) -> None:
    enrollment = installation.profile(team)
    external_account = installation.credential(team, names={"dnsNames": {"allowed": ["www.test"]}})
    async with installation.client(enrollment, external_account=external_account) as client:
        ready = await installation.proven(client, "www.test")

        def kept() -> dict[str, object]:
            (account,) = installation.objects("acmeaccounts", team)
            record: dict[str, object] = account["status"].get("credential", {})
            return record

        async def answers(problem: str) -> bool:
            return await refusal(client.new_order(["www.test"])) == problem

        suspended = {
            "profileRef": {"name": PROFILE},
            "names": {"dnsNames": {"allowed": ["api.test"]}},
            "suspended": True,
        }
        installation.apply(team, CREDENTIALS, suspended)
        await until(lambda: kept().get("state") == "Suspended")
        installation.cluster.kubectl("delete", "eabcredential", PROFILE, f"--namespace={team}")
        await until(lambda: kept().get("state") == "Deleted")
        assert kept()["suspended"] is True
        assert kept()["names"] == {"dnsNames": {"allowed": ["api.test"], "wildcards": "Deny"}}
        request = certificate_request(["www.test"], certificate_key())
        assert await refusal(client.new_order(["www.test"])) == "unauthorized"
        assert await refusal(client.finalize(ready, request)) == "unauthorized"
        installation.credential(team, names={"dnsNames": {"allowed": ["www.test"]}})
        await until(lambda: kept().get("state") == "Suspended")
        assert await answers("unauthorized")
        await installation.manage("resume", "--credential", f"{team}/{PROFILE}")
        await becomes(partial(answers, ""))
        assert await refusal(client.new_order(["api.test"])) == "rejectedIdentifier"
        assert (await client.finalize(ready, request)).status == "valid"
        uid = installation.object("eabcredential", team, PROFILE)["metadata"]["uid"]
        await until(lambda: kept()["uid"] == uid)


@pytest.mark.requirement("SEC12b", "SEC77")
async def test_a_credential_that_is_deleted_while_no_server_runs_is_gone_for_its_accounts(
    installation: Installation, team: str
) -> None:
    enrollment = installation.profile(team)
    external_account = installation.credential(team)
    async with installation.client(enrollment, external_account=external_account) as client:
        await client.new_order(["before.test"])
        installation.programs.server.kill()
        installation.cluster.kubectl("delete", "eabcredential", PROFILE, f"--namespace={team}")
        installation.programs.server.restart()
    async with Exchange(enrollment.directory_url, tls=enrollment.tls) as exchange:
        url, nonce = (await exchange.directory())["newOrder"], await exchange.new_nonce("GET")
        order = {"identifiers": [{"type": "dns", "value": "after.test"}]}
        answer = await exchange.signed(url, order, key=client.key, kid=client.account_url, nonce=nonce)
        # A server cannot know yet that the credential will not be made again.
        assert (answer.status, answer.json()["detail"]) == (
            503,
            f"The account's EAB credential {team}/{PROFILE} was deleted a moment ago.",
        )


@pytest.mark.requirement("SEC78")
async def test_labels_of_a_tenants_namespace_decide_at_once_and_a_suspension_outlives_his_credential(
    installation: Installation, team: str
) -> None:
    tenant, kubectl = f"{team}-t", installation.cluster.kubectl
    names = {"dnsNames": {"allowed": ["*.{namespace}.test", "*.{labels.example.com/team}.test"]}}
    enrollment = installation.profile(team, allowedNamespaces={"from": "All", "names": names})
    reference = {"name": PROFILE, "namespace": team}
    try:
        kubectl("create", "namespace", tenant)
        external_account = installation.credential(tenant, profileRef=reference)
        async with installation.client(enrollment, external_account=external_account) as client:

            async def has(name: str) -> bool:
                return not await refusal(client.new_order([name]))

            assert await has(f"www.{tenant}.test")
            assert not await has("www.shop.test")
            kubectl("label", "namespace", tenant, "example.com/team=shop")
            await becomes(lambda: has("www.shop.test"))
            kubectl("label", "namespace", tenant, "example.com/team-")

            async def has_lost() -> bool:
                return await refusal(client.new_order(["www.shop.test"])) == "rejectedIdentifier"

            await becomes(has_lost)
            suspended = [{"namespace": tenant, "suspended": True}]
            installation.profile(team, allowedNamespaces={"from": "All", "names": names, "settings": suspended})

            async def is_suspended() -> bool:
                return await refusal(client.new_order([f"www.{tenant}.test"])) == "unauthorized"

            await becomes(is_suspended)
            kubectl("delete", "eabcredential", PROFILE, f"--namespace={tenant}")
            installation.apply(tenant, CREDENTIALS, {"profileRef": reference})
            reason = '--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=NamespaceSuspended'
            kubectl("wait", f"--namespace={tenant}", reason, "--timeout=60s", f"eabcredential/{PROFILE}")
            again = external_account_of(installation.cluster, tenant, PROFILE)
            async with installation.client(enrollment, register=False) as newcomer:
                assert await refusal(newcomer.register(external_account=again)) == "unauthorized"
    finally:
        kubectl("delete", "namespace", tenant, "--wait=false", "--ignore-not-found")


@pytest.mark.requirement("SEC12b")
async def test_after_the_deletion_of_its_secret_a_credential_has_a_new_key_and_the_old_one_opens_no_account(
    installation: Installation, team: str
) -> None:
    enrollment = installation.profile(team)
    old = installation.credential(team)
    async with installation.client(enrollment, external_account=old) as existing:
        installation.cluster.kubectl("delete", "secret", f"{PROFILE}-eab", f"--namespace={team}")
        installation.cluster.kubectl(
            "wait", "--for=create", f"secret/{PROFILE}-eab", f"--namespace={team}", "--timeout=120s"
        )
        new = external_account_of(installation.cluster, team, PROFILE)
        assert new.key_id != old.key_id
        assert new.mac_key != old.mac_key

        async def opens(credential: ExternalAccount) -> bool:
            async with installation.client(enrollment, register=False) as newcomer:
                return not await refusal(newcomer.register(external_account=credential))

        async def new_opens() -> bool:
            return await opens(new)

        async def old_does_not() -> bool:
            return not await opens(old)

        await becomes(new_opens)
        await becomes(old_does_not)
        # Accounts that were opened with the old key stay.
        await existing.obtain(["existing.test"], installation.answerer.add)
