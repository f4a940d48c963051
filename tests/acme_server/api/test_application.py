"""What the other applications serve, route by route: a new one without a decision fails (SEC01)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import pytest
from aiohttp import web

from acme_server.api.application import internal_application, plain_application
from acme_server.api.health import Readiness
from acme_server.certificates.crl import CRLs
from acme_server.certificates.serving_authority import ServingAuthority
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.replicas import PATH, Replicas
from kms.clock import system_entropy


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
def test_without_tls_there_is_what_certificates_point_to_and_nothing_of_acme() -> None:
    application = plain_application(
        crls=cast("CRLs", None),
        serving_authority=cast("ServingAuthority", None),
        metrics=Metrics(),
        readiness=Readiness(),
    )
    assert routes_of(application) == {
        ("GET", "/crl/serving.crl"),
        ("GET", "/ca/serving.crt"),
        ("GET", "/crl/{namespace}/{authority}.crl"),
        ("GET", "/crl/{namespace}/{authority}/{key}.crl"),
        ("GET", "/ca/{namespace}/{authority}/{key}.crt"),
        ("GET", "/ca/{namespace}/{authority}.crt"),
    }
