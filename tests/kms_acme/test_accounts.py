from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from acme_server.accounts import transitions
from kms.clock import system_clock
from kms.resources.accounts import (
    AccountState,
    AccountStatus,
    ACMEAccount,
    CredentialBinding,
    CredentialRecord,
)
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import LocalRef
from kms_acme.accounts import change_all
from kms_acme.cli import main
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api, spoil


@dataclass
class Administrator:
    """Somebody with a kubeconfig and a terminal."""

    api: FakeApiServer
    kubeconfig: Path

    async def runs(self, action: str, *line: str, answers: str | None = None) -> Result:
        arguments = ["account", action, "--kubeconfig", str(self.kubeconfig), *line]
        return await asyncio.to_thread(CliRunner().invoke, main.main, arguments, input=answers)

    def put(
        self,
        name: str,
        *,
        credential: str | None = "team/cred",
        namespace: str = "pki",
        state: AccountState | None = "valid",
        record: CredentialRecord | None = None,
        alias_of: str | None = None,
    ) -> ACMEAccount:
        made = account(name, namespace)
        binding = None
        if credential is not None:
            home, _, own = credential.partition("/")
            binding = CredentialBinding(name=own, namespace=home, uid="uid", key_id="k")
        alias = LocalRef(name=alias_of) if alias_of else None
        status = AccountStatus() if alias else AccountStatus(state=state, contact=("mailto:a@b",), credential=record)
        return self.api.put(
            ACCOUNTS,
            replace(made, spec=replace(made.spec, external_account=binding, alias_of=alias), status=status),
        )

    def stored(self, name: str, namespace: str = "pki") -> AccountStatus:
        found = self.api.read(ACCOUNTS, namespace, name)
        assert found is not None
        return found.status

    def state(self, name: str, namespace: str = "pki") -> AccountState | None:
        return self.stored(name, namespace).state


@pytest.fixture
async def administrator(tmp_path: Path) -> AsyncIterator[Administrator]:
    async with running_api() as api:
        yield Administrator(api, api.write_kubeconfig(tmp_path / "kubeconfig"))


async def test_an_account_is_suspended_resumed_and_deactivated(administrator: Administrator) -> None:
    administrator.put("a")
    administrator.put("b")
    for action, done, state in (
        ("suspend", "suspended", "suspended"),
        ("resume", "resumed", "valid"),
        ("suspend", "suspended", "suspended"),
        ("deactivate", "deactivated", "deactivated"),
    ):
        result = await administrator.runs(action, "--account", "pki/a", "--yes")
        assert result.exit_code == 0, result.output
        assert f"[1/1] pki/a web team/cred mailto:a@b: {done}" in result.output
        assert f"1 of 1 account {done}." in result.output
        assert (administrator.state("a"), administrator.state("b")) == (state, "valid")
    assert administrator.stored("a").deactivated_at is not None


async def test_the_accounts_of_a_credential_are_changed_and_no_others(administrator: Administrator) -> None:
    for number in range(30):
        administrator.put(f"mine-{number}", namespace=("one", "two")[number % 2])
    administrator.put("same-name", credential="other/cred")
    administrator.put("same-namespace", credential="team/other")
    administrator.put("unbound", credential=None)
    administrator.put("claimed", state=None)
    administrator.put("ended", state="deactivated")
    result = await administrator.runs("suspend", "--credential", "team/cred", "--yes")
    assert result.exit_code == 0, result.output
    assert "1 of 31 accounts unchanged: already suspended, or ended." in result.output
    assert "and 10 more" in result.output
    assert "30 of 30 accounts suspended." in result.output
    assert {administrator.state(f"mine-{each}", ("one", "two")[each % 2]) for each in range(30)} == {"suspended"}
    others = ("same-name", "same-namespace", "unbound", "claimed", "ended")
    assert [administrator.state(each) for each in others] == ["valid", "valid", "valid", None, "deactivated"]


async def test_the_accounts_of_a_namespace_of_clients_are_changed_within_one_of_profiles(
    administrator: Administrator,
) -> None:
    administrator.put("a", namespace="one")
    administrator.put("b", namespace="two", credential="team/other")
    administrator.put("c", namespace="two", credential="team-b/cred")
    line = ("--namespace", "team", "--yes")
    assert (await administrator.runs("suspend", *line, "--profile-namespace", "one")).exit_code == 0
    assert [administrator.state(*each) for each in (("a", "one"), ("b", "two"))] == ["suspended", "valid"]
    assert (await administrator.runs("suspend", *line)).exit_code == 0
    assert [administrator.state(*each) for each in (("b", "two"), ("c", "two"))] == ["suspended", "valid"]


@pytest.mark.requirement("SEC77")
async def test_the_accounts_of_ready_made_issuers_are_those_of_the_namespace_of_their_clients(
    administrator: Administrator,
) -> None:
    told = CredentialRecord(state="Active", uid="uid", changed_at=system_clock(), client_namespace="team")
    administrator.put("issuer", credential="pki/web-issuer-team", record=told)
    administrator.put("pretends", credential="other/cred", record=told)
    assert (await administrator.runs("suspend", "--namespace", "team", "--yes")).exit_code == 0
    assert [administrator.state(each) for each in ("issuer", "pretends")] == ["suspended", "valid"]


async def test_resuming_lifts_what_a_deleted_credential_left(administrator: Administrator) -> None:
    left = CredentialRecord(state="Suspended", uid="old", changed_at=system_clock(), suspended=True)
    administrator.put("a", record=left)
    result = await administrator.runs("resume", "--credential", "team/cred", "--yes")
    assert result.exit_code == 0, result.output
    record = administrator.stored("a").credential
    assert record is not None
    assert (record.state, record.suspended, record.uid) == ("Active", False, "old")


