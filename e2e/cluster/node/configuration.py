"""What the programs of a node are told: one function a program, files in the node's folder."""

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
    """Images and containers under `folder`; the socket and all that is running under /run of the node."""
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
  # Else runc fails where a negative oom_score_adj is not permitted, and says something else.
  restrict_oom_score_adj = true

[plugins."{cri}".cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{folder}/cni"
""",
    )


def pod_network(folder: Path, network: Network) -> Path:
    """Each pod has a link of its own, and everything is routed: so no Service's answer goes past its translation."""
    local = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": network.pods}]]}
    plugins = [
        {"type": "ptp", "mtu": 1500, "ipam": {**local, "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    config = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    (folder / "cni").mkdir(exist_ok=True)
    return _write(folder / "cni" / "10-pods.conflist", json.dumps(config, indent=2))


def kubelet(folder: Path, network: Network, credentials: Credentials) -> Path:
    """A kubelet on a node that is only a part of a machine: it limits containers, not the node."""
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
            "authorization": {"mode": "AlwaysAllow"},  # whoever has a certificate of this cluster's CA
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
    """Services as rules of nftables, inside the node only."""
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
            # Those are the machine's, not the node's.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        },
    )


def coredns(folder: Path, network: Network, kubeconfig: Path, zones: Sequence[str]) -> Path:
    """The cluster's names; those of the test zones, from a server of the test's on this machine; nothing else."""
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
