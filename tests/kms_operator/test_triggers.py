"""What one change makes worth a look."""

from __future__ import annotations

from typing import Any

import pytest

from kms.resources.core import Lease
from kms.resources.kinds import (
    ACCOUNTS,
    AUTHORITIES,
    CREDENTIALS,
    LEASES,
    NAMESPACES,
    POLICIES,
    PROFILES,
    SECRETS,
    Kind,
)
from kms.resources.secret_names import signing_key_name
from kms_operator.cache import Cache
from kms_operator.indexes import AccountSummary
from kms_operator.objects import shared_secret, user_secret
from kms_operator.reconcilers.eab_copies import verification_copy
from kms_operator.reconcilers.eab_keys import BindingKey
from kms_operator.triggers import ACCOUNTS_DELAY, find_affected
from tests.support.operated import (
    RELEASE,
    authority,
    credential,
    metadata,
    namespace,
    policy,
    profile,
    ready_status,
    secret,
    snapshot_of,
)


@pytest.fixture
def cache() -> Cache:
    one = Cache()
    for kind, resources in (
        (AUTHORITIES, (authority(), authority("sub", internal={"issuerRef": {"name": "issuing"}}), authority("other"))),
        (AUTHORITIES, (authority("imported", imported="x"),)),
        (POLICIES, (policy(),)),
        (PROFILES, (profile(),)),
        (
            CREDENTIALS,
            (credential(), credential("far", "team-a"), credential("apart", spec={"profileRef": {"name": "x"}})),
        ),
        (CREDENTIALS, (credential("waiting", status=ready_status("KeyIDInUse", "False")),)),
    ):
        for each in resources:
            one.put(kind, each)
    return one


def looked_at(kind: Kind[Any], changed: Any, cache: Cache) -> set[str]:
    return {"/".join(filter(None, target)) for target, _ in find_affected(kind, changed, cache, release=RELEASE)}


def test_a_ca_concerns_itself_what_it_issued_and_profiles_with_it(cache: Cache) -> None:
    assert looked_at(AUTHORITIES, authority(), cache) == {
        "certificateauthorities/pki/issuing",
        "certificateauthorities/pki/sub",
        "certificateprofiles/pki/web",
        "trust/pki/issuing",
    }


def test_a_policy_concerns_itself_and_profiles_with_it(cache: Cache) -> None:
    assert looked_at(POLICIES, policy(), cache) == {"certificatepolicies/pki/web", "certificateprofiles/pki/web"}


def test_a_profile_concerns_its_credentials_wherever_they_live(cache: Cache) -> None:
    assert looked_at(PROFILES, profile(), cache) == {
        "certificatepolicies/pki/web",
        "certificateprofiles/pki/web",
        "certificateauthorities/pki/issuing",
        "eabcredentials/pki/web",
        "eabcredentials/team-a/far",
        "eabcredentials/pki/waiting",
    }


def test_a_profile_and_its_policy_concern_the_directories_that_offer_it(cache: Cache) -> None:
    offered = {"profiles": [{"name": "short", "profileRef": {"name": "web"}}]}
    cache.put(PROFILES, profile("front", acme=offered))
    cache.put(PROFILES, profile("far", namespace="team-a", acme=offered))
    assert "certificateprofiles/pki/front" in looked_at(PROFILES, profile(), cache)
    assert "certificateprofiles/pki/front" in looked_at(POLICIES, policy(), cache)
    assert not any("team-a/far" in each for each in looked_at(PROFILES, profile(), cache) if "profiles" in each)


def test_a_credential_concerns_those_that_wait_for_its_identifier(cache: Cache) -> None:
    assert looked_at(CREDENTIALS, credential(), cache) == {"eabcredentials/pki/web", "eabcredentials/pki/waiting"}


def test_a_namespace_concerns_the_credentials_in_it(cache: Cache) -> None:
    assert looked_at(NAMESPACES, namespace("team-a"), cache) == {"eabcredentials/team-a/far"}


def test_an_account_concerns_its_credential_after_a_while(cache: Cache) -> None:
    opened = AccountSummary(metadata("a"), ("pki", "web"), is_open=True)
    ((target, delay),) = find_affected(ACCOUNTS, opened, cache, release=RELEASE)
    assert (target.name, delay) == ("web", ACCOUNTS_DELAY)
    gone = AccountSummary(metadata("a"), ("pki", "gone"), is_open=True)
    assert not list(find_affected(ACCOUNTS, gone, cache, release=RELEASE))


def test_a_secret_concerns_its_owner(cache: Cache) -> None:
    shown = user_secret("any", component="eab", owner=credential(), kind=CREDENTIALS, data={})
    assert looked_at(SECRETS, shown, cache) == {"eabcredentials/pki/web"}
    copy = verification_copy(credential(), profile(), BindingKey("k", "s"), snapshot_of())
    assert looked_at(SECRETS, copy, cache) == {"eabcredentials/pki/web"}


def test_a_secret_under_the_name_that_a_credential_wants_concerns_it(cache: Cache) -> None:
    assert looked_at(SECRETS, secret("web-eab"), cache) == {"eabcredentials/pki/web"}


def test_a_restored_key_is_noticed_by_its_name(cache: Cache) -> None:
    restored = secret(signing_key_name("uid-pki-issuing"), RELEASE)
    assert looked_at(SECRETS, restored, cache) == {"certificateauthorities/pki/issuing"}


@pytest.mark.parametrize(("component", "everybody"), [("serving-authority", True), ("nonce-key", False)])
def test_what_clients_trust_concerns_all_who_publish_it(cache: Cache, component: str, *, everybody: bool) -> None:
    found = looked_at(SECRETS, shared_secret(RELEASE, "x", component=component, data={}), cache)
    assert "installation" in found
    assert ({"certificateprofiles/pki/web", "eabcredentials/pki/apart"} <= found) is everybody


@pytest.mark.requirement("SEC75")
@pytest.mark.parametrize("component", ["serving-authority", "serving-certificate", "nonce-key"])
def test_a_tenants_secret_with_our_labels_does_not_make_everything_reconciled(cache: Cache, component: str) -> None:
    assert looked_at(SECRETS, shared_secret("team-a", "x", component=component, data={}), cache) == set()


def test_what_is_none_of_these_concerns_nobody(cache: Cache) -> None:
    assert looked_at(LEASES, Lease(metadata=metadata("x")), cache) == set()
