"""Replicas and a CA that takes time, in any sequence of events: one certificate at most, and none unchecked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from acme_server.orders import issuance_waiting, transitions
from acme_server.orders.issuance_waiting import GiveUp, TryAgain, Wait, next_step
from acme_server.problems import Refused
from kms.issuers.protocol import Answer, Denied, Failed, Pending, Returned, Unavailable
from kms.issuers.protocol import Refused as RefusedByCA
from kms.pki.returned import Rejected
from kms.resources.orders import ACMEOrder, AskedAuthority, Issuance, StoredProblem
from tests.support.acmeorders import DIGEST, NOW, OTHER_DIGEST, issued, order, proven

pytestmark = pytest.mark.requirement("X16", "X40", "X62", "SEC29", "SEC34")

TIMEOUT = timedelta(minutes=10)
HONEST, LIE, TOO_LONG = b"honest", b"lie", b"too long"
ANSWERS = st.sampled_from(
    [
        Pending("WaitingForApproval", "a"),
        Denied("a"),
        RefusedByCA("a"),
        Failed("a"),
        Failed("a"),
        Failed("a", is_final=True),
        Returned(HONEST),
        Returned(HONEST),
        Returned(LIE),
        Returned(TOO_LONG),
    ]
)
replicas = st.sampled_from(["a", "b"])
digests = st.sampled_from([DIGEST, DIGEST, DIGEST, OTHER_DIGEST])


class IssuanceMachine(RuleBasedStateMachine):
    """The stored order; what each replica saw of it, which is lost when it dies; and the requests that the CA has."""

    @initialize(begun=st.sampled_from([True, True, True, False]))
    def create(self, begun: bool) -> None:
        self.now = NOW
        self.stored = proven(order())
        self.seen: dict[str, ACMEOrder] = {}
        self.requests: dict[str, Answer] = {}
        self.signed: dict[str, int] = {}
        self.certificates: set[str] = set()
        self.attempts: set[str] = set()
        if begun:
            self.a_client_finalizes("a", DIGEST)
            self.a_replica_sees_the_order("b")

    def write(self, changed: ACMEOrder) -> None:
        before, self.stored = self.stored.status, changed
        if before.state in {"valid", "invalid"}:
            assert changed.status == before
        if before.issuance is not None and changed.status.issuance is not None:
            same = changed.status.issuance == before.issuance
            assert same or changed.status.issuance.attempt == before.issuance.attempt + 1

    def issuance(self, replica: str) -> Issuance | None:
        return self.seen[replica].status.issuance if replica in self.seen else None

    @rule(late=st.sampled_from([1, 1, 10, 10, 61, 300]))
    def time_passes(self, late: int) -> None:
        self.now += timedelta(seconds=late)

    @rule(replica=replicas, digest=digests)
    def a_client_finalizes(self, replica: str, digest: str) -> None:
        authority = AskedAuthority(name="corporate", type="CertManager")
        try:
            self.write(issuance_waiting.begun(self.stored, b"csr", digest, authority=authority, now=self.now))
        except Refused:
            return
        self.seen[replica] = self.stored

    @rule(replica=replicas)
    def a_replica_sees_the_order(self, replica: str) -> None:
        self.seen[replica] = self.stored

    @rule(replica=replicas)
    def a_replica_dies(self, replica: str) -> None:
        self.seen.pop(replica, None)

    @rule(replica=replicas, answer=ANSWERS)
    def a_replica_asks(self, replica: str, answer: Answer) -> None:
        issuance = self.issuance(replica)
        if issuance is None or issuance.request is None or (issuance.not_before or NOW) > self.now:
            return
        if issuance.request not in self.requests:  # otherwise AlreadyExists: it is ours
            self.answer(issuance.request, answer)

    @rule(answer=ANSWERS)
    def the_ca_answers_late(self, answer: Answer) -> None:
        for name, known in self.requests.items():
            if isinstance(known, Pending):
                self.answer(name, answer)
                return

    def answer(self, name: str, answer: Answer) -> None:
        self.requests[name] = answer
        self.signed[name] = self.signed.get(name, 0) + isinstance(answer, Returned)

    @rule(replica=replicas, away=st.booleans())
    def a_replica_looks(self, replica: str, away: bool) -> None:
        issuance = self.issuance(replica)
        if issuance is None or issuance.request is None:
            return
        answer = Unavailable("a") if away else self.requests.get(issuance.request, Pending("WaitingForIssuer", "a"))
        if isinstance(answer, Returned) and answer.pem == HONEST:
            try:
                digest = self.seen[replica].status.csr_digest or ""
                self.write(transitions.issued(self.stored, digest, issued(issuance.request), now=self.now))
            except Refused:
                assert self.stored.status.state == "invalid"
            return
        self.step(self.seen[replica], issuance, answer)

    def step(self, seen: ACMEOrder, issuance: Issuance, answer: Answer) -> None:
        accepted = seen.status.accepted
        assert accepted is not None
        obstacle = self.checked(answer) if isinstance(answer, Returned) else answer
        step = next_step(issuance, obstacle, accepted=accepted, timeout=TIMEOUT, now=self.now)
        before, current = self.stored, self.stored.status.issuance == issuance
        match step:
            case Wait():
                self.write(issuance_waiting.waiting(self.stored, issuance, step, now=self.now))
            case TryAgain():
                self.write(issuance_waiting.again(self.stored, issuance, step, now=self.now))
            case GiveUp():
                self.write(issuance_waiting.given_up(self.stored, issuance, step, now=self.now))
        if not current:
            assert self.stored == before
        if current and self.now >= accepted + TIMEOUT and not isinstance(answer, Returned):
            assert self.stored.status.state == "invalid"

    def checked(self, returned: Returned) -> Rejected:
        if returned.pem == TOO_LONG:
            return Rejected("OutlivesAuthority", "a", ends=self.now + timedelta(days=1))
        return Rejected("KeyMismatch", "a")

    @rule(chance=st.integers(0, 9))
    def the_account_is_stopped(self, chance: int) -> None:
        if self.stored.status.state == "processing" and chance == 9:
            problem = StoredProblem(type="unauthorized", detail="no")
            self.write(transitions.failed(self.stored, problem, reason="IssuanceFailed", now=self.now))

    @invariant()
    def there_is_one_certificate_at_most_and_it_was_checked(self) -> None:
        status = self.stored.status
        assert (status.certificate is not None) == (status.state == "valid")
        if status.certificate is not None:
            self.certificates.add(status.certificate)
            assert self.requests[status.serial_number or ""] == Returned(HONEST)
        assert len(self.certificates) <= 1

    @invariant()
    def each_attempt_makes_one_request(self) -> None:
        issuance = self.stored.status.issuance
        assert (issuance is not None) == (self.stored.status.state == "processing")
        if issuance is not None:
            assert issuance.request is not None
            self.attempts.add(issuance.request)
            assert len(self.attempts) == issuance.attempt
        assert self.requests.keys() <= self.attempts
        assert all(number <= 1 for number in self.signed.values())


IssuanceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestIssuanceStateMachine = IssuanceMachine.TestCase
