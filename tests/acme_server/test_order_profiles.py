"""Several profiles behind one directory (draft-ietf-acme-profiles)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.problems import ProblemType, Unavailable
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import LocalRef
from kms.resources.policies import DNSNameRules, PolicySpec
from kms.resources.profiles import CertificateContents, OrderProfile
from tests.support import pki
from tests.support.domain import World, certificate_of, running_world
from tests.support.refusals import refusal
from tests.support.server import running_server

WWW = "www.example.com"
SHORT = CertificateContents(duration="24h", usages=("digital signature", "client auth"))


def entry(name: str, *, of: str | None = None, description: str = "") -> OrderProfile:
    return OrderProfile(name=name, description=description, profile_ref=LocalRef(name=of or name))


def offering(*entries: OrderProfile) -> Callable[[World], None]:
    def configure(world: World) -> None:
        world.lend("short", contents=SHORT, policy=PolicySpec(dns_names=DNSNameRules(allowed=("www.example.com",))))
        world.lend("broken", ready=False)
        world.configure(profiles=entries or (entry("short"), entry("broken"), entry("missing")))

    return configure


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(offering()) as world:
        yield world


@pytest.mark.requirement("PROF-M1", "SEC10")
async def test_the_directory_lists_the_profiles_that_work_by_name_with_a_text() -> None:
    entries = (entry("short"), entry("tls", of="web", description="for servers"), entry("broken"), entry("missing"))
    async with running_server(offering(*entries)) as server:
        directory = (await server.get(f"{server.base}/directory")).json
        assert directory["meta"]["profiles"] == {"short": "the profile short", "tls": "for servers"}
        await server.register()
        for name in directory["meta"]["profiles"]:
            assert (await server.order(profile=name)).status == 201


async def test_a_directory_without_profiles_does_not_mention_them() -> None:
    async with running_server() as server:
        assert "profiles" not in (await server.get(f"{server.base}/directory")).json["meta"]


@pytest.mark.requirement("PROF-M5", "PROF-M7")
async def test_the_chosen_profile_is_in_the_order_and_in_the_certificate() -> None:
    async with running_server(offering()) as server:
        await server.register()
        plain = await server.finalize(await server.ready())
        assert "profile" not in plain.json
        order = await server.order(profile="short")
        assert (order.json["status"], order.json["profile"]) == ("ready", "short")  # the proof serves all profiles
        issued = await server.finalize(order)
        assert issued.json["profile"] == "short"
        leaf = await server.certificate(issued)
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=24)
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


async def test_an_empty_name_is_none() -> None:
    """certbot sends one."""
    async with running_server(offering()) as server:
        await server.register()
        order = await server.order(profile="")
        assert order.status == 201
        assert "profile" not in order.json


@pytest.mark.requirement("PROF-M3")
async def test_without_a_name_it_is_the_directorys_own_by_the_name_that_it_is_listed_under(
    world: World, account: ACMEAccount
) -> None:
    assert (await world.order(account)).spec.profile is None
    world.configure(profiles=(entry("short"), entry("tls", of="web")))
    order = await world.order(account)
    assert (order.spec.profile, order.spec.contents_ref) == ("tls", None)


@pytest.mark.requirement("PROF-M2")
async def test_names_that_fit_the_directory_but_not_the_chosen_profile_say_so(
    world: World, account: ACMEAccount
) -> None:
    problem = await refusal(world.order(account, "api.example.com", profile="short"))
    assert problem.type == ProblemType.INVALID_PROFILE
    assert "policy pki/policy-of-short" in problem.detail
    assert [each.identifier and each.identifier.value for each in problem.subproblems] == ["api.example.com"]
    problem = await refusal(world.order(account, "www.example.org", profile="short"))
    assert problem.type == ProblemType.REJECTED_IDENTIFIER


@pytest.mark.parametrize("name", ["broken", "missing"])
async def test_a_profile_that_needs_repair_is_asked_for_again_later(
    world: World, account: ACMEAccount, name: str
) -> None:
    with pytest.raises(Unavailable):
        await world.order(account, profile=name)


@pytest.mark.requirement("M108")
async def test_dates_are_measured_by_the_chosen_profile(world: World, account: ACMEAccount) -> None:
    tight = PolicySpec(dns_names=DNSNameRules(allowed=(WWW,)), maximum_duration="24h")
    world.lend("short", contents=SHORT, policy=tight)
    late = world.clock() + timedelta(days=3)
    assert (await world.order(account, not_after=late)).spec.not_after == late
    problem = await refusal(world.order(account, profile="short", not_after=late))
    assert "policy-of-short" in problem.detail


@pytest.mark.requirement("SEC28")
async def test_the_request_is_held_against_the_policy_of_the_chosen_profile(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account, profile="short")
    world.lend("short", contents=SHORT, policy=PolicySpec(dns_names=DNSNameRules(allowed=("api.example.com",))))
    problem = await refusal(world.finalized(account, order))
    assert problem.type == ProblemType.BAD_CSR
    assert "policy-of-short" in problem.detail


@pytest.mark.requirement("PROF-M4")
async def test_an_order_with_a_profile_that_was_withdrawn_is_issued_when_it_is_offered_again(
    world: World, account: ACMEAccount
) -> None:
    """Its own word for it would be that of everybody who may create orders."""
    order = await world.proven(account, profile="short")
    world.configure(profiles=())
    problem = await refusal(world.finalized(account, order))
    assert (problem.type, problem.detail) == (
        ProblemType.INVALID_PROFILE,
        'The directory does not offer the profile "short" of the order any more.',
    )
    assert (await refusal(world.order(account, profile="short"))).type == ProblemType.INVALID_PROFILE
    world.configure(profiles=(entry("short"),))
    issued = certificate_of(await world.finalized(account, order))
    assert issued.not_valid_after_utc - issued.not_valid_before_utc == timedelta(hours=24)


@pytest.mark.requirement("PROF-M4")
async def test_an_order_whose_profile_is_gone_is_an_invalid_profile(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account, profile="short")
    world.profiles.remove("pki", "short")
    problem = await refusal(world.finalized(account, order))
    assert problem.type == ProblemType.INVALID_PROFILE
    world.lend("short", contents=SHORT)
    assert (await world.finalized(account, order)).status.state == "valid"


@pytest.mark.requirement("PROF-M4", "SEC34")
async def test_an_order_in_processing_whose_profile_is_gone_ends(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account, profile="short")
    order = await world.services.state.orders.change(
        order, lambda each: transitions.accepted(each, pki.csr(WWW), "d" * 64, now=world.clock())
    )
    world.profiles.remove("pki", "short")
    ended = await world.services.orders.refresh(order)
    assert ended.status.error is not None
    assert (ended.status.state, ended.status.error.type) == ("invalid", "invalidProfile")


@pytest.mark.requirement("PROF-M6")
async def test_a_credential_says_which_profiles_its_accounts_may_choose(world: World) -> None:
    entries = (entry("short"), entry("other", of="short"))
    world.configure(external_account_binding="Required", profiles=entries)
    account = await world.bound(profiles=("short",))
    assert account.spec.external_account is not None
    assert account.spec.external_account.profiles == ("short",)
    order = await world.proven(account, profile="short")
    problem = await refusal(world.order(account, profile="other"))
    assert problem.type == ProblemType.INVALID_PROFILE
    assert problem.detail.endswith('does not entitle it to profile "other"; it does to short.')
    assert (await world.order(account)).status.state == "ready"
    credential = world.credentials.get("team", "cred")
    assert credential is not None
    world.credentials.put(replace(credential, spec=replace(credential.spec, profiles=())))
    problem = await refusal(world.finalized(account, order))
    assert (problem.type, problem.detail[-8:]) == (ProblemType.INVALID_PROFILE, "to none.")
    world.credentials.remove("team", "cred")  # what it said when it was there holds on
    assert (await world.finalized(account, order)).status.state == "valid"
    assert (await refusal(world.order(account, profile="other"))).type == ProblemType.INVALID_PROFILE


@pytest.mark.requirement("SEC50")
async def test_without_proof_of_control_only_profiles_that_list_names_are_lent(world: World) -> None:
    world.lend("wide", policy=PolicySpec(dns_names=DNSNameRules(allowed=("**",))))
    world.configure(
        external_account_binding="Required",
        ownership_validation="Skipped",
        profiles=(entry("wide"), entry("short")),
    )
    assert list(world.services.profiles.order_profiles(world.profile)) == ["short"]
    account = await world.bound()
    with pytest.raises(Unavailable):
        await world.order(account, "bank.example.net", profile="wide")
    assert (await world.order(account, profile="short")).status.state == "ready"


async def test_a_server_in_the_dark_says_so(world: World, account: ACMEAccount) -> None:
    world.profiles.silence = 5.0
    with pytest.raises(Unavailable, match="cannot read its configuration"):
        await world.order(account, profile="missing")
    assert list(world.services.profiles.order_profiles(world.profile)) == ["short"]
