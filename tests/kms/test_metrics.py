import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from kms.metrics import LabelledHistogram, counter

BUCKETS = (0.005, 0.5, 1, 10)
VALUES = (0, 0.004, 0.005, 0.0051, 0.5, 3, 10, 10.5, 1e6)


def samples_of(registry: CollectorRegistry) -> str:
    """The exposition, without the times since when is counted."""
    lines = generate_latest(registry).decode().splitlines()
    return "\n".join(line for line in lines if not line.startswith("kms_acme_test_created{"))


def test_samples_are_those_of_prometheus_client() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = counter(ours, "kms_acme_test", "Text.\n", ("method", "status"))
    counter_of_theirs = Counter("kms_acme_test", "Text.\n", ("method", "status"), registry=theirs)
    for labels in (("GET", "200"), ("POST", '"\\\n'), ("GET", "200")):
        counts[labels] += 1
        counter_of_theirs.labels(*labels).inc()
    assert 'kms_acme_test_total{method="GET",status="200"} 2.0' in samples_of(ours)
    assert samples_of(ours) == samples_of(theirs)

    ours, theirs = CollectorRegistry(), CollectorRegistry()
    seconds = LabelledHistogram(ours, "kms_acme_test", "Text.", ("verb", "kind"), buckets=BUCKETS)
    histogram_of_theirs = Histogram("kms_acme_test", "Text.", ("verb", "kind"), buckets=BUCKETS, registry=theirs)
    for labels in (("create", "acmeorders"), ("update", "acmeorders")):
        for value in VALUES:
            seconds.observe(labels, value)
            histogram_of_theirs.labels(*labels).observe(value)
    assert 'kms_acme_test_bucket{kind="acmeorders",le="0.005",verb="create"} 3.0' in samples_of(ours)
    assert samples_of(ours) == samples_of(theirs)


def test_each_series_says_since_when_it_counts() -> None:
    registry, times = CollectorRegistry(), iter((100.0, 200.0, 300.0))
    counts = counter(registry, "kms_acme_test", "Text.", ("method",), clock=lambda: next(times))
    seconds = LabelledHistogram(registry, "kms_acme_time", "T.", ("verb",), buckets=BUCKETS, clock=lambda: next(times))
    for method in ("GET", "POST", "GET"):
        counts[(method,)] += 1
    seconds.observe(("create",), 1)
    seconds.observe(("create",), 2)
    assert registry.get_sample_value("kms_acme_test_created", {"method": "GET"}) == 100
    assert registry.get_sample_value("kms_acme_test_created", {"method": "POST"}) == 200
    assert registry.get_sample_value("kms_acme_time_created", {"verb": "create"}) == 300


@pytest.mark.parametrize("name", ["kms_acme_test", "kms_acme_time"])
def test_no_two_metrics_of_a_registry_have_the_same_name(name: str) -> None:
    registry = CollectorRegistry()
    counter(registry, "kms_acme_test", "Text.", ("method",))
    LabelledHistogram(registry, "kms_acme_time", "Text.", ("verb",), buckets=BUCKETS)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        counter(registry, name, "Text.", ("method",))
