"""A public CA behind cert-manager: what clients order here, its ACME issuer orders from Pebble, which validates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
from cryptography import x509

from e2e.cluster import Cluster
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.load.keys import certificate_key, certificate_request
from e2e.support import knot, pebble
from e2e.support.programs import RELEASE
from tests.support.certmanager_programs import running_cert_manager
from tests.support.eventually import becomes
from tests.support.external_cas import acme_ca
from tests.support.installation import ZONE, Installation
from tests.support.installation import installation as running_installation

pytestmark = [pytest.mark.soak, pytest.mark.cluster]

REFUSED = f"refused.{ZONE}"
LIMIT = 180.0
"""Seconds, on a busy machine: cert-manager looks at its record again every few seconds, and at the CA's order."""


@dataclass(frozen=True)
class Upstream:
    """The public CA, and the zone that cert-manager may change."""

    ca: pebble.PublicCA
    nameserver: str
    key: knot.TSIGKey


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    port = free_port()
    nameserver = f"{LOOPBACK}:{port}"
    with (
        knot.serving(ZONE, host=LOOPBACK, port=port, folder=tmp_path_factory.mktemp("knot")) as key,
        pebble.serving(tmp_path_factory.mktemp("pebble"), nameserver=nameserver, refused=[REFUSED]) as ca,
    ):
        yield Upstream(ca, nameserver, key)


@pytest.fixture(scope="module")
def site(
    clusters: Callable[..., AbstractContextManager[Cluster]],
    upstream: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("acme")
    options = (
        f"--dns01-recursive-nameservers={upstream.nameserver}",
        "--dns01-recursive-nameservers-only",
        "--dns01-check-retry-period=1s",
    )
    with (
        clusters(kinds=True) as cluster,
        running_cert_manager(cluster, folder / "cert-manager", *options),
        running_installation(cluster, folder) as running,
    ):
        yield running


@pytest.mark.requirement("X3", "X17", "X22", "X25", "X34")
async def test_a_client_gets_a_certificate_of_a_public_ca(site: Installation, upstream: Upstream) -> None:
    names = [f"shop.{ZONE}", f"www.{ZONE}"]
    with acme_ca(site, upstream.ca, ZONE, nameserver=upstream.nameserver, key=upstream.key, name="public") as authority:
        async with site.client(authority.enrollment) as client:
            order = await site.proven(client, *names)
            key = certificate_key()
            order = await client.finalize(order, certificate_request(names, key))

            async def has_ended() -> bool:
                return (await client.order(order.url)).status != "processing"

            await becomes(has_ended, seconds=LIMIT)
            ended = await client.order(order.url)
            stored = site.order(RELEASE, order.url)
            assert ended.status == "valid", stored["status"]
            certificate = await client.certificate(ended)
            chain = x509.load_pem_x509_certificates(certificate.chain.encode())
            found = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert set(found.get_values_for_type(x509.DNSName)) == set(names)
            assert chain[0].public_key() == key.public_key()
            (root,) = x509.load_pem_x509_certificates(upstream.ca.root.encode())
            chain[-1].verify_directly_issued_by(root)
            assert stored["status"]["authority"] == {"name": "public", "type": "CertManager"}
            assert not site.objects("certificaterequests", RELEASE), (
                "the request goes once the order has its certificate"
            )


@pytest.mark.requirement("X37", "X39")
async def test_a_name_that_the_public_ca_refuses_is_told_to_administrators(
    site: Installation, upstream: Upstream
) -> None:
    with acme_ca(
        site, upstream.ca, ZONE, nameserver=upstream.nameserver, key=upstream.key, name="refusing"
    ) as authority:
        async with site.client(authority.enrollment) as client:
            order = await site.proven(client, REFUSED)
            order = await client.finalize(order, certificate_request([REFUSED], certificate_key()))

            async def is_tried_again() -> bool:
                attempt: int = site.order(RELEASE, order.url)["status"]["issuance"]["attempt"]
                return attempt > 1

            await becomes(is_tried_again, seconds=LIMIT)
            (ready,) = site.order(RELEASE, order.url)["status"]["conditions"]
            assert (ready["reason"], "Failed" in ready["message"]) == ("Retrying", True), ready
            found = await client.order(order.url)
            assert (found.status, ready["message"][:40] in str(found.body)) == ("processing", False)
