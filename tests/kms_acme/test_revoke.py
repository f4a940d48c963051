from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from acme_server.state.certificates import Certificates
from acme_server.state.index import Index
from kms.clock import system_clock
from kms.resources.authorities import (
    AuthoritySpec,
    CertificateAuthority,
    CertManagerAuthority,
    ExternalAuthority,
    IssuerRef,
    SignerAuthority,
    VaultAuth,
    VaultAuthority,
)
from kms.resources.kinds import AUTHORITIES, ORDERS
from kms.resources.meta import ObjectMeta, condition
from kms.resources.orders import ACCOUNT, ACMEOrder, AskedAuthority, Revocation
from kms_acme.cli import main
from kms_acme.revoke import revoke_all, serial_number
from tests.support.acmeorders import certified, order
from tests.support.apiserver import FakeApiServer, running_api, spoil


@dataclass
class Administrator:
    """Somebody with a kubeconfig and a terminal."""

    api: FakeApiServer
    kubeconfig: Path

    async def revokes(self, *line: str, answers: str | None = None) -> Result:
        arguments = ["revoke", "--kubeconfig", str(self.kubeconfig), *line]
        return await asyncio.to_thread(CliRunner().invoke, main.main, arguments, input=answers)

    def put(
        self, name: str, serial: str, *, account: str = "account", namespace: str = "pki", **status: Any
    ) -> ACMEOrder:
        made = certified()
        metadata = replace(
            made.metadata, name=name, namespace=namespace, uid="", resource_version="", labels={ACCOUNT: account}
        )
        values = {"serial_number": serial, "not_after": system_clock() + timedelta(days=30), **status}
        return self.api.put(ORDERS, replace(made, metadata=metadata, status=replace(made.status, **values)))

    def reason(self, name: str, namespace: str = "pki") -> str | None:
        found = self.api.read(ORDERS, namespace, name)
        assert found is not None
        return found.status.revocation.reason if found.status.revocation else None


@pytest.fixture
async def administrator(tmp_path: Path) -> AsyncIterator[Administrator]:
    async with running_api() as api:
        yield Administrator(api, api.write_kubeconfig(tmp_path / "kubeconfig"))


@pytest.mark.parametrize("spelled", ["5f3a91", "5F3A91", "5F:3A:91", "0x5f3a91", "005f3a91", "00:5F:3A:91"])
async def test_a_certificate_is_revoked_by_its_serial_number_as_people_copy_it(
    administrator: Administrator, spelled: str
) -> None:
    administrator.put("a", "5f3a91")
    administrator.put("b", "5f3a92")
    result = await administrator.revokes("--serial", spelled, "--reason", "superseded", "--yes")
    assert result.exit_code == 0, result.output
    assert "[1/1] pki/a 5f3a91 www.example.com: revoked" in result.output
    assert (administrator.reason("a"), administrator.reason("b")) == ("superseded", None)
    stored = administrator.api.read(ORDERS, "pki", "a")
    assert stored is not None
    ready = condition(stored.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "Revoked")
    index: Index[ACMEOrder] = Index()
    certificates = Certificates(index)
    index.update(stored, False)
    assert len(certificates.find_revoked("pki", "ab" * 20)) == 1


async def test_a_serial_number_may_name_its_namespace(administrator: Administrator) -> None:
    administrator.put("a", "5f", namespace="one")
    administrator.put("a", "5f", namespace="two")
    assert (await administrator.revokes("--serial", "two/5f", "--yes")).exit_code == 0
    assert (administrator.reason("a", "one"), administrator.reason("a", "two")) == (None, "unspecified")


async def test_a_certificate_is_revoked_by_its_order(administrator: Administrator) -> None:
    administrator.put("a", "5f")
    assert (await administrator.revokes("--order", "pki/a", "--reason", "KEYCOMPROMISE", "--yes")).exit_code == 0
    assert administrator.reason("a") == "keyCompromise"


