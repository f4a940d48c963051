"""The stories of orders, accounts and names, from the states that transitions make."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.accounts import transitions as of_accounts
from acme_server.model import ChallengeId, Failed
from acme_server.orders import transitions
from kms.resources.accounts import AccountStatus, ACMEAccount, CredentialBinding
from kms.resources.meta import Condition, LocalRef
from kms.resources.orders import (
    ACMEOrder,
    Authorized,
    Identifier,
    OrderState,
    StoredProblem,
    StoredSubProblem,
    with_authorizations,
)
from kms_acme.configuration import Configuration
from kms_acme.explain import Line, Story, explain_account, explain_name, explain_order, told
from kms_acme.explain.story import in_order
from kms_acme.policy_test import Request, evaluate
from tests.support.accounts import account
from tests.support.acmeorders import DIGEST, NOW, certified, issued, order, proven
from tests.support.operated import authority, credential, policy, profile

AT = "2026-11-23T12:00:00Z"
PLACE = "http://www.example.com/.well-known/acme-challenge/token-0"
HOUR = timedelta(hours=1)


def text(story: Story) -> str:
    return "\n".join(told(story))


@pytest.mark.requirement("P1")
def test_an_order_with_a_certificate_tells_who_what_how_and_until_when() -> None:
    told_ = text(explain_order(certified(), account("account"), profile(), now=NOW + HOUR))
    assert told_.splitlines() == [
        "ACMEOrder pki/orderorderorderorderorderorder22",
        "  2026-11-23T12:00:00Z  Account pki/account ordered a certificate for www.example.com from profile pki/web.",
        "                        Policy pki/web decides about names, and CA pki/issuing signs.",
        f"  2026-11-23T12:00:00Z  www.example.com was proven by http-01: the server found the answer at {PLACE}.",
        f"  {AT}  Certificate 1234 was issued, valid from {AT} until 2026-12-23T12:00:00Z.",
        "  now                   The certificate is valid until 2026-12-23T12:00:00Z.",
    ]


@pytest.mark.requirement("P1")
@pytest.mark.parametrize(
    ("problem", "tried", "remedy"),
    [
        (
            "connection",
            "the server tried http://www.example.com/",
            "curl --verbose http://www.example.com/.well-known/acme-challenge/token-0",
        ),
        (
            "dns",
            "the lookup of the addresses of www.example.com failed, so the server has not asked http://www.example.com/",
            "dig A www.example.com; dig AAAA www.example.com  # at the DNS servers of the server (--dns-server)",
        ),
        ("caa", "the server found the answer at http://www.example.com/", "dig CAA www.example.com"),
    ],
)
def test_a_failed_challenge_tells_where_the_server_looked_what_came_back_and_how_to_look_there(
    problem: str, tried: str, remedy: str
) -> None:
    begun = transitions.begun(order(), {ChallengeId(0, "http-01"): None}, attempt="server-0", now=NOW + HOUR)
    failure = Failed(StoredProblem(type=problem, detail="It did not work."))
    failed = transitions.validated(begun, {ChallengeId(0, "http-01"): failure}, lifetime=HOUR, now=NOW + 2 * HOUR)
    story = explain_order(failed, account("account"), profile(), now=NOW + 3 * HOUR)
    assert not story.is_well
    assert remedy in story.remedies
    said = text(story)
    assert f"2026-11-23T14:00:00Z  www.example.com was not proven by http-01: {tried}" in said
    assert f"What came back ({problem}): It did not work." in said
    assert said.splitlines()[-2].endswith("The order has failed; the client has to order again.")


@pytest.mark.requirement("P1")
@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("processing", "It has no certificate yet (RefusedByIssuer): HTTP 400: www.example.com is not allowed"),
        ("invalid", "The cause (RefusedByIssuer): HTTP 400: www.example.com is not allowed"),
    ],
)
def test_what_an_external_ca_has_said_is_told_though_clients_do_not_learn_it(state: OrderState, line: str) -> None:
    said = Condition(
        type="Ready",
        status="False",
        reason="RefusedByIssuer",
        message="HTTP 400: www.example.com is not allowed",
        last_transition_time=NOW,
    )
    problem = StoredProblem(type="badCSR", detail="The issuing CA refused the certificate request.")
    status = replace(order().status, state=state, conditions=(said,), error=problem if state == "invalid" else None)
    assert line in text(explain_order(replace(order(), status=status), account("account"), profile(), now=NOW))


def test_a_pending_order_tells_what_it_waits_for_and_an_old_one_that_it_expired() -> None:
    story = explain_order(order("a.example.com"), None, None, now=NOW)
    said = text(story)
    assert story.is_well
    assert "Account pki/account (which is gone)" in said
    assert "the client has not asked to validate it" in said
    assert "The profile pki/web no longer exists." in said
    assert story.now == "The order waits for proofs until 2026-11-24T12:00:00Z."
    late = explain_order(order(), None, None, now=NOW + 48 * HOUR)
    assert (late.is_well, "expired at 2026-11-24T12:00:00Z" in late.now) == (False, True)
    ready = explain_order(proven(order()), bound(state="valid"), None, now=NOW)
    assert "waits for the client's certificate request" in ready.now
    assert "Events of its credential: kubectl -n pki describe eab/web" in text(ready)


def test_a_refusal_that_names_a_rule_comes_with_the_command_that_changes_it() -> None:
    detail = 'DNS name "b.example.com" is not allowed by policy pki/web (spec.dnsNames.allowed)'
    sub = StoredSubProblem(type="badCSR", detail=detail, identifier=Identifier(type="dns", value="b.example.com"))
    problem = StoredProblem(type="badCSR", detail=f"{detail}.", subproblems=(sub,))
    failed = transitions.failed(proven(order()), problem, reason="IssuanceFailed", now=NOW + HOUR)
    story = explain_order(failed, None, None, now=NOW + HOUR)
    assert f"The order failed (badCSR): {detail}." in text(story)
    assert any("patch kpol/web --type=json" in each and "b.example.com" in each for each in story.remedies)


def test_a_name_that_was_proven_before_or_needs_no_proof_says_so() -> None:
    base = order("a.example.com", "b.example.com")
    before = Authorized(authorization=0, order="earlier", position=0, type="http-01", validated=NOW, expires=NOW + HOUR)
    trusted = Authorized(authorization=1, validated=NOW, expires=NOW + HOUR)
    spec = replace(base.spec, authorized=(before, trusted), replaces="abc.def", client_namespace="team-a")
    fresh = with_authorizations(replace(base, spec=spec, status=type(base.status)()))
    said = text(explain_order(fresh, None, profile(), now=NOW))
    assert (
        "a.example.com needed no new proof: it was proven by http-01 at 2026-11-23T12:00:00Z for order earlier" in said
    )
    assert "b.example.com needed no proof: the profile accepts the credential" in said
    assert "It is a renewal, of the certificate abc.def." in said
    assert "Its clients are in namespace team-a." in said


def test_a_revoked_certificate_tells_when_and_why() -> None:
    revoked = transitions.revoked(certified(), "superseded", now=NOW + HOUR)
    story = explain_order(revoked, None, profile(), now=NOW + 2 * HOUR)
    assert (story.is_well, story.now) == (False, "The certificate is revoked.")
    assert "2026-11-23T13:00:00Z  The certificate was revoked (superseded)." in text(story)


def test_what_was_left_out_of_the_certificate_is_told() -> None:
    done = transitions.issued(proven(order()), DIGEST, issued(), left_out=('organizations "-"',), now=NOW)
    assert "The request also asked for what the certificate does not have" in text(
        explain_order(done, None, profile(), now=NOW)
    )


def bound(**status: Any) -> ACMEAccount:
    base = account("account")
    binding = CredentialBinding(name="web", namespace="pki", uid="credential-uid", key_id="kid-1")
    return replace(base, spec=replace(base.spec, external_account=binding), status=AccountStatus(**status))


@pytest.mark.requirement("P1")
def test_an_account_tells_its_credential_its_orders_and_why_it_may_not_act() -> None:
    fine = explain_account(bound(state="valid"), credential(), profile(), {"valid": 3}, latest=NOW)
    assert (fine.is_well, fine.now) == (True, "The account may order certificates.")
    assert "with EABCredential pki/web (key identifier kid-1)" in text(fine)
    assert "All of its orders: 3 valid." in text(fine)
    stopped = explain_account(
        bound(state="valid"),
        credential(spec={"suspended": True}),
        profile(),
        {},
        latest=None,
    )
    assert (stopped.is_well, stopped.now) == (
        False,
        "The account may not act: The account's EAB credential pki/web is suspended.",
    )
    assert stopped.remedies == ("""kubectl -n pki patch eab/web --type=merge -p '{"spec": {"suspended": false}}'""",)
    suspended = of_accounts.suspended(bound(state="valid"), now=NOW)
    story = explain_account(suspended, credential(), profile(), {}, latest=None)
    assert story.remedies == ("kms-acme account resume --account pki/account",)
    assert "2026-11-23T12:00:00Z  An administrator suspended it." in text(story)
    alias = replace(account("alias"), spec=replace(account("alias").spec, alias_of=LocalRef(name="account")))
    assert "alias of account pki/account" in explain_account(alias, None, None, {}, latest=None).now


@pytest.mark.requirement("P1")
def test_a_name_tells_the_rule_for_whom_and_its_certificates() -> None:
    configuration = Configuration(
        profiles={("pki", "web"): profile()},
        policies={("pki", "web"): policy()},
        authorities={("pki", "issuing"): authority()},
        credentials={
            ("pki", "web"): credential(),
            ("pki", "narrow"): credential("narrow", spec={"names": {"dnsNames": {"allowed": ["b.apps.example.com"]}}}),
        },
        offline=True,
    )

    def story(name: str, *orders: ACMEOrder) -> Story:
        request = Request(("pki", "web"), (name,))
        verdicts = {
            key: evaluate(configuration, replace_credential(request, key), now=NOW) for key in configuration.credentials
        }
        return explain_name(name, evaluate(configuration, request, now=NOW), verdicts, orders, now=NOW)

    granted = story("a.apps.example.com", certified())
    assert granted.is_well
    said = text(granted)
    assert 'is allowed by policy pki/web (spec.dnsNames.allowed: "*.apps.example.com")' in said
    assert "It is granted to clients of EABCredential pki/web." in said
    assert "refused to clients of EABCredential pki/narrow" in said
    assert "Certificate 1234 was issued to account pki/account: valid until 2026-12-23T12:00:00Z." in said
    refused = story("a.example.org")
    assert not refused.is_well
    assert "There is no certificate for it." in text(refused)
    assert len(refused.remedies) == 1
    # A reason that is the same for all is told once.
    assert text(refused).count("is not allowed by policy pki/web") == 1
    assert "For that reason it is refused to clients of EABCredential pki/web, pki/narrow." in text(refused)


def replace_credential(request: Request, key: tuple[str, str]) -> Request:
    return Request(request.profile, request.names, key)


def test_lines_without_a_time_stay_behind_their_line() -> None:
    lines = [Line("b", NOW + HOUR), Line("about b"), Line("a", NOW), Line("about a")]
    assert [each.text for each in in_order(lines)] == ["a", "about a", "b", "about b"]
