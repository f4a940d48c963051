"""What a real API server does with accounts, orders and keys when people delete things (SEC79, SEC80)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from e2e.load.client import Client
from e2e.load.keys import AccountKey, b64url
from kms.resources.kinds import PROFILES
from kms_acme.cli import main
from tests.support.eventually import becomes, hurried
from tests.support.installation import PROFILE, Installation, refusal

GARBAGE_COLLECTED = 5.0
"""Seconds after which Kubernetes's garbage collector has deleted what has lost its owner; it takes less than one."""


def owned(installation: Installation, team: str) -> list[str]:
    """The accounts and orders with an owner reference."""
    objects = (each for kind in ("acmeaccounts", "acmeorders") for each in installation.objects(kind, team))
    return [each["metadata"]["name"] for each in objects if each["metadata"].get("ownerReferences")]


@pytest.mark.requirement("SEC80")
async def test_objects_of_an_earlier_release_outlive_their_profile_once_a_server_has_started(
    installation: Installation, team: str
) -> None:
    kubectl = installation.cluster.kubectl
    async with installation.client(installation.open_profile(team)) as client:
        await client.obtain([f"earlier.{team}.test"], installation.answerer.add)
    uid = installation.object("certificateprofile", team, PROFILE)["metadata"]["uid"]
    owner = {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "name": PROFILE, "uid": uid}
    patch = json.dumps({"metadata": {"ownerReferences": [owner]}})
    for kind in ("acmeaccounts", "acmeorders"):
        for each in installation.objects(kind, team):
            name = each["metadata"]["name"]
            kubectl("patch", kind, name, f"--namespace={team}", "--type=merge", f"--patch={patch}")
    assert len(owned(installation, team)) == 2
    await asyncio.to_thread(installation.programs.server.restart)

    async def are_adopted() -> bool:
        return owned(installation, team) == []

    await becomes(are_adopted)
    kubectl("delete", "certificateprofile", PROFILE, f"--namespace={team}")
    await asyncio.sleep(GARBAGE_COLLECTED)
    assert len(installation.objects("acmeaccounts", team)) == len(installation.objects("acmeorders", team)) == 1


@pytest.mark.requirement("SEC79", "SEC80")
async def test_keys_and_revocations_outlive_the_namespace_which_does_not_hang(
    installation: Installation, team: str
) -> None:
    kubectl = installation.cluster.kubectl
    async with installation.client(installation.open_profile(team)) as client:
        leaf = (await client.obtain([f"lost.{team}.test"], installation.answerer.add)).leaf
        url = (await client.exchange.directory())["revokeCert"]
        await client.post("revoke", url, {"certificate": b64url(leaf.public_bytes(Encoding.DER))})
    before = installation.object("certificateauthority", team, PROFILE)["status"]["certificate"]
    kubectl("delete", "namespace", team, "--timeout=60s")
    kubectl("create", "namespace", team)
    installation.open_profile(team)
    assert installation.object("certificateauthority", team, PROFILE)["status"]["certificate"] == before
    assert installation.objects("acmeorders", team) == []
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{installation.programs.http_url}/crl/{team}/{PROFILE}.crl") as answer,
    ):
        listed = x509.load_der_x509_crl(await answer.read())
    assert listed.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


@pytest.mark.requirement("SEC77")
async def test_a_credential_whose_deletion_somebody_holds_up_opens_no_account(
    installation: Installation, team: str
) -> None:
    kubectl = installation.cluster.kubectl
    enrollment = installation.profile(team)
    external = installation.credential(team)
    async with installation.client(enrollment, external_account=external) as client:
        patch = ("patch", "eabcredential", PROFILE, f"--namespace={team}", "--type=merge")
        kubectl(*patch, '--patch={"metadata":{"finalizers":["example.com/hold"]}}')
        kubectl("delete", "eabcredential", PROFILE, f"--namespace={team}", "--wait=false")
        try:
            assert "deletionTimestamp" in installation.object("eabcredential", team, PROFILE)["metadata"]
            newcomer = Client(client.exchange, AccountKey.generate())
            assert await refusal(newcomer.register(external_account=external)) == "unauthorized"

            hasty = Client(client.exchange, client.key, account_url=client.account_url, sleep=hurried)

            async def is_blocked() -> bool:
                return await refusal(hasty.new_order(["held.test"])) in {"serverInternal", "unauthorized"}

            await becomes(is_blocked)
        finally:
            kubectl(*patch, '--patch={"metadata":{"finalizers":null}}')
    assert len(installation.objects("acmeaccounts", team)) == 1


@pytest.mark.requirement("P6")
async def test_a_backup_brings_back_a_ca_that_was_deleted_with_its_key(
    installation: Installation, team: str, tmp_path: Path
) -> None:
    kubectl, file = installation.cluster.kubectl, str(tmp_path / "file.backup")

    async def run(command: str, *options: str) -> None:
        arguments = ["ca", command, "--kubeconfig", str(installation.cluster.kubeconfig), *options, file]
        environment = {"KMS_ACME_PASSPHRASE": "correct horse battery staple"}
        result = await asyncio.to_thread(CliRunner().invoke, main.main, arguments, env=environment)
        assert result.exit_code == 0, result.output

    async with installation.client(installation.open_profile(team)) as client:
        await client.obtain([f"before.{team}.test"], installation.answerer.add)
        await run("backup", "--scrypt-cost=14")
        before = installation.object("certificateauthority", team, PROFILE)
        kubectl("delete", "kca,kpol,kprof", PROFILE, f"--namespace={team}")
        kubectl("delete", "secret", f"ca-{before['metadata']['uid']}", "--namespace=kms-acme")
        await run("restore", "--yes")
        installation.wait(team, f"certificateprofile/{PROFILE}")
        after = installation.object("certificateauthority", team, PROFILE)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["status"]["certificate"] == before["status"]["certificate"]
        leaf = (await client.obtain([f"after.{team}.test"], installation.answerer.add)).leaf
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(before["status"]["certificate"].encode()))