async def test_all_certificates_of_an_account_are_revoked_and_no_others(administrator: Administrator) -> None:
    for number in range(30):
        administrator.put(f"mine-{number}", f"1{number:02}", account="mine")
    administrator.put("other", "200", account="other")
    administrator.put("before", "201", account="mine")
    await administrator.revokes("--order", "pki/before", "--reason", "superseded", "--yes")
    administrator.put("expired", "202", account="mine", not_after=system_clock() - timedelta(days=1))
    line = ("--account", "pki/mine", "--reason", "cessationOfOperation")
    result = await administrator.revokes(*line, "--yes")
    assert result.exit_code == 0, result.output
    assert "2 of 32 were revoked before or have expired." in result.output
    assert "and 10 more" in result.output
    assert "[30/30]" in result.output
    assert "30 of 30 certificates revoked." in result.output
    assert {administrator.reason(f"mine-{number}") for number in range(30)} == {"cessationOfOperation"}
    assert (administrator.reason("before"), administrator.reason("other")) == ("superseded", None)
    assert administrator.reason("expired") is None
    again = await administrator.revokes(*line, "--yes")
    assert (again.exit_code, again.output) == (0, "32 of 32 were revoked before or have expired.\n")


async def test_a_compromised_key_is_barred_though_its_certificate_has_expired(administrator: Administrator) -> None:
    administrator.put("a", "5f", not_after=system_clock() - timedelta(days=1))
    assert (await administrator.revokes("--order", "pki/a", "--reason", "keyCompromise", "--yes")).exit_code == 0
    assert administrator.reason("a") == "keyCompromise"


@pytest.mark.parametrize(
    ("answers", "exit_code", "reason"), [("y\n", 0, "unspecified"), ("n\n", 1, None), ("", 1, None)]
)
async def test_it_asks_before_it_revokes(
    administrator: Administrator, answers: str, exit_code: int, reason: str | None
) -> None:
    administrator.put("a", "5f")
    result = await administrator.revokes("--order", "pki/a", answers=answers)
    assert "Revoke 1 certificate (unspecified)? [y/N]" in result.output
    assert (result.exit_code, administrator.reason("a")) == (exit_code, reason)


async def test_a_dry_run_shows_what_would_be_revoked_and_writes_nothing(administrator: Administrator) -> None:
    administrator.put("a", "5f")
    result = await administrator.revokes("--order", "pki/a", "--dry-run")
    assert (result.exit_code, "1 certificate would be revoked" in result.output) == (0, True)
    assert not administrator.api.writes


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("--serial", "5f", "--order", "pki/a"),
        ("--order", "a"),
        ("--order", "pki/"),
        ("--account", "PKI/x"),
        ("--serial", "xyz"),
        ("--serial", "0"),
        ("--serial", "a/b/5f"),
        ("--order", "pki/a", "--reason", "certificateHold"),
    ],
)
async def test_wrong_usage_ends_with_2_and_says_what_to_write(
    administrator: Administrator, line: tuple[str, ...]
) -> None:
    result = await administrator.revokes(*line, "--yes")
    assert result.exit_code == 2
    assert "Error:" in result.output
    assert not administrator.api.requests


@pytest.mark.parametrize("line", [("--serial", "5f"), ("--order", "pki/a"), ("--account", "pki/nobody")])
async def test_what_is_not_there_ends_with_1(administrator: Administrator, line: tuple[str, ...]) -> None:
    result = await administrator.revokes(*line, "--yes")
    assert (result.exit_code, result.output.startswith("Error: ")) == (1, True)


async def test_an_order_without_a_certificate_ends_with_1(administrator: Administrator) -> None:
    made = order()
    administrator.api.put(ORDERS, replace(made, metadata=replace(made.metadata, name="a", uid="", resource_version="")))
    result = await administrator.revokes("--order", "pki/a", "--yes")
    assert (result.exit_code, "ACMEOrder pki/a has no certificate" in result.output) == (1, True)


async def test_an_account_without_a_certificate_ends_with_1(administrator: Administrator) -> None:
    result = await administrator.revokes("--account", "pki/b", "--yes")
    assert (result.exit_code, "no orders of ACMEAccount pki/b have a certificate" in result.output) == (1, True)


async def test_without_a_cluster_it_says_so_and_ends_with_1(tmp_path: Path) -> None:
    line = ["revoke", "--kubeconfig", str(tmp_path / "none"), "--order", "pki/a"]
    result = await asyncio.to_thread(CliRunner().invoke, main.main, line)
    assert (result.exit_code, "does not exist" in result.output) == (1, True)


async def test_what_the_api_server_forbids_is_told_and_ends_with_1(administrator: Administrator) -> None:
    administrator.put("a", "5f")
    administrator.api.fail_next("update", ORDERS.plural, status=403)
    result = await administrator.revokes("--order", "pki/a", "--yes")
    assert result.exit_code == 1
    assert "0 of 1 certificate revoked." in result.output


