"""What the chart makes of its values."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from e2e.chart.helm import CHART, Helm, Manifest
from e2e.chart.kinds import APIS
from e2e.cluster.install import CRDS
from tests.support.charts import EVERYTHING, PERMUTATIONS, Values, container, of_kind, one, pod_of

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@pytest.fixture(scope="session")
def defaults(helm: Helm) -> list[Manifest]:
    return helm.render()


@pytest.fixture(scope="session")
def everything(helm: Helm) -> list[Manifest]:
    return helm.render(EVERYTHING, apis=APIS)


def test_lint_finds_nothing(helm: Helm) -> None:
    for values in PERMUTATIONS.values():
        asked = {**values, "metrics": {**values.get("metrics", {}), "whenMissing": "Render"}}
        said = helm.with_values(asked, "lint", "--strict", CHART)
        assert "1 chart(s) linted, 0 chart(s) failed" in said
        assert "[WARNING]" not in said


# Custom resource definitions


def test_the_definitions_are_the_very_files(defaults: list[Manifest]) -> None:
    shipped = {each["metadata"]["name"]: each for each in of_kind(defaults, "CustomResourceDefinition")}
    ours = [yaml.safe_load(each.read_text()) for each in sorted(CRDS.glob("*.yaml"))]
    assert shipped.keys() == {each["metadata"]["name"] for each in ours}
    for each in ours:
        of_chart = shipped[each["metadata"]["name"]]
        assert of_chart["spec"] == each["spec"]
        assert of_chart["metadata"]["annotations"].items() >= each["metadata"].get("annotations", {}).items()


def test_the_definitions_stay_when_the_release_goes_unless_they_are_not_to(
    helm: Helm, defaults: list[Manifest]
) -> None:
    def policies(manifests: list[Manifest]) -> set[str | None]:
        found = (each["metadata"].get("annotations", {}) for each in of_kind(manifests, "CustomResourceDefinition"))
        return {each.get("helm.sh/resource-policy") for each in found}

    assert policies(defaults) == {"keep"}
    assert policies(helm.render({"crds": {"keep": False}})) == {None}
    assert policies(helm.render({"crds": {"enabled": False}})) == set()


def test_a_packaged_chart_has_the_definitions_in_it(helm: Helm, tmp_path: Any) -> None:
    helm.run("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("kms-acme-*.tgz")
    printed = helm.with_values({}, "template", "kms-acme", package)
    assert printed.count("kind: CustomResourceDefinition\n") == len(list(CRDS.glob("*.yaml")))


# Names and metadata


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("kms-acme", {}, "kms-acme"),
        ("pki", {}, "pki-kms-acme"),
        ("prod-kms-acme", {}, "prod-kms-acme"),
        ("pki", {"nameOverride": "acme"}, "pki-acme"),
        ("pki", {"fullnameOverride": "acme"}, "acme"),
    ],
)
def test_objects_are_called_after_the_release(helm: Helm, release: str, values: Values, name: str) -> None:
    assert one(helm.render(values, release=release), "Deployment")["metadata"]["name"] == name


def test_names_that_are_too_long_are_shortened_and_stay_different(helm: Helm) -> None:
    releases = ["r" * 53, "r" * 52 + "s"]
    names = [
        {
            (each["kind"], each["metadata"]["name"])
            for each in helm.render({"crds": {"enabled": False}}, release=release)
        }
        for release in releases
    ]
    assert not names[0] & names[1]
    for kind, name in names[0] | names[1]:
        # Names of RBAC objects end up in no label and in no DNS name.
        assert len(name) <= (253 if kind.startswith(("ClusterRole", "Role")) else 63), (kind, name)
        assert _NAME.fullmatch(name)


@pytest.mark.parametrize("values", PERMUTATIONS.values(), ids=PERMUTATIONS)
def test_no_two_objects_are_the_same_and_all_say_where_they_belong(helm: Helm, values: Values) -> None:
    manifests = helm.render(values, apis=APIS)
    keys = [
        (each["apiVersion"], each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in manifests
    ]
    assert len(set(keys)) == len(keys)
    clusterwide = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "FlowSchema"}
    for each in manifests:
        if each["metadata"]["name"] not in {"extra", "kms-acme-text"}:  # are as they were given
            assert (each["kind"] in clusterwide) != ("namespace" in each["metadata"])


def test_common_labels_and_annotations_are_on_everything(everything: list[Manifest]) -> None:
    for each in everything:
        if each["metadata"]["name"] not in {"extra", "kms-acme-text"}:
            assert each["metadata"]["labels"]["team"] == "pki", each["kind"]
            assert each["metadata"]["annotations"]["owner"] == "pki", each["kind"]
    template = one(everything, "Deployment")["spec"]["template"]["metadata"]
    assert template["labels"].items() >= {"team": "pki", "mesh": "off"}.items()
    assert template["annotations"]["mesh"] == "off"


def test_a_label_cannot_take_pods_out_of_their_services(helm: Helm) -> None:
    values = {each: {"app.kubernetes.io/component": "other"} for each in ("podLabels", "commonLabels")}
    manifests = helm.render(values)
    selector = one(manifests, "Deployment")["spec"]["selector"]["matchLabels"]
    assert one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items() >= selector.items()
    assert [each["spec"]["selector"] for each in of_kind(manifests, "Service")] == [selector, selector]


def test_the_pod_of_helm_test_is_behind_no_service(defaults: list[Manifest]) -> None:
    labels = one(defaults, "Pod")["metadata"]["labels"]
    for each in of_kind(defaults, "Service"):
        assert not labels.items() >= each["spec"]["selector"].items()


# The image


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, "kms-acme:0.1.0"),
        ({"image": {"registry": "r.example.com", "repository": "pki/acme", "tag": "x"}}, "r.example.com/pki/acme:x"),
        ({"image": {"tag": "x", "digest": "sha256:" + "0" * 64}}, "kms-acme@sha256:" + "0" * 64),
        ({"image": {"registry": "a"}, "global": {"imageRegistry": "b"}}, "b/kms-acme:0.1.0"),
    ],
)
def test_the_image_is_that_of_the_values_everywhere(helm: Helm, values: Values, image: str) -> None:
    manifests = helm.render(values)
    assert {each["image"] for each in pod_of(manifests)["containers"]} == {image}
    assert one(manifests, "Pod")["spec"]["containers"][0]["image"] == image


# Reaching it


def test_the_default_url_is_that_of_the_service(helm: Helm, defaults: list[Manifest]) -> None:
    assert "--external-url=https://kms-acme.kms-acme.svc" in container(defaults, "server")["args"]
    assert "--external-url=https://kms-acme.kms-acme.svc" in container(defaults, "operator")["args"]
    other = helm.render({"service": {"port": 8443}}, release="pki", namespace="ns")
    assert "--external-url=https://pki-kms-acme.ns.svc:8443" in container(other, "server")["args"]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://kms-acme.kms-acme.svc"),
        ({"service": {"port": 8443}}, "http://kms-acme.kms-acme.svc"),
        ({"http": {"port": 8080}}, "http://kms-acme.kms-acme.svc:8080"),
        ({"externalURL": "https://acme.example.com:8443"}, "http://acme.example.com"),
        ({"http": {"url": "http://pki.example.com"}}, "http://pki.example.com"),
    ],
    ids=str,
)
def test_certificates_say_where_plain_http_is_reached(helm: Helm, values: Values, url: str) -> None:
    rendered = helm.render(values)
    for program in ("server", "operator"):
        assert f"--http-url={url}" in container(rendered, program)["args"]


def test_both_services_lead_to_ports_that_the_containers_have(everything: list[Manifest]) -> None:
    ports = {port["name"] for each in pod_of(everything)["containers"] for port in each["ports"]}
    wanted = {port["targetPort"] for each in of_kind(everything, "Service") for port in each["spec"]["ports"]}
    assert wanted <= ports
    service = one(everything, "Service", "kms-acme")
    assert [(each["name"], each["port"]) for each in service["spec"]["ports"]] == [("https", 443), ("http", 80)]
    peers = one(everything, "Service", "kms-acme-peers")
    assert peers["spec"]["clusterIP"] == "None"
    assert ("peers", 9090) in [(each["name"], each["port"]) for each in peers["spec"]["ports"]]


@pytest.mark.parametrize("kind", ["TLSRoute", "HTTPRoute", "Ingress"])
def test_routes_lead_to_the_service_under_the_host_of_the_url(helm: Helm, kind: str) -> None:
    manifests = helm.render({**EVERYTHING, "externalURL": "https://acme.example.com:8443"}, apis=APIS)
    spec = one(manifests, kind, "kms-acme")["spec"]
    if kind == "Ingress":
        rule = spec["rules"][0]
        assert rule["host"] == "acme.example.com"
        assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "kms-acme", "port": {"name": "https"}}
    else:
        assert spec["hostnames"] == ["acme.example.com"]
        assert spec["rules"][0]["backendRefs"] == [{"name": "kms-acme", "port": 443}]


def test_revocation_lists_have_a_route_of_their_own(everything: list[Manifest]) -> None:
    spec = one(everything, "HTTPRoute", "kms-acme-crl")["spec"]
    assert spec["hostnames"] == ["pki.example.com"]
    assert [each["path"]["value"] for each in spec["rules"][0]["matches"]] == ["/crl", "/ca"]
    assert spec["rules"][0]["backendRefs"] == [{"name": "kms-acme", "port": 80}]
    (rule,) = one(everything, "Ingress", "kms-acme-crl")["spec"]["rules"]
    assert rule["host"] == "pki.example.com"
    assert [each["path"] for each in rule["http"]["paths"]] == ["/crl", "/ca"]
    assert {each["backend"]["service"]["port"]["name"] for each in rule["http"]["paths"]} == {"http"}


@pytest.mark.parametrize(
    ("served", "version"),
    [
        ((), "v1"),
        (("v1alpha2",), "v1alpha2"),
        (("v1alpha2", "v1alpha3"), "v1alpha3"),
        (("v1alpha2", "v1alpha3", "v1"), "v1"),
    ],
)
def test_a_tls_route_is_of_the_newest_version_that_the_cluster_serves(
    helm: Helm, served: tuple[str, ...], version: str
) -> None:
    values = {"gateway": {"tlsRoute": {"enabled": True, "parentRefs": [{"name": "x"}]}}}
    apis = tuple(f"gateway.networking.k8s.io/{each}/TLSRoute" for each in served)
    assert one(helm.render(values, apis=apis), "TLSRoute")["apiVersion"].endswith(f"/{version}")


def test_a_certificate_of_cert_managers_is_for_the_url_and_the_service(everything: list[Manifest]) -> None:
    certificate = one(everything, "Certificate")
    assert certificate["spec"]["dnsNames"] == ["acme.example.com", "kms-acme.kms-acme.svc"]
    (volume,) = (each for each in pod_of(everything)["volumes"] if each["name"] == "tls")
    assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]
    for program in ("server", "operator"):
        assert f"--serving-secret={certificate['spec']['secretName']}" in container(everything, program)["args"]


def test_further_objects_are_rendered_as_templates(everything: list[Manifest]) -> None:
    assert one(everything, "ConfigMap", "extra")["data"] == {"key": "value"}
    assert one(everything, "ConfigMap", "kms-acme-text")


# What people read after the installation


def test_the_notes_name_the_directory_and_how_to_get_the_ca_bundle(helm: Helm) -> None:
    flags = ("--dry-run=client", "--namespace=kms-acme")
    said = helm.with_values({}, "install", "kms-acme", CHART, *flags).partition("NOTES:")[2]
    assert "https://kms-acme.kms-acme.svc/acme/<namespace>/<profile>/directory" in said
    command = "kubectl --namespace kms-acme get secret kms-acme-serving --output jsonpath='{.data.ca\\.crt}'"
    assert command in said
    assert "helm test kms-acme --namespace kms-acme" in said
    assert "Set replicaCount to 2 or more" in said
    assert "Set externalURL" in said
    assert "WARNING" not in said


def test_the_notes_warn_of_what_was_left_out_and_of_what_will_be_lost(helm: Helm) -> None:
    values = {
        "crds": {"keep": False},
        "metrics": {"whenMissing": "Skip", "prometheusRule": {"enabled": True}},
        "replicaCount": 2,
        "externalURL": "https://acme.example.com",
    }
    said = helm.with_values(values, "install", "kms-acme", CHART, "--dry-run=client").partition("NOTES:")[2]
    assert "WARNING: metrics.prometheusRule was left out" in said
    assert "WARNING: crds.keep is false" in said
    assert "Set replicaCount" not in said
    assert "Set externalURL" not in said
