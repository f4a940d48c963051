"""`kms-acme explain`: finds objects by what people know of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.resources.kinds import ORDERS
from kms.resources.meta import ObjectMeta
from kms_acme.cli import main
from tests.support import pki
from tests.support.apiserver import FakeApiServer, spoil
from tests.support.shown_cluster import CLIENT, FAILED, SHOP

Explain = Callable[..., Awaitable[Result]]


@pytest.fixture
def explain(api: FakeApiServer, tmp_path: Path) -> Explain:
    kubeconfig = str(api.write_kubeconfig(tmp_path / "kubeconfig"))

    async def run(*line: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main.main, ["explain", *line, "--kubeconfig", kubeconfig])

    return run


@pytest.mark.requirement("P1")
async def test_objects_are_found_with_and_without_a_namespace(explain: Explain, api: FakeApiServer) -> None:
    for line in ((f"pki/{SHOP}",), (SHOP,), (SHOP, "-n", "pki")):
        done = await explain("order", *line)
        assert (done.exit_code, "Certificate 5f3a910c was issued" in done.output) == (0, True), done.output
    done = await explain("account", CLIENT)
    assert (done.exit_code, "1 invalid, 2 valid" in done.output) == (0, True), done.output
    other = api.read(ORDERS, "pki", SHOP)
    assert other is not None
    api.put(ORDERS, replace(other, metadata=ObjectMeta(namespace="other", name=SHOP)))
    done = await explain("order", SHOP)
    assert done.exit_code == 1
    assert f"there are several ACMEOrders {SHOP}: " in done.output
    assert "set --namespace" in done.output
    for line, missing in ((("pki/none",), "pki/none"), (("none",), "none in any namespace")):
        done = await explain("order", *line)
        assert (done.exit_code, done.output) == (1, f"Error: there is no ACMEOrder {missing}\n")


async def test_what_has_failed_has_exit_code_3_and_is_json_for_programs(explain: Explain) -> None:
    assert (await explain("order", FAILED)).exit_code == 3
    done = await explain("order", FAILED, "-o", "json")
    document = json.loads(done.output)
    assert (done.exit_code, document["well"], document["title"]) == (3, False, f"ACMEOrder pki/{FAILED}")
    assert document["lines"][0]["time"] == "2026-11-30T09:00:00+00:00"


async def test_a_certificate_is_found_by_its_serial_number_or_file(
    explain: Explain, api: FakeApiServer, tmp_path: Path
) -> None:
    for serial in ("5F:3A:91:0C", "0x5f3a910c"):
        assert (await explain("certificate", serial)).exit_code == 0
    leaf = pki.root().certificate
    shop = api.read(ORDERS, "pki", SHOP)
    assert shop is not None
    api.put(ORDERS, replace(shop, status=replace(shop.status, serial_number=f"{leaf.serial_number:x}")))
    for encoding in (Encoding.PEM, Encoding.DER):
        (tmp_path / "leaf").write_bytes(leaf.public_bytes(encoding))
        assert (await explain("certificate", str(tmp_path / "leaf"))).exit_code == 0
    (tmp_path / "leaf").write_bytes(b"no certificate")
    assert (await explain("certificate", str(tmp_path / "leaf"))).exit_code == 1
    assert (await explain("certificate", "abcd")).exit_code == 1
    assert (await explain("certificate", "no-serial")).exit_code == 2


async def test_a_name_is_tried_and_its_certificates_are_listed(explain: Explain, api: FakeApiServer) -> None:
    done = await explain("name", "shop.apps.example.com", "-p", "pki/web")
    assert (done.exit_code, "Certificate 5f3a910c was issued" in done.output) == (0, True), done.output
    assert "It is granted to clients of EABCredential pki/web." in done.output
    done = await explain("name", "admin.apps.example.com", "-p", "pki/web", "--credential", "pki/web")
    assert (done.exit_code, "spec.dnsNames.denied" in done.output) == (3, True), done.output
    spoil(api, ORDERS, SHOP, "spec.expires", "never")
    assert (await explain("name", "shop.apps.example.com", "-p", "pki/none")).exit_code == 1


@pytest.mark.requirement("P1")
async def test_an_order_is_explained_in_a_second_with_three_reads(explain: Explain, api: FakeApiServer) -> None:
    await explain("order", f"pki/{SHOP}")  # imports what it needs
    before = len(api.requests)
    started = time.perf_counter()
    await explain("order", f"pki/{SHOP}")
    assert time.perf_counter() - started < 5.0, "usually a tenth of a second"
    assert [each.verb for each in api.requests[before:]] == ["get", "get", "get"]