async def test_a_change_in_between_is_not_overwritten(administrator: Administrator) -> None:
    administrator.put("a", "5f")
    administrator.api.fail_next("update", ORDERS.plural, status=409)
    assert (await administrator.revokes("--order", "pki/a", "--yes")).exit_code == 0
    assert administrator.reason("a") == "unspecified"


async def test_of_two_administrators_the_first_decides(administrator: Administrator) -> None:
    stored = administrator.put("a", "5f")
    cluster = await administrator.api.cluster()
    told: list[str | None] = []
    failures = await asyncio.gather(
        *(
            revoke_all(cluster, [stored], reason, clock=system_clock, on_done=lambda _, error: told.append(error))
            for reason in ("superseded", "cessationOfOperation")
        )
    )
    assert (failures, told) == ([0, 0], [None, None])
    first = administrator.api.read(ORDERS, "pki", "a")
    assert first is not None
    assert first.metadata.resource_version == str(int(stored.metadata.resource_version) + 1), "written once"


def test_the_help_teaches_reasons_rights_and_exit_codes() -> None:
    result = CliRunner().invoke(main.main, ["revoke", "--help"])
    for word in ("privilegeWithdrawn", "kms-acme-revoker", "Exit codes", "--dry-run", "kubectl get acmeorders"):
        assert word in result.output


@pytest.mark.parametrize("text", ["", "0", "::", "g", "-5", "5 f", "5" * 41])
def test_what_is_no_serial_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a serial number"):
        serial_number(text)


@pytest.mark.requirement("SEC77", "SEC82")
async def test_an_order_that_cannot_be_read_is_named_and_the_others_are_revoked(administrator: Administrator) -> None:
    administrator.put("a", "1a")
    administrator.put("b", "1b")
    spoil(administrator.api, ORDERS, "b", "status.notAfter", "2027-01-01T00:00:00+99:99")
    result = await administrator.revokes("--account", "pki/account", "--yes")
    assert (result.exit_code, administrator.reason("a")) == (1, "unspecified")
    assert "ACMEOrder pki/b cannot be read and is not revoked: status.notAfter: " in result.output


@pytest.mark.requirement("X45")
async def test_revocations_that_a_ca_has_yet_to_carry_out_are_listed_with_what_to_do(
    administrator: Administrator,
) -> None:
    printed = (await administrator.revokes("--list-pending")).output
    assert printed == "No revocation is pending.\n"
    vault = VaultAuthority(server="https://bao.example.com", path="pki/issuer/a/sign/web", auth=VaultAuth())
    cert_manager = CertManagerAuthority(issuer_ref=IssuerRef(name="corporate", kind="ClusterIssuer"))
    for name, external in {
        "vault": ExternalAuthority(vault=vault),
        "corporate": ExternalAuthority(cert_manager=cert_manager),
        "recorded": ExternalAuthority(cert_manager=cert_manager, revocation="Record"),
        "signer": ExternalAuthority(signer=SignerAuthority(name="example.com/web")),
    }.items():
        metadata = ObjectMeta(namespace="pki", name=name)
        administrator.api.put(
            AUTHORITIES, CertificateAuthority(metadata=metadata, spec=AuthoritySpec(external=external))
        )
    now = system_clock()
    asked = Revocation(time=now, reason="superseded")
    statuses: dict[str, dict[str, Any]] = {
        "vault": {},
        "corporate": {},
        "recorded": {},
        "signer": {},
        "gone": {},
        "expired": {"not_after": now - timedelta(days=1)},
        "done": {"revocation": replace(asked, propagated=now)},
    }
    for name, more in statuses.items():
        authority = AskedAuthority(name=name, type="Vault")
        administrator.put(f"of-{name}", "5f3a9", **{"authority": authority, "revocation": asked, **more})
    administrator.put("internal", "1", revocation=asked)
    lines = (await administrator.revokes("--list-pending")).output.splitlines()
    by_order = {each.split()[0].removeprefix("pki/of-"): each for each in lines}
    assert by_order.keys() == {"vault", "corporate", "signer", "gone"}
    assert "bao write pki/revoke serial_number=05:f3:a9" in by_order["vault"]
    assert "behind ClusterIssuer corporate" in by_order["corporate"]
    assert "signer example.com/web" in by_order["signer"]
    assert "05:f3:a9 CertificateAuthority gone (superseded)" in by_order["gone"]
    both = await administrator.revokes("--list-pending", "--order", "pki/a")
    assert both.exit_code == 2