@pytest.mark.parametrize("action", ["suspend", "resume"])
async def test_what_has_ended_stays_ended(administrator: Administrator, action: str) -> None:
    administrator.put("a", state="deactivated")
    result = await administrator.runs(action, "--account", "pki/a", "--yes")
    assert (result.exit_code, "the account is deactivated, which is final" in result.output) == (1, True)


async def test_what_is_done_already_is_no_failure(administrator: Administrator) -> None:
    administrator.put("a", state="suspended")
    result = await administrator.runs("suspend", "--account", "pki/a", "--yes")
    assert (result.exit_code, administrator.api.writes) == (0, [])
    assert "1 of 1 account unchanged: already suspended" in result.output


@pytest.mark.parametrize(
    ("answers", "exit_code", "state"), [("y\n", 0, "suspended"), ("n\n", 1, "valid"), ("", 1, "valid")]
)
async def test_it_asks_before_it_changes(
    administrator: Administrator, answers: str, exit_code: int, state: str
) -> None:
    administrator.put("a")
    result = await administrator.runs("suspend", "--account", "pki/a", answers=answers)
    assert "Suspend 1 account? [y/N]" in result.output
    assert (result.exit_code, administrator.state("a")) == (exit_code, state)


async def test_a_dry_run_shows_what_would_be_changed_and_writes_nothing(administrator: Administrator) -> None:
    administrator.put("a")
    result = await administrator.runs("deactivate", "--namespace", "team", "--dry-run")
    assert (result.exit_code, "1 account would be deactivated." in result.output) == (0, True)
    assert not administrator.api.writes


@pytest.mark.parametrize("action", ["suspend", "resume", "deactivate"])
@pytest.mark.parametrize(
    "line",
    [
        (),
        ("--account", "pki/a", "--namespace", "team"),
        ("--account", "a"),
        ("--account", "pki/a", "--profile-namespace", "pki"),
        ("--credential", "cred"),
        ("--namespace", "team/a"),
        ("--namespace", "Team"),
    ],
)
async def test_wrong_usage_ends_with_2(administrator: Administrator, action: str, line: tuple[str, ...]) -> None:
    result = await administrator.runs(action, *line, "--yes")
    assert (result.exit_code, "Error:" in result.output) == (2, True)
    assert not administrator.api.requests


@pytest.mark.parametrize("line", [("--account", "pki/no"), ("--credential", "team/no"), ("--namespace", "no")])
async def test_what_is_not_there_ends_with_1(administrator: Administrator, line: tuple[str, ...]) -> None:
    administrator.put("a")
    result = await administrator.runs("suspend", *line, "--yes")
    assert (result.exit_code, result.output.startswith("Error: ")) == (1, True)


async def test_an_alias_names_its_account_and_a_claim_is_none(administrator: Administrator) -> None:
    administrator.put("alias", credential=None, alias_of="a")
    administrator.put("claimed", state=None)
    result = await administrator.runs("suspend", "--account", "pki/alias", "--yes")
    assert (result.exit_code, "name its account, pki/a" in result.output) == (1, True)
    result = await administrator.runs("suspend", "--account", "pki/claimed", "--yes")
    assert (result.exit_code, "is not open" in result.output) == (1, True)


async def test_what_the_api_server_forbids_is_told_and_ends_with_1(administrator: Administrator) -> None:
    administrator.put("a")
    administrator.put("b")
    administrator.api.fail_next("update", ACCOUNTS.plural, status=403)
    result = await administrator.runs("suspend", "--namespace", "team", "--yes")
    assert (result.exit_code, "1 of 2 accounts suspended." in result.output) == (1, True)


async def test_a_change_in_between_is_not_overwritten(administrator: Administrator) -> None:
    before = administrator.put("a")
    contact = ("mailto:new@b",)
    administrator.api.put(ACCOUNTS, replace(before, status=replace(before.status, contact=contact)))
    ended = administrator.put("b")
    administrator.api.put(ACCOUNTS, transitions.deactivated(ended, now=system_clock()))
    told: list[str | None] = []
    failures = await change_all(
        await administrator.api.cluster(),
        [before, ended],
        "suspend",
        clock=system_clock,
        on_done=lambda _, error: told.append(error),
    )
    stored = administrator.stored("a")
    assert (stored.state, stored.contact) == ("suspended", contact)
    assert (failures, sorted(filter(None, told))) == (1, ["the account is deactivated, which is final"])
    assert administrator.state("b") == "deactivated"


@pytest.mark.parametrize("action", ["suspend", "resume", "deactivate"])
def test_the_help_teaches_effects_and_exit_codes(action: str) -> None:
    result = CliRunner().invoke(main.main, ["account", action, "--help"])
    for word in ("Exit codes", "--dry-run", "--credential", f"kms-acme account {action}", "spec.suspended"):
        assert word in result.output
    group = CliRunner().invoke(main.main, ["account", "--help"]).output
    assert "kubectl get acmeaccounts" in group
    assert "kms-acme-account-manager" in group


@pytest.mark.requirement("SEC77", "SEC82")
async def test_an_account_that_cannot_be_read_is_named_and_the_others_are_changed(
    administrator: Administrator,
) -> None:
    administrator.put("a")
    administrator.put("b")
    spoil(administrator.api, ACCOUNTS, "b", "status.deactivatedAt", "2027-01-01T00:00:00+99:99")
    result = await administrator.runs("suspend", "--credential", "team/cred", "--yes")
    assert (result.exit_code, administrator.state("a")) == (1, "suspended")
    assert "ACMEAccount pki/b cannot be read and is not suspended: status.deactivatedAt: " in result.output
