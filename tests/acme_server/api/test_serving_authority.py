"""What the server's own certificate points to: clients that check revocation can do so."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.contract import SERVING_CA_PATH, SERVING_LIST_PATH
from kms.resources.core import Secret
from kms.resources.secret_names import CA_CERTIFICATE, TLS_CERTIFICATE
from kms_operator.reconcilers import installation
from tests.support.domain import RELEASE
from tests.support.operated import entropy, objects, snapshot_of, stored
from tests.support.server import Server, running_server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        yield running


def installed(server: Server) -> Secret:
    """The serving certificate, after the operator has made what an installation needs."""
    plan = installation.plan(None, snapshot_of(), now=server.world.clock(), entropy=entropy())
    authority: Secret
    serving: Secret
    _, authority, serving = (stored(each) for each in objects(plan.apply))
    assert authority.metadata.namespace == RELEASE
    server.world.secrets.put(authority)
    return serving


def checked(folder: Path, serving: Secret, revoked: bytes, at: int) -> str:
    """What openssl says of the serving certificate and its revocation, at that Unix time."""
    for name, data in (
        ("ca.pem", serving.data[CA_CERTIFICATE]),
        ("leaf.pem", serving.data[TLS_CERTIFICATE]),
        ("list.pem", revoked),
    ):
        (folder / name).write_bytes(data)
    options = ["-attime", str(at), "-crl_check_all", "-CAfile", "ca.pem", "-CRLfile", "list.pem"]
    line = ["openssl", "verify", *options, "leaf.pem"]
    return subprocess.run(line, cwd=folder, stdout=subprocess.PIPE, text=True, check=False).stdout


@pytest.mark.requirement("SEC60")
async def test_the_list_and_the_ca_of_the_servers_certificate_are_served_and_openssl_uses_them(
    server: Server, tmp_path: Path
) -> None:
    serving = installed(server)
    listed, issuer = await server.http.get(SERVING_LIST_PATH), await server.http.get(SERVING_CA_PATH)
    assert (listed.status, listed.headers["Content-Type"]) == (200, "application/pkix-crl")
    assert (issuer.status, issuer.headers["Content-Type"]) == (200, "application/pkix-cert")
    revoked = x509.load_der_x509_crl(await listed.read())
    authority = x509.load_der_x509_certificate(await issuer.read())
    assert authority.public_bytes(Encoding.PEM) == serving.data[CA_CERTIFICATE]
    assert len(list(revoked)) == 0
    at = int(server.world.clock().timestamp())
    verdict = await asyncio.to_thread(checked, tmp_path, serving, revoked.public_bytes(Encoding.PEM), at)
    assert verdict == "leaf.pem: OK\n"


async def test_the_list_is_signed_once_an_hour_and_alike_by_all_replicas(server: Server) -> None:
    installed(server)
    authority = server.world.services.serving_authority
    first = authority.revocation_list()
    assert authority.revocation_list() is first
    other = server.world.another()
    assert other.services.serving_authority.revocation_list() == first
    server.world.clock.ahead += timedelta(hours=1)
    assert authority.revocation_list().last_modified == first.last_modified + timedelta(hours=1)


async def test_without_a_ca_of_the_operator_there_is_no_list(server: Server) -> None:
    assert [(await server.http.get(path)).status for path in (SERVING_LIST_PATH, SERVING_CA_PATH)] == [404, 404]
