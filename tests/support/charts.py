"""Selectors for rendered manifests of the chart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from e2e.chart.helm import Manifest

Values = Mapping[str, Any]


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """All manifests of a kind."""
    return [each for each in manifests if each["kind"] == kind]


def one(manifests: Iterable[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one manifest of a kind, or of that kind and name."""
    (found,) = (each for each in of_kind(manifests, kind) if name in {None, each["metadata"]["name"]})
    return found


def pod_of(manifests: Iterable[Manifest]) -> Manifest:
    """The spec of the pods of the Deployment."""
    spec: Manifest = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(manifests: Iterable[Manifest], name: str) -> Manifest:
    """The container "server" or "operator"."""
    (found,) = (each for each in pod_of(manifests)["containers"] if each["name"] == name)
    return dict(found)


def rules(role: Manifest) -> set[tuple[str, str, str, str]]:
    """The permissions of a role, as (group, resource, name, verb)."""
    return {
        (group, resource, name, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }


EVERYTHING: Values = {
    "externalURL": "https://acme.example.com",
    "replicaCount": 3,
    "commonLabels": {"team": "pki"},
    "commonAnnotations": {"owner": "pki"},
    "podLabels": {"mesh": "off"},
    "podAnnotations": {"mesh": "off"},
    "image": {"registry": "registry.example.com", "digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "service": {"type": "LoadBalancer", "annotations": {"lb": "internal"}, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
    "http": {"url": "http://pki.example.com"},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"passthrough": "true"},
        "crl": {"enabled": True, "annotations": {"redirect": "false"}},
    },
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.10"]},
    "gateway": {
        "tlsRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateway"}]},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "backendCAConfigMaps": ["serving-ca"]},
        "crlRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    },
    "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "corporate"}}},
    "podDisruptionBudget": {"minAvailable": "50%"},
    "networkPolicy": {
        "enabled": True,
        "clients": [{"namespaceSelector": {}}],
        "scrapers": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": {
            "validationTargets": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "extra": [{"ports": [{"port": 8200}]}],
        },
    },
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "flowSchema": {"enabled": True},
    "server": {
        "validation": {"dnsServers": ["10.0.0.10:53"], "allow": ["127.0.0.0/8"], "deny": ["10.96.0.0/12", "fd00::/8"]},
        "extraArgs": ["--log-level=debug"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    },
    "operator": {
        "extraArgs": ["--log-level=debug"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    },
    "certManager": {"namespace": "certificates", "clusterIssuersFrom": ["pki", "default"]},
    "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
    "nodeSelector": {"pool": "infra"},
    "tolerations": [{"key": "infra", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [
        {"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}, "data": {"key": "value"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n",
    ],
}
"""Values that enable all features of the chart."""

PERMUTATIONS: Mapping[str, Values] = {
    "defaults": {},
    "everything": EVERYTHING,
    "some namespaces": {"watchNamespaces": ["default", "kms-acme"]},
    "a pod monitor": {
        "metrics": {"podMonitor": {"enabled": True, "relabelings": [{"action": "labeldrop", "regex": "x"}]}}
    },
    "an existing TLS Secret": {"tls": {"existingSecret": "corporate"}},
    "plain HTTP elsewhere": {"http": {"enabled": False, "url": "http://crl.example.com"}},
    "plain HTTP on another port": {"http": {"port": 8080}},
    "no roles": {"rbac": {"create": False}, "serviceAccount": {"server": {"create": False, "name": "s"}}},
    "accounts of other names": {"serviceAccount": {"server": {"name": "s"}, "operator": {"name": "o"}}},
    "a node port": {"service": {"type": "NodePort", "nodePort": 30443, "port": 8443, "externalTrafficPolicy": "Local"}},
    "two families": {"service": {"ipFamilyPolicy": "PreferDualStack"}},
    "no egress": {"networkPolicy": {"enabled": True, "egress": {"enabled": False}}},
    "a budget of none": {"podDisruptionBudget": {"minAvailable": 0}},
    "no budget": {"podDisruptionBudget": {"enabled": False}, "replicaCount": 0},
    "a long name": {"fullnameOverride": "x" * 50},
    "no probes' worth of patience": {"server": {"startupProbe": {"failureThreshold": 5}}, "drainSeconds": 0},
    "definitions that go": {"crds": {"keep": False}},
}
"""Values to render and to validate with a real API server."""
