"""Alerts and the dashboard speak of metrics and labels that the programs have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from acme_server.metrics import Metrics as ServerMetrics
from acme_server.state.expiry import ExpiryCounts
from e2e.chart.helm import CHART, Helm
from e2e.chart.kinds import APIS
from e2e.stories.snippets import ROOT
from kms_operator.metrics import Metrics as OperatorMetrics
from tests.support.charts import EVERYTHING, one
from tests.support.domain import World, wrong
from tests.support.eventually import until
from tests.support.server import running_server

ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]

OF_PROMETHEUS = frozenset({"namespace", "pod", "instance", "le"})
"""Labels that Prometheus adds, and the one that histograms have."""
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
_METRIC = re.compile(r"\b((?:kms_acme|kms_operator|process)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_EQUAL = re.compile(r'(\w+)="([^"$]*)"')
NOT_HERE = (("result", "failed"), ("result", "rejected"), ("status", "403"))
"""What a server that works, with an internal CA, does not count."""
_GROUPING = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")


def exposed(*registries: CollectorRegistry) -> dict[str, frozenset[str]]:
    """The names under which samples are exposed, each with its labels."""
    found: dict[str, frozenset[str]] = {}
    for registry in registries:
        for collector in registry._collector_to_names:
            labels = frozenset(getattr(collector, "_labelnames", ()))
            for metric in collector.collect():
                for suffix in SUFFIXES[metric.type]:
                    found[metric.name + suffix] = labels
    return found


METRICS = exposed(ServerMetrics().registry, OperatorMetrics().registry)


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, those of its rows included."""
    found: list[dict[str, Any]] = []
    for panel in json.loads(path.read_text())["panels"]:
        found += panel["panels"] if panel["type"] == "row" else [panel]
    return found


def expressions() -> Iterator[Any]:
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                yield pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_uses_what_there_is(expression: str) -> None:
    used = _METRIC.findall(expression)
    assert used, "an expression without a metric of ours"
    known: set[str] = set(OF_PROMETHEUS)
    for name, matchers in used:
        assert name in METRICS, f"no program exposes {name}"
        known |= METRICS[name]
        assert set(_MATCHER.findall(matchers)) <= METRICS[name] | OF_PROMETHEUS, name
    for labels in _GROUPING.findall(expression):
        assert {each.strip() for each in labels.split(",") if each.strip()} <= known, labels


@pytest.mark.requirement("P13")
async def test_what_is_asked_for_by_value_is_there_on_a_running_server() -> None:
    """Selectors such as outcome="valid" find series once what they count has happened."""

    def configure(world: World) -> None:
        world.configure(external_account_binding="Disabled")

    async with running_server(configure) as server:
        await server.register()
        await server.finalize(await server.ready("a.example.com"))
        await server.order("a.example.org")
        server.world.validator.failures["b.example.com"] = wrong()
        failing = await server.order("b.example.com")
        challenge = (await server.post(failing.json["authorizations"][0])).json["challenges"][0]
        await server.post(challenge["url"], {})
        await until(server.world.services.worker.is_idle)
        counts = ExpiryCounts(
            certificates=server.world.services.state.certificates,
            authorities=server.world.authorities.values,
            credentials=server.world.credentials.values,
            show=server.metrics.inventory.show,
            clock=server.world.clock,
        )
        server.metrics.inventory.show(await counts.count())
    samples = [
        sample
        for metrics in (server.metrics, server.world.metrics)
        for family in metrics.registry.collect()
        for sample in family.samples
    ]
    asked = 0
    for expression in expressions():
        for name, matchers in _METRIC.findall(expression.values[0]):
            wanted = {key: value for key, value in _EQUAL.findall(matchers) if key not in OF_PROMETHEUS}
            if not wanted or set(NOT_HERE) & wanted.items() or "kms_operator" in name:
                continue
            asked += 1
            assert [each for each in samples if each.name == name and wanted.items() <= each.labels.items()], (
                name,
                wanted,
            )
    assert asked >= 4


def test_an_expression_with_a_metric_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(AssertionError, match="no program exposes kms_acme_dreams"):
        test_an_expression_uses_what_there_is("rate(kms_acme_dreams_total[5m])")
    with pytest.raises(AssertionError, match="kms_acme_connections"):
        test_an_expression_uses_what_there_is('kms_acme_connections{colour="red"}')
    with pytest.raises(AssertionError, match="colour"):
        test_an_expression_uses_what_there_is("sum by (colour) (kms_acme_connections)")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: Mapping[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["for"]
    assert {"summary", "description"} <= rule["annotations"].keys()
    known = {label for name, _ in _METRIC.findall(rule["expr"]) for label in METRICS[name]} | OF_PROMETHEUS
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"])) <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_its_runbook(rule: Mapping[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower(), "as Markdown makes anchors"


def test_the_runbooks_may_be_elsewhere(helm: Helm) -> None:
    page = "https://wiki.example.com/kms-acme"
    values = {"metrics": {"prometheusRule": {"enabled": True, "runbookURL": page}}}
    rules = one(helm.render(values, apis=APIS), "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert [each["annotations"]["runbook_url"] for each in rules] == [
        f"{page}#{each['alert'].lower()}" for each in RULES
    ]


def test_brackets_are_closed() -> None:
    for each in expressions():
        (expression,) = each.values
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), expression


def test_panels_do_not_lie_on_each_other() -> None:
    for path in DASHBOARDS:
        places = [
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for panel in panels(path)
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        ]
        assert len(places) == len(set(places))


def test_the_dashboard_has_few_panels_and_begins_with_the_profiles() -> None:
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        first_screen = [each for each in dashboard["panels"] if each["type"] != "row"]
        assert len(first_screen) <= 9
        assert all(each["collapsed"] for each in dashboard["panels"] if each["type"] == "row")
        assert all(each["description"] for each in panels(path))
        assert "profile" in {each["name"] for each in dashboard["templating"]["list"]}
        for each in dashboard["panels"][:3]:
            assert all("by (profile" in target["expr"] for target in each["targets"])


def test_the_chart_ships_these_very_files(helm: Helm) -> None:
    manifests = helm.render(EVERYTHING, apis=APIS)
    assert one(manifests, "PrometheusRule")["spec"] == yaml.safe_load(ALERTS.read_text())
    for path in DASHBOARDS:
        data = one(manifests, "ConfigMap", f"kms-acme-dashboard-{path.stem}")["data"]
        assert json.loads(data[path.name]) == json.loads(path.read_text())


def test_monitors_read_both_programs(helm: Helm) -> None:
    manifests = helm.render(EVERYTHING, apis=APIS)
    service = one(manifests, "Service", "kms-acme-peers")
    monitor = one(manifests, "ServiceMonitor")
    assert service["metadata"]["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
    ports = [each["port"] for each in monitor["spec"]["endpoints"]]
    assert ports == [each["name"] for each in service["spec"]["ports"]]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    pods = one(helm.render({"metrics": {"podMonitor": {"enabled": True}}}, apis=APIS), "PodMonitor")
    assert [each["port"] for each in pods["spec"]["podMetricsEndpoints"]] == ["metrics", "operator"]
