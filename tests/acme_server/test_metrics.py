import asyncio
import time

import pytest
from prometheus_client import generate_latest

from acme_server.metrics import Metrics


def text_of(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_what_services_report_is_counted() -> None:
    metrics = Metrics()
    metrics.count_order("created", ("pki", "web"))
    metrics.observe_validation("http-01", "valid", 0.2)
    metrics.observe_issuance("signed", 0.003)
    metrics.count_caa_check("Report", "forbidden")
    metrics.api.count("create", "acmeorders", 201, 0.004)
    metrics.count_refused_connection()
    text = text_of(metrics)
    for line in (
        'kms_acme_orders_total{outcome="created",profile="pki/web"} 1.0',
        'kms_acme_validation_duration_seconds_count{result="valid",type="http-01"} 1.0',
        'kms_acme_issuance_duration_seconds_bucket{issuer="internal",le="0.005",result="signed"} 1.0',
        'kms_acme_caa_checks_total{mode="Report",result="forbidden"} 1.0',
        'kms_acme_api_requests_total{kind="acmeorders",program="server",status="201",verb="create"} 1.0',
        'kms_acme_api_request_duration_seconds_count{kind="acmeorders",program="server",verb="create"} 1.0',
        "kms_acme_connections_refused_total 1.0",
        "process_resident_memory_bytes",
    ):
        assert line in text


def test_only_so_many_profiles_have_series_of_their_own() -> None:
    metrics = Metrics(maximum_profiles=2)
    for name in ("a", "b", "c", "d", "a"):
        metrics.count_order("created", ("pki", name))
    series = [line for line in text_of(metrics).splitlines() if line.startswith("kms_acme_orders_total{")]
    assert series == [
        'kms_acme_orders_total{outcome="created",profile="pki/a"} 2.0',
        'kms_acme_orders_total{outcome="created",profile="pki/b"} 1.0',
        'kms_acme_orders_total{outcome="created",profile="other"} 2.0',
    ]


def test_caches_and_connections_are_asked_when_somebody_looks() -> None:
    metrics, cache, age = Metrics(), [1, 2], [3.0]
    metrics.watch_cache("orders", cache.__len__, lambda: age[0])
    metrics.watch_cache("keys", lambda: 7)
    metrics.watch_connections(lambda: 4)
    cache.append(3)
    age[0] = 5.5
    text = text_of(metrics)
    assert 'kms_acme_cache_objects{cache="orders"} 3.0' in text
    assert 'kms_acme_cache_age_seconds{cache="orders"} 5.5' in text
    assert 'kms_acme_cache_objects{cache="keys"} 7.0' in text
    assert 'kms_acme_cache_age_seconds{cache="keys"}' not in text
    assert "kms_acme_connections 4.0" in text


def test_two_servers_in_one_process_do_not_mix_their_counts() -> None:
    one, other = Metrics(), Metrics()
    one.count_order("created", ("pki", "web"))
    assert 'outcome="created"' not in text_of(other)


@pytest.mark.requirement("SEC41")
async def test_who_blocks_the_event_loop_is_noticed() -> None:
    metrics = Metrics()
    watching = asyncio.create_task(metrics.measure_loop_delay())
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 - that is the fault
    await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    text = text_of(metrics)
    assert "kms_acme_event_loop_delay_seconds_count 1.0" in text
    assert 'kms_acme_event_loop_delay_seconds_bucket{le="0.25"} 0.0' in text
