"""What the other applications serve, route by route: a new one without a decision fails (SEC01)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiohttp import web

from acme_server.api.application import PLAIN_ROUTES, ROUTES, internal_application, plain_application
from acme_server.api.readiness import Readiness
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.replicas import PATH, Replicas
from kms.clock import system_entropy
from tests.support.server import Server, client_of

NAMES = {
    "namespace": "pki",
    "profile": "web",
    "account": "a" * 52,
    "order": "a" * 32,
    "position": "0",
    "type": "http-01",
    "certificate": "a.b",
    "cursor": "next",
    "chain": "1",
}


def clock() -> datetime:
    return datetime(2026, 11, 25, tzinfo=UTC)


def routes_of(application: web.Application) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in application.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }


@pytest.mark.requirement("M2", "SEC01")
async def test_inside_the_cluster_there_are_probes_metrics_and_the_questions_of_replicas() -> None:
    """Nothing of ACME. Replicas sign what they ask (peers.py); the rest is for anybody who can reach it."""
    nonces = Nonces(clock=clock, entropy=system_entropy)
    replicas = Replicas(nonces=nonces, slices=None, session=None, clock=clock, entropy=system_entropy)
    application = internal_application(replicas=replicas, metrics=Metrics(), readiness=Readiness())
    assert routes_of(application) == {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("POST", PATH)}


@pytest.mark.requirement("M2", "SEC01", "SEC60")
async def test_without_tls_there_is_what_certificates_point_to_and_nothing_of_acme(server: Server) -> None:
    assert {(route.method, web.DynamicResource(route.path).canonical) for route in PLAIN_ROUTES} == {
        ("GET", "/crl/serving.crl"),
        ("GET", "/ca/serving.crt"),
        ("GET", "/crl/{namespace}/{authority}.crl"),
        ("GET", "/crl/{namespace}/{authority}/{key}.crl"),
        ("GET", "/ca/{namespace}/{authority}/{key}.crt"),
        ("GET", "/ca/{namespace}/{authority}.crt"),
    }
    async with client_of(plain_application(server.context)) as client:
        for route in set(ROUTES) - set(PLAIN_ROUTES):
            path = web.DynamicResource(route.path).canonical.format_map(NAMES)
            answer = await client.request(route.method, path)
            assert answer.status == 404
            assert not {"Replay-Nonce", "Link"} & answer.headers.keys()
        assert (await client.get("/ca/pki/ca.crt")).status == 200
