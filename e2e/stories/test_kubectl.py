"""An administrator looks after it with kubectl alone: what is wrong, why, and what goes when something is deleted."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from e2e.cluster import CommandFailed
from e2e.load.client import Client, OrderFailed, Refused
from e2e.load.keys import AccountKey, ExternalAccount
from e2e.stories.story import Story
from e2e.support.http01 import Text
from e2e.support.programs import RELEASE
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES, Kind
from kms.resources.secret_names import signing_key_name
from tests.support.installation import PROFILE, Installation

PATIENCE = 60.0
"""Seconds within which the operator, or Kubernetes's garbage collector, must have done its work."""

NOT_READY: Sequence[tuple[Kind[Any], dict[str, Any], str, str]] = [
    (
        AUTHORITIES,
        {"imported": {"secretRef": {"name": "nowhere"}}},
        "SecretNotFound",
        "nowhere",
    ),
    (
        AUTHORITIES,
        {"internal": {"subject": {"commonName": "Below"}, "issuerRef": {"name": "nobody"}}},
        "IssuerNotFound",
        "CertificateAuthority {namespace}/nobody does not exist",
    ),
    (
        PROFILES,
        {"issuerRef": {"name": "nobody"}, "policyRef": {"name": PROFILE}, "enrollment": {"acme": {}}},
        "IssuerNotFound",
        "CertificateAuthority {namespace}/nobody does not exist",
    ),
    (
        PROFILES,
        {"issuerRef": {"name": PROFILE}, "policyRef": {"name": "nobody"}, "enrollment": {"acme": {}}},
        "PolicyNotFound",
        "CertificatePolicy {namespace}/nobody does not exist",
    ),
    (
        CREDENTIALS,
        {"profileRef": {"name": "nobody"}},
        "ProfileNotFound",
        "CertificateProfile {namespace}/nobody does not exist",
    ),
    (
        CREDENTIALS,
        {"profileRef": {"name": PROFILE}, "suspended": True},
        "Suspended",
        "suspended",
    ),
    (
        CREDENTIALS,
        {"profileRef": {"name": PROFILE}, "expiresAt": "2026-01-01T00:00:00Z"},
        "Expired",
        "2026-01-01",
    ),
]


@pytest.mark.parametrize(
    ("number", "reason"),
    [pytest.param(at, each[2], id=f"{each[0].kind}-{each[2]}") for at, each in enumerate(NOT_READY)],
)
def test_describe_says_why_it_is_not_ready(story: Story, number: int, reason: str) -> None:
    kind, spec, _, text = NOT_READY[number]
    name = f"broken-{number}"
    story.installation.apply(story.namespace, kind, spec, name=name)
    ready = "{.status.conditions[?(@.type=='Ready')].reason}"
    thing = f"{kind.kind.lower()}/{name}"
    story.kubectl("wait", f"--for=jsonpath={ready}={reason}", "--timeout=60s", thing)
    described = " ".join(eventually(lambda: story.kubectl("describe", thing), f"Warning  {reason}").split())
    assert text.format(namespace=story.namespace) in described


def test_kubectl_completes_the_commands_of_its_plugin(installation: Installation, tmp_path: Path) -> None:
    for name, function in (("kubectl-kms", "kubectl_plugin"), ("kubectl_complete-kms", "kubectl_completion")):
        program = tmp_path / name
        program.write_text(f"#!{sys.executable}\nfrom kms_acme.cli.main import {function}\n{function}()\n")
        program.chmod(0o755)
    kubectl, path = installation.cluster.kubectl_program, f"PATH={tmp_path}:{os.environ['PATH']}"
    printed = installation.cluster.run(Path("/usr/bin/env"), path, kubectl, "__complete", "kms", "explain", "o")
    offered, directive = printed.splitlines()[:2]
    assert (offered.partition("\t")[0], directive) == ("order", ":4")


def test_a_policy_that_makes_no_sense_does_not_even_get_in(story: Story) -> None:
    with pytest.raises(CommandFailed) as failed:
        story.installation.apply(story.namespace, POLICIES, {"ipAddresses": {"allowed": ["10.0.0.1/8"]}}, name="broken")
    assert "spec.ipAddresses.allowed[0]" in failed.value.output
    assert "as in 10.0.0.0/8" in failed.value.output


def test_a_policy_that_a_profile_breaks_is_named_with_the_rule(story: Story) -> None:
    story.installation.apply(
        story.namespace, POLICIES, {"dnsNames": {"allowed": ["**.test"]}, "maximumDuration": "24h"}, name="short"
    )
    references = {"issuerRef": {"name": PROFILE}, "policyRef": {"name": "short"}, "enrollment": {"acme": {}}}
    story.installation.apply(
        story.namespace, PROFILES, {**references, "certificate": {"duration": "720h"}}, name="too-long"
    )
    said = eventually(lambda: story.kubectl("describe", "certificateprofile/too-long"), "Warning  PolicyViolated")
    assert f"longer than the 24h that policy {story.namespace}/short allows (spec.maximumDuration)" in said


