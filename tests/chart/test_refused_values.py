"""Values that are wrong: Helm refuses them before anything is changed, and says which and why."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.chart.helm import CHART, Helm
from e2e.chart.kinds import APIS
from e2e.cluster.errors import CommandFailed


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"server": {"resource": {}}}, r"'/server'.*additional properties 'resource' not allowed"),
        ({"replicaCount": "3"}, r"'/replicaCount'.*got string, want integer"),
        ({"replicaCount": -1}, r"'/replicaCount'.*minimum"),
        (
            {"externalURL": "http://acme.example.com"},
            'externalURL: "http://acme.example.com" is not an https URL without a path, such as https://acme',
        ),
        ({"externalURL": "https://acme.example.com/acme"}, "externalURL: .* is not an https URL without a path"),
        (
            {"http": {"url": "https://pki.example.com"}},
            "http.url: .* is not an http URL without a path, such as http://",
        ),
        ({"watchNamespaces": ["Upper"]}, r'watchNamespaces\[0\]: "Upper" is not the name of a namespace: lowercase'),
        (
            {"deletionRetention": "7d"},
            'deletionRetention: "7d" is not a duration in hours, minutes and seconds, such as',
        ),
        (
            {"pkcs11Modules": ["lib.so"]},
            r'pkcs11Modules\[0\]: "lib.so" is not an absolute path, such as /opt/hsm/lib.so',
        ),
        ({"operator": {"openProfilesFrom": ["A"]}}, r"openProfilesFrom\[0\]: .*, or \* for all namespaces"),
        (
            {"externalAuthorities": {"from": ["*"]}},
            r'externalAuthorities.from\[0\]: "\*" is not the name of a namespace',
        ),
        ({"watchNamespaces": ["a", "a"]}, r"'/watchNamespaces'.*equal"),
        ({"image": {"digest": "latest"}}, r'image.digest: "latest" is not the digest of an image: sha256: and 64'),
        ({"image": {"pullPolicy": "Sometimes"}}, r"'/image/pullPolicy'.*must be one of"),
        ({"logging": {"level": "trace"}}, r"'/logging/level'.*must be one of"),
        ({"service": {"type": "ExternalName"}}, r"'/service/type'.*must be one of"),
        ({"service": {"port": 70000}}, r"'/service/port'.*maximum"),
        (
            {"server": {"validation": {"dnsServers": ["kube-dns:53"]}}},
            r'server.validation.dnsServers\[0\]: "kube-dns:53" is not the address and port .* a name is not possible',
        ),
        (
            {"server": {"validation": {"deny": ["10.0.0.0"]}}},
            r"validation.deny\[0\]: .* is not a network with the length",
        ),
        (
            {"server": {"validation": {"clusterNetworks": ["10.0.0.0"]}}},
            r'server.validation.clusterNetworks\[0\]: "10.0.0.0" is not a network with the length of',
        ),
        ({"server": {"extraEnv": [{"value": "x"}]}}, r"'/server/extraEnv/0'.*missing property 'name'"),
        ({"fullnameOverride": "x" * 51}, r"'/fullnameOverride'.*maxLength"),
        ({"fullnameOverride": "Upper"}, "fullnameOverride: .* is not a name: lowercase letters, digits"),
        ({"podDisruptionBudget": {"maxUnavailable": True}}, r"'/podDisruptionBudget/maxUnavailable'.*got boolean"),
        ({"metrics": {"whenMissing": "Panic"}}, r"'/metrics/whenMissing'.*must be one of"),
        ({"commonLabels": {"a": 1}}, r"'/commonLabels/a'.*got number, want string"),
        (
            {"tls": {"certManager": {"duration": "90d"}}},
            "tls.certManager.duration: .* is not a duration in whole hours",
        ),
        ({"certManager": {"namespace": ""}}, r"'/certManager/namespace'.*minLength"),
        ({"certManager": {"clusterIssuersFrom": "pki"}}, r"'/certManager/clusterIssuersFrom'.*want array"),
        (
            {"certManager": {"clusterIssuersFrom": ["*"]}},
            r"certManager.clusterIssuersFrom\[0\]: .* is not the name of a namespace",
        ),
    ],
    ids=str,
)
def test_a_value_that_is_wrong_is_named(helm: Helm, values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CommandFailed, match=f"(?s){complaint}"):
        helm.render(values)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            {"image": {"repository": ""}},
            r"image\.repository is required: build the image with `make image`, push it or load it into kind, then",
        ),
        (
            {"tls": {"existingSecret": "x", "certManager": {"enabled": True, "issuerRef": {"name": "y"}}}},
            "tls.existingSecret and tls.certManager.enabled are mutually exclusive",
        ),
        ({"tls": {"certManager": {"enabled": True}}}, "tls.certManager.issuerRef.name is missing"),
        (
            {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
            "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled are mutually exclusive",
        ),
        ({"podDisruptionBudget": {"maxUnavailable": None}}, "podDisruptionBudget.maxUnavailable are both null"),
        (
            {"watchNamespaces": ["a"], "certManager": {"clusterIssuersFrom": ["a", "b"]}},
            "certManager.clusterIssuersFrom has b, which is not in watchNamespaces",
        ),
        (
            {"watchNamespaces": ["a"], "operator": {"trustFrom": ["b"]}},
            "operator.trustFrom has b, which is not in watchNamespaces",
        ),
        (
            {"watchNamespaces": ["a"], "externalAuthorities": {"from": ["b"]}},
            "externalAuthorities.from has b, which is not in watchNamespaces",
        ),
        ({"gateway": {"tlsRoute": {"enabled": True}}}, "gateway.tlsRoute.parentRefs is empty"),
        (
            {"gateway": {"crlRoute": {"enabled": True, "parentRefs": [{"name": "x"}]}}, "http": {"enabled": False}},
            "gateway.crlRoute.enabled needs http.enabled",
        ),
        ({"ingress": {"crl": {"enabled": True}}, "http": {"enabled": False}}, "ingress.crl.enabled needs http.enabled"),
        ({"http": {"enabled": False}}, "http.url is missing"),
        (
            {"terminationGracePeriodSeconds": 29},
            r"terminationGracePeriodSeconds \(29\) is less than drainSeconds \(5\)",
        ),
        (
            {"serviceAccount": {"server": {"name": "same"}, "operator": {"name": "same"}}},
            "serviceAccount.operator.name are the same",
        ),
        ({"serviceAccount": {"server": {"name": "default"}}}, "must not be default"),
    ],
    ids=str,
)
def test_values_that_do_not_go_together_are_named(helm: Helm, values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CommandFailed, match=complaint):
        helm.render(values, apis=APIS)


@pytest.mark.parametrize("wanted", ["serviceMonitor", "podMonitor", "prometheusRule"])
def test_what_the_cluster_does_not_serve_is_said_left_out_or_made_all_the_same(helm: Helm, wanted: str) -> None:
    def render(**metrics: str) -> list[str]:
        values = {"metrics": {wanted: {"enabled": True}, **metrics}, "crds": {"enabled": False}}
        return [each["kind"] for each in helm.render(values)]

    kind = wanted[0].upper() + wanted[1:]
    with pytest.raises(CommandFailed, match=rf"metrics\.{wanted}\.enabled: this cluster does not serve {kind}"):
        render()
    assert kind not in render(whenMissing="Skip")
    assert kind in render(whenMissing="Render")


def test_a_cluster_that_is_too_old_is_told_so(helm: Helm) -> None:
    with pytest.raises(CommandFailed, match=r"requires kubeVersion: >= 1\.31\.0-0"):
        helm.with_values({}, "template", "kms-acme", CHART, "--kube-version=1.30.9")
    helm.with_values({}, "template", "kms-acme", CHART, "--kube-version=1.31.0-eks-1")


def test_the_chart_has_no_image_of_its_own(helm: Helm) -> None:
    with pytest.raises(CommandFailed, match=r"image\.repository is required"):
        helm.run("template", "kms-acme", CHART)
    assert helm.run("template", "kms-acme", CHART, "--set=image.repository=registry.example.com/kms-acme")


def test_a_parent_chart_may_share_what_it_likes(helm: Helm) -> None:
    assert helm.render({"global": {"of": "others", "imageRegistry": "registry.example.com"}})
