"""Everything that can happen to an order, in any sequence: nothing leads to a certificate without all proofs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.orders import authorization_reuse, transitions
from acme_server.orders.lifetimes import SKEW
from acme_server.problems import Refused
from kms.resources.orders import (
    ACMEOrder,
    AuthorizationState,
    Authorized,
    OrderStatus,
    StoredProblem,
    with_authorizations,
)
from tests.support.acmeorders import DIGEST, NOW, OTHER_DIGEST, issued, order, proven

pytestmark = pytest.mark.requirement("M66", "M67", "M68", "SEC34")

ORDER_STEPS = {
    ("pending", "ready"),
    ("pending", "invalid"),
    ("ready", "processing"),
    ("ready", "valid"),  # through processing, in one write
    ("ready", "invalid"),
    ("processing", "valid"),
    ("processing", "invalid"),
}
AUTHORIZATION_STEPS = {
    ("pending", "valid"),
    ("pending", "invalid"),
    ("pending", "deactivated"),
    ("pending", "expired"),
    ("valid", "deactivated"),
    ("valid", "expired"),
    ("valid", "revoked"),
}
CHALLENGE_STEPS = {
    ("pending", "processing"),
    ("pending", "valid"),  # through processing, in one write
    ("pending", "invalid"),
    ("processing", "valid"),
    ("processing", "invalid"),
}
LATE = (timedelta(seconds=1), timedelta(minutes=3), timedelta(hours=3), timedelta(hours=30))

positions = st.integers(0, 3)
digests = st.sampled_from([DIGEST, OTHER_DIGEST])


class OrderMachine(RuleBasedStateMachine):
    @initialize(count=st.integers(1, 3), reused=st.sets(st.integers(0, 2)), preauthorization=st.booleans())
    def create(self, count: int, reused: set[int], preauthorization: bool) -> None:
        self.now = NOW
        names = [f"host-{number}.example.com" for number in range(count)]
        self.earlier = proven(order(*names))
        self.order = order(*names)
        if preauthorization and count == 1:
            self.order = replace(self.order, spec=replace(self.order.spec, preauthorization=True))
        else:
            self.order = relying_on(self.earlier, self.order, {each for each in reused if each < count})
        self.older = [self.order]
        self.proven = {each.authorization for each in self.order.spec.authorized}
        self.given_up = False
        self.certificates: set[str] = set()

    def apply(self, changed: ACMEOrder) -> None:
        before, self.order = self.order, changed
        self.older.append(changed)
        if before.status.state != changed.status.state:
            assert (before.status.state, changed.status.state) in ORDER_STEPS
        for old, new in zip(before.status.authorizations, changed.status.authorizations, strict=True):
            assert old.identifier == new.identifier
            if old.state != new.state:
                assert (old.state, new.state) in AUTHORIZATION_STEPS
            known = {each.type: each for each in new.challenges}
            for was in old.challenges:
                is_ = known.get(was.type)
                if is_ is None:  # what decided nothing is not stored any more
                    assert was.state in {"pending", "processing"}
                    assert new.state != "pending" or changed.status.state == "invalid"
                    continue
                if was.state != is_.state:
                    assert (was.state, is_.state) in CHALLENGE_STEPS
                if was.state in {"valid", "invalid"}:
                    assert was == is_
        if before.status.state in {"valid", "invalid"}:
            assert changed.status.state == before.status.state
            assert changed.status.certificate == before.status.certificate
            assert changed.status.error == before.status.error

    @rule(late=st.sampled_from(LATE))
    def time_passes(self, late: timedelta) -> None:
        self.now += late

    @rule(position=positions, proof=st.booleans(), lifetime=st.sampled_from([timedelta(0), timedelta(hours=50)]))
    def a_validation_ends(self, position: int, proof: bool, lifetime: timedelta) -> None:
        failure = Failed(StoredProblem(type="unauthorized", detail="no"))
        outcome: Outcome = Valid(self.now) if proof else failure
        outcomes = {ChallengeId(position, "http-01"): outcome}
        self.apply(transitions.validated(self.order, outcomes, lifetime=lifetime, now=self.now))
        if proof:
            self.proven.add(position)

    @rule(position=positions)
    def a_validation_takes_long(self, position: int) -> None:
        running = {ChallengeId(position, "http-01"): None}
        self.apply(transitions.begun(self.order, running, attempt="server/1", now=self.now))

    @rule(position=positions)
    def the_client_gives_an_authorization_up(self, position: int) -> None:
        open_ = self.order.status.state in transitions.OPEN_STATES - {"processing"}
        self.apply(transitions.deactivated(self.order, position, now=self.now))
        if open_ and position < len(self.order.status.authorizations):
            self.given_up = True

    @rule(position=positions)
    def the_client_gives_an_earlier_authorization_up(self, position: int) -> None:
        self.earlier = transitions.deactivated(self.earlier, position, now=self.now)

    @rule(forgotten=st.booleans())
    def the_server_asks_what_the_order_relies_on(self, forgotten: bool) -> None:
        lost = self.lost(None if forgotten else self.earlier)
        before = self.order.status.state
        self.apply(transitions.relinquished(self.order, lost, now=self.now))
        if lost and before in transitions.OPEN_STATES:
            assert self.order.status.state == "invalid"
        if not lost:
            assert self.order.status.state == before

    def lost(self, earlier: ACMEOrder | None) -> dict[int, AuthorizationState]:
        states = {
            each.authorization: authorization_reuse.state_of(self.order, each, earlier, now=self.now)
            for each in self.order.spec.authorized
        }
        return {position: state for position, state in states.items() if state != "valid"}

    @rule()
    def somebody_looks(self) -> None:
        before = self.order.status
        self.apply(transitions.expired(self.order, now=self.now))
        holds = all(each.state == "valid" and self.now <= each.expires + SKEW for each in before.authorizations)
        if self.order.spec.preauthorization and before.state == "ready" and holds:
            assert self.order.status.state == "ready"

    @rule(digest=digests)
    def the_server_accepts_a_request(self, digest: str) -> None:
        try:
            self.apply(transitions.accepted(self.order, b"csr", digest, now=self.now))
        except Refused:
            assert self.order.status.state != "ready" or self.too_late() or self.order.status.csr_digest == digest

    @rule(digest=digests, serial=st.sampled_from(["1", "2"]))
    def the_server_has_signed(self, digest: str, serial: str) -> None:
        # Also for an order that it saw ready long ago: transitions apply to what is stored now.
        self.apply(transitions.relinquished(self.order, self.lost(self.earlier), now=self.now))
        before = self.order.status
        try:
            self.apply(transitions.issued(self.order, digest, issued(serial), now=self.now))
        except Refused:
            assert before.state not in {"processing", "ready"} or self.too_late() or before.csr_digest != digest
            return
        assert len(self.proven & set(range(len(before.authorizations)))) == len(before.authorizations)
        if before.state == "ready":
            assert all(each.state == "valid" for each in before.authorizations)
            assert not self.given_up
            assert self.lost(self.earlier) == {}
            assert not self.too_late()

    def too_late(self) -> bool:
        times = [self.order.spec.expires, *(each.expires for each in self.order.status.authorizations)]
        return any(self.now > each + SKEW for each in times)

    @rule()
    def the_issuer_fails(self) -> None:
        problem = StoredProblem(type="serverInternal", detail="no")
        if self.order.status.state == "processing":
            self.apply(transitions.failed(self.order, problem, reason="IssuanceFailed", now=self.now))

    @invariant()
    def state_and_contents_agree(self) -> None:
        status = self.order.status
        assert (status.certificate is not None) == (status.state == "valid")
        assert (status.error is not None) == (status.state == "invalid")
        assert (status.request is not None) == (status.state == "processing")
        if status.certificate is not None:
            self.certificates.add(status.certificate)
        assert len(self.certificates) <= 1
        if status.state in {"ready", "processing", "valid"}:
            assert self.proven.issuperset(range(len(status.authorizations)))

    @invariant()
    def what_is_shown_invents_nothing(self) -> None:
        running = {ChallengeId(position, "http-01"): None for position in range(3)}
        shown = transitions.shown_as_running(self.order, running)
        assert shown.status.state == self.order.status.state
        assert [each.state for each in shown.status.authorizations] == [
            each.state for each in self.order.status.authorizations
        ]


def relying_on(earlier: ACMEOrder, later: ACMEOrder, positions: set[int]) -> ACMEOrder:
    """The later order as it is opened when these names were proven for the earlier one."""
    authorized = tuple(
        Authorized(
            authorization=position,
            order=earlier.metadata.name,
            position=position,
            type="http-01",
            validated=NOW,
            expires=earlier.status.authorizations[position].expires,
        )
        for position in sorted(positions)
    )
    return with_authorizations(replace(later, spec=replace(later.spec, authorized=authorized), status=OrderStatus()))


OrderMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestOrderStateMachine = OrderMachine.TestCase