async def test_deleting_the_secret_of_a_credential_rotates_it_and_accounts_stay(story: Story) -> None:
    old = story.credential("rotated")
    async with story.exchange() as exchange:
        customer = Client(exchange, AccountKey.generate())
        await customer.register(external_account=ExternalAccount.parse(old.kid, old.secret))
        story.kubectl("delete", "secret", "rotated-eab")
        story.kubectl("wait", "--for=create", "--timeout=60s", "secret/rotated-eab")
        new = story.read_credential("rotated")
        assert new.kid != old.kid
        assert new.secret != old.secret
        with pytest.raises(Refused, match="unauthorized"):
            await Client(exchange, AccountKey.generate()).register(
                external_account=ExternalAccount.parse(old.kid, old.secret)
            )
        await Client(exchange, AccountKey.generate()).register(
            external_account=ExternalAccount.parse(new.kid, new.secret)
        )
        await customer.obtain([f"rotated.{story.namespace}.test"], story.installation.answerer.add)
    eventually(lambda: story.kubectl("describe", "eab/rotated"), "Normal  ", "Rotated")


async def test_a_failed_order_says_why_in_its_row(story: Story) -> None:
    credential = story.credential()
    with story.stranger(Text("something else")) as stranger:
        name = story.name("row", stranger)
        async with story.exchange() as exchange:
            client = Client(exchange, AccountKey.generate())
            await client.register(external_account=ExternalAccount.parse(credential.kid, credential.secret))
            with pytest.raises(OrderFailed):
                await client.obtain([name], story.installation.answerer.add)
    (row,) = (line for line in story.kubectl("get", "acmeorders").splitlines() if name in line)
    assert "invalid" in row
    assert "AuthorizationFailed" in row


@pytest.mark.requirement("SEC80")
async def test_a_profile_that_was_deleted_and_created_again_has_its_accounts_and_orders(
    installation: Installation, team: str
) -> None:
    kubectl = installation.cluster.kubectl
    async with installation.client(installation.open_profile(team)) as client:
        got = await client.obtain([f"staying.{team}.test"], installation.answerer.add)
        kubectl("delete", "certificateprofile", PROFILE, f"--namespace={team}")
        gone(lambda: kubectl("get", "secret", f"{PROFILE}-acme", f"--namespace={team}", "-oname", "--ignore-not-found"))
        installation.open_profile(team)
        assert (await client.order(got.order.url)).status == "valid"
        assert (await client.certificate(got.order)).leaf == got.leaf
        assert (await client.register(only_return_existing=True)).location == client.account_url


@pytest.mark.requirement("SEC80")
async def test_a_ca_that_was_deleted_says_until_when_it_can_be_brought_back_and_comes_back(
    installation: Installation, team: str
) -> None:
    kubectl = installation.cluster.kubectl
    async with installation.client(installation.open_profile(team)) as client, aiohttp.ClientSession() as http:
        leaf = (await client.obtain([f"lasting.{team}.test"], installation.answerer.add)).leaf
        (authority,) = installation.objects("certificateauthorities", team)
        key = signing_key_name(authority["metadata"]["uid"])
        kubectl("delete", "certificateauthority", PROFILE, f"--namespace={team}")
        eventually(
            lambda: kubectl("describe", f"certificateprofile/{PROFILE}", f"--namespace={team}"),
            "Warning  CertificateAuthorityDeleted",
            f"CertificateAuthority {team}/{PROFILE} was deleted at",
            key,
        )
        async with http.get(f"{installation.programs.http_url}/crl/{team}/{PROFILE}.crl") as answer:
            assert answer.status == 200
            listed = x509.load_der_x509_crl(await answer.read())
        assert listed.issuer == leaf.issuer
        installation.open_profile(team)
        (restored,) = installation.objects("certificateauthorities", team)
        assert restored["metadata"]["uid"] != authority["metadata"]["uid"]
        assert restored["status"]["certificate"] == authority["status"]["certificate"]
        again = (await client.obtain([f"lasting.{team}.test"], installation.answerer.add)).leaf
        assert again.issuer == leaf.issuer
        gone(lambda: kubectl("get", "secret", key, f"--namespace={RELEASE}", "-oname", "--ignore-not-found"))


def eventually(say: Callable[[], str], *texts: str) -> str:
    """What is said as soon as all of the texts are in it."""
    deadline = time.monotonic() + PATIENCE
    while not all(text in (said := say()) for text in texts):
        assert time.monotonic() < deadline, f"{texts} are not in:\n{said}"
        time.sleep(0.2)
    return said


def gone(say: Callable[[], str]) -> None:
    """Wait until nothing is said."""
    deadline = time.monotonic() + PATIENCE
    while said := say().strip():
        assert time.monotonic() < deadline, f"still there:\n{said}"
        time.sleep(0.2)
