"""Everything that can happen to an account, in any sequence and from any version that somebody has seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from acme_server.accounts import transitions
from acme_server.problems import Refused
from kms.resources.accounts import AccountStatus, ACMEAccount
from tests.support.accounts import account
from tests.support.acmeorders import NOW
from tests.support.domain import Key

pytestmark = pytest.mark.requirement("M70")

STEPS = {
    (None, "valid"),
    ("valid", "suspended"),
    ("suspended", "valid"),
    *((live, ended) for live in ("valid", "suspended") for ended in ("deactivated", "revoked")),
}
KEYS = [Key(jwk=f'"{name}"', thumbprint=name) for name in ("t" * 43, "second", "third")]
keys = st.sampled_from(KEYS)
contacts = st.sampled_from([(), ("mailto:a@example.com",), ("mailto:b@example.com",)])


class AccountMachine(RuleBasedStateMachine):
    @initialize()
    def claim(self) -> None:
        self.account = account("a")
        self.had = {self.account.thumbprint}

    def apply(self, changed: ACMEAccount) -> None:
        before, self.account = self.account, changed
        assert changed.spec == before.spec
        if before.status.state != changed.status.state:
            assert (before.status.state, changed.status.state) in STEPS
        if before.status.state in {"deactivated", "revoked"}:
            assert changed == before
        assert set(before.status.former_keys) <= set(changed.status.former_keys)
        self.had.add(changed.thumbprint)

    @rule(contact=contacts)
    def a_server_opens_it(self, contact: tuple[str, ...]) -> None:
        self.apply(transitions.opened(self.account, status=AccountStatus(state="valid", contact=contact)))

    @rule(contact=contacts)
    def its_owner_changes_the_contact(self, contact: tuple[str, ...]) -> None:
        usable = self.account.status.state == "valid"
        try:
            self.apply(transitions.with_contact(self.account, contact=contact))
        except Refused:
            assert not usable

    @rule(key=keys, old=keys)
    def its_owner_changes_the_key(self, key: Key, old: Key) -> None:
        may = self.account.status.state == "valid" and self.account.thumbprint == old.thumbprint
        try:
            self.apply(transitions.with_key(self.account, key, old=old.thumbprint, now=NOW))
        except Refused:
            assert not may
        else:
            assert may
            assert (self.account.thumbprint, self.account.jwk) == (key.thumbprint, key.jwk)

    @rule()
    def its_owner_deactivates_it(self) -> None:
        opened = self.account.status.state is not None
        try:
            self.apply(transitions.deactivated(self.account, now=NOW))
        except Refused:
            assert not opened
        else:
            assert self.account.status.state in {"deactivated", "revoked"}

    @rule(event=st.sampled_from([transitions.suspended, transitions.resumed]))
    def an_administrator_suspends_or_resumes_it(self, event: Callable[..., ACMEAccount]) -> None:
        before = self.account.status.state
        try:
            self.apply(event(self.account, now=NOW))
        except Refused:
            assert before is None
        else:
            wanted = "suspended" if event is transitions.suspended else "valid"
            assert self.account.status.state == (wanted if before in {"valid", "suspended"} else before)

    @rule()
    def somebody_revokes_it(self) -> None:
        if self.account.status.state in {"valid", "suspended"}:
            self.apply(replace(self.account, status=replace(self.account.status, state="revoked")))

    @invariant()
    def every_key_that_it_had_is_known(self) -> None:
        assert {each.thumbprint for each in KEYS if transitions.has_had(self.account, each.thumbprint)} == self.had

    @invariant()
    def only_an_open_account_has_a_past(self) -> None:
        if self.account.status.state is None:
            assert self.account.status == AccountStatus()
        assert (self.account.status.suspended_at is not None) <= (self.account.status.state != "valid")
        assert (self.account.status.deactivated_at is not None) == (self.account.status.state == "deactivated")


AccountMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
TestAccountStateMachine = AccountMachine.TestCase
