"""Revocation on a real API server: from an ACME client or an administrator to the list that certificates point to."""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from e2e.load.client import Client
from e2e.support.programs import RELEASE
from tests.support import pki
from tests.support.eventually import becomes
from tests.support.installation import PROFILE, Installation

WITHIN = 10.0
"""Seconds after which a revocation must be out (SEC60)."""


@dataclass(frozen=True)
class Holder:
    """An account that gets certificates, and what those point to."""

    client: Client
    installation: Installation
    team: str
    http: aiohttp.ClientSession

    async def certificate(self, name: str) -> x509.Certificate:
        got = await self.client.obtain([name], self.installation.answerer.add)
        return got.leaf

    async def listed(self, url: str) -> tuple[bytes, x509.CertificateRevocationList]:
        async with self.http.get(url) as answer:
            assert (answer.status, answer.content_type) == (200, "application/pkix-crl"), await answer.text()
            der = await answer.read()
        return der, x509.load_der_x509_crl(der)

    async def until_listed(self, leaf: x509.Certificate, url: str) -> x509.RevokedCertificate:
        """The entry of the certificate, which must be there in time."""
        deadline = time.monotonic() + WITHIN
        while True:
            _, revoked = await self.listed(url)
            entry = revoked.get_revoked_certificate_by_serial_number(leaf.serial_number)
            if entry is not None:
                return entry
            assert time.monotonic() < deadline, "the revocation is not out in time"
            await asyncio.sleep(0.2)


@pytest.fixture
async def holder(installation: Installation, team: str) -> AsyncIterator[Holder]:
    enrollment = installation.open_profile(team)
    async with installation.client(enrollment) as client, aiohttp.ClientSession() as http:
        yield Holder(client, installation, team, http)


def list_url(leaf: x509.Certificate) -> str:
    (point,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    (name,) = point.full_name
    return str(name.value)


def ca_url(leaf: x509.Certificate) -> str:
    (access,) = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    return str(access.access_location.value)


def number_of(revoked: x509.CertificateRevocationList) -> int:
    return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def revoked_by_account(holder: Holder, leaf: x509.Certificate) -> None:
    client = holder.client
    der = base64.urlsafe_b64encode(leaf.public_bytes(Encoding.DER)).rstrip(b"=").decode()
    url = (await client.exchange.directory())["revokeCert"]
    payload = {"certificate": der, "reason": 4}
    answer = await client.exchange.signed(url, payload, key=client.key, kid=client.account_url)
    assert (answer.status, answer.body) == (200, b"")


async def revoked_by_administrator(holder: Holder, leaf: x509.Certificate) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kms_acme", "revoke", f"--kubeconfig={holder.installation.cluster.kubeconfig}"),
        *("--serial", f"{holder.team}/{leaf.serial_number:X}", "--reason", "superseded", "--yes"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    assert b"1 of 1 certificate revoked." in printed


@pytest.mark.requirement("M136", "M138", "SEC60", "SEC79")
@pytest.mark.parametrize("revoke", [revoked_by_account, revoked_by_administrator])
async def test_a_revocation_is_out_in_time_where_the_certificate_points_to(
    holder: Holder, revoke: Callable[[Holder, x509.Certificate], Awaitable[object]]
) -> None:
    leaf = await holder.certificate("revoked.test")
    url = list_url(leaf)
    key_id = holder.installation.object("certificateauthority", holder.team, PROFILE)["status"]["subjectKeyID"]
    assert url == f"{holder.installation.programs.http_url}/crl/{holder.team}/{PROFILE}/{key_id}.crl"
    _, before = await holder.listed(url)
    assert len(before) == 0
    await revoke(holder, leaf)
    entry = await holder.until_listed(leaf, url)
    assert [each.value.reason for each in entry.extensions] == [x509.ReasonFlags.superseded]
    async with holder.http.get(ca_url(leaf)) as answer:
        authority = x509.load_der_x509_certificate(await answer.read())
    leaf.verify_directly_issued_by(authority)
    _, after = await holder.listed(url)
    assert pki.vouched_for(after, authority)
    (order,) = holder.installation.objects("acmeorders", holder.team)
    (ready,) = order["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "Revoked")

    async def is_recorded() -> bool:
        records = holder.installation.objects("revocationrecords", RELEASE)
        serials = {each["spec"].get("certificate", {}).get("serialNumber") for each in records}
        return f"{leaf.serial_number:x}" in serials

    await becomes(is_recorded)


@pytest.mark.requirement("SEC79")
async def test_a_revocation_outlives_profile_account_and_order_also_on_a_server_that_starts_later(
    holder: Holder,
) -> None:
    leaf = await holder.certificate("revoked-for-good.test")
    await revoked_by_account(holder, leaf)
    url = list_url(leaf)
    await holder.until_listed(leaf, url)
    _, before = await holder.listed(url)
    cluster = holder.installation.cluster
    for kind in ("certificateprofile", "acmeorders", "acmeaccounts"):
        cluster.kubectl("delete", kind, "--all", f"--namespace={holder.team}")
    assert holder.installation.objects("acmeorders", holder.team) == []
    await asyncio.sleep(2)  # the pause after a list: the next one is made without the order
    _, after = await holder.listed(url)
    started = holder.installation.programs.add_server()
    try:
        await asyncio.to_thread(started.wait_until_ready)
        path = url.removeprefix(holder.installation.programs.http_url)
        _, again = await holder.listed(f"http://localhost:{started.http_port}{path}")
    finally:
        holder.installation.programs.remove_server(started)
    for each in (after, again):
        assert each.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None
        assert each.last_update_utc >= before.last_update_utc
        assert number_of(each) >= number_of(before)
