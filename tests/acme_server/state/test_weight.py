from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from acme_server.model import ChallengeId, Failed
from acme_server.orders import issuance_waiting, transitions
from acme_server.state.weight import weigh_account, weigh_issuance, weigh_order
from kms.resources.orders import ACMEOrder, AskedAuthority, Claim, OrderStatus, StoredProblem
from tests.support.accounts import account
from tests.support.acmeorders import DIGEST, LIFETIME, NOW, certified, order, proven

pytestmark = pytest.mark.requirement("SEC72")
NAMES = [f"host-{number:03}.{'l' * 60}.example" for number in range(100)]


def created(*names: str) -> ACMEOrder:
    """An order as it is created: nothing of it is in its status."""
    return replace(order(*names), status=OrderStatus())


def octets(of: object) -> int:
    return len(msgspec.json.encode(of))


def test_an_object_weighs_more_than_its_json() -> None:
    assert octets(certified()) < weigh_order(certified()) < octets(certified()) + 1_500
    assert octets(account("a")) < weigh_account(account("a")) < octets(account("a")) + 1_500


def test_an_open_order_weighs_what_it_takes_when_it_fails() -> None:
    text = "http://{}/.well-known/acme-challenge/{} answered with status 404 instead of 200. (5 attempts)"
    outcomes = {
        ChallengeId(position, "http-01"): Failed(StoredProblem(type="unauthorized", detail=text.format(name, "t" * 32)))
        for position, name in enumerate(NAMES)
    }
    failed = transitions.validated(order(*NAMES), outcomes, lifetime=LIFETIME, now=NOW)
    assert weigh_order(failed) < weigh_order(created(*NAMES)) < 2 * weigh_order(failed)


def test_an_order_weighs_the_same_whether_its_authorizations_are_shown_or_not() -> None:
    assert weigh_order(created(*NAMES)) == weigh_order(order(*NAMES))


def test_a_certificate_weighs_its_names_and_its_chain() -> None:
    one, many = order("a.example"), order(*NAMES)
    assert weigh_issuance(one, request=300, chain=2_000) < 6_000
    assert weigh_issuance(many, request=300, chain=0) > sum(map(len, NAMES)) * 4 // 3
    assert weigh_issuance(one, request=16_384, chain=0) > 21_000
    assert weigh_issuance(one, request=300, chain=100_000) > 100_000


def test_an_order_that_waits_for_a_ca_weighs_what_it_says_about_that() -> None:
    ready, csr = proven(order()), bytes(300)
    asked = AskedAuthority(name="a" * 63, type="CertManager")
    claim = Claim(replica="r" * 300, time=NOW)
    waits = issuance_waiting.begun(ready, csr, DIGEST, authority=asked, claim=claim, now=NOW)
    issuance = waits.status.issuance
    assert issuance is not None
    told = issuance_waiting.Wait("AuthenticationFailed", "\N{GRINNING FACE}" * 1_000)
    waits = issuance_waiting.waiting(waits, issuance, told, now=NOW)
    grown = octets(waits) - octets(ready)
    assert weigh_issuance(ready, request=len(csr), chain=0, waits=True) > grown > 1_500
