"""The configuration files of a node: one function for each program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.credentials import Credentials
from e2e.cluster.node.namespaces import NODE_NAME
from e2e.cluster.node.network import Network

CNI_PLUGINS = Path("/usr/lib/cni")  # of Debian's package
SOCKET = "/run/containerd/containerd.sock"
KUBELET_HEALTH = 10248
PROXY_HEALTH = 10256
DNS_READY = 8181


def containerd(folder: Path, pause: str) -> Path:
    """containerd with images and containers in `folder`, and its socket and state in /run of the node."""
    cri = "io.containerd.grpc.v1.cri"
    return _write(
        folder / "containerd.toml",
        f"""version = 2
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]

[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"

[plugins."{cri}"]
  sandbox_image = "{pause}"
  # Otherwise, runc fails with a misleading error if a negative oom_score_adj is not permitted.
  restrict_oom_score_adj = true

[plugins."{cri}".cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{folder}/cni"
""",
    )


def pod_network(folder: Path, network: Network) -> Path:
    """The pod network: a link for each pod, all traffic routed, so that answers of Services pass the translation."""
    local = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": network.pods}]]}
    plugins = [
        {"type": "ptp", "mtu": 1500, "ipam": {**local, "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    config = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    (folder / "cni").mkdir(exist_ok=True)
    return _write(folder / "cni" / "10-pods.conflist", json.dumps(config, indent=2))


def kubelet(folder: Path, network: Network, credentials: Credentials) -> Path:
    """A kubelet that limits containers, but not the node, which is only a part of the machine."""
    return _component(
        folder / "kubelet.yaml",
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
        {
            "address": network.node,
            "healthzBindAddress": network.node,
            "healthzPort": KUBELET_HEALTH,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(credentials.ca_certificate)},
            },
            "authorization": {"mode": "AlwaysAllow"},  # for certificates of this cluster's CA
            "clusterDomain": "cluster.local",
            "clusterDNS": [network.node],
            "resolvConf": str(_write(folder / "resolv.conf", f"nameserver {network.node}\n")),
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "evictionHard": {"memory.available": "10Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "1s",
            "maxPods": 250,
        },
    )


def kube_proxy(folder: Path, network: Network, kubeconfig: Path) -> Path:
    """kube-proxy with nftables inside the node."""
    return _component(
        folder / "kube-proxy.yaml",
        "kubeproxy.config.k8s.io/v1alpha1",
        "KubeProxyConfiguration",
        {
            "mode": "nftables",
            "clusterCIDR": network.pods,
            "hostnameOverride": NODE_NAME,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "healthzBindAddress": f"{network.node}:{PROXY_HEALTH}",
            "metricsBindAddress": f"{network.node}:{PROXY_HEALTH + 1}",
            # These belong to the machine, not to the node.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        },
    )


def coredns(folder: Path, network: Network, kubeconfig: Path, zones: Sequence[str]) -> Path:
    """DNS for the cluster's names, and for the test zones, which a DNS server on this machine answers."""
    forwards = "\n".join(
        f"""{zone}:53 {{
    bind {network.node}
    errors
    forward . {network.machine}:53 {{
        max_fails 0
    }}
}}"""
        for zone in zones
    )
    return _write(
        folder / "Corefile",
        f""".:53 {{
    bind {network.node}
    errors
    ready {network.node}:{DNS_READY}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 1
    }}
}}
{forwards}
""",
    )


def _component(path: Path, api_version: str, kind: str, settings: dict[str, Any]) -> Path:
    return _write(path, yaml.safe_dump({"apiVersion": api_version, "kind": kind, **settings}, sort_keys=False))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
