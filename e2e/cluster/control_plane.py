"""etcd, kube-apiserver and kube-controller-manager as processes of this machine.

All listen on the loopback address. In a cluster with a node, kube-apiserver also listens for its pods (see Site).

The folder of a cluster has its credentials, the records of its processes, logs, and etcd's data, so another process can
open() it later.
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Self

from e2e.cluster import credentials
from e2e.cluster.errors import StartFailed, StateError
from e2e.cluster.kubeconfig import Endpoint, certificate_user
from e2e.cluster.kubeconfig import write as write_kubeconfig
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import Process
from e2e.cluster.readiness import is_ok, wait_until

_START_LIMIT = 60.0
# kube-apiserver would wait up to a minute for watches, which never end. It can be killed, since etcd has all its data.
_STOP_LIMIT = 3.0
_ATTEMPTS = 4
_AUDIT_POLICY = Path(__file__).with_name("audit-policy.yaml")
_PORT_TAKEN = "address already in use"

# The controllers for namespaces with our kinds, ServiceAccounts and Secrets; others would only use CPU.
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)
# The controllers that create pods and route requests to them.
_POD_CONTROLLERS = (
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "job-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of a control plane."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of etcd and kube-apiserver."""

    etcd: int
    apiserver: int


@dataclass(frozen=True, slots=True)
class Site:
    """The addresses of a control plane: alone, or with a node that runs pods."""

    address: str = LOOPBACK
    """The address of kube-apiserver."""
    services: str = "10.0.0.0/24"
    """The Service CIDR; its first address is that of the API server."""
    runs_pods: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Further names of the API server in its certificate."""
        return (self.address, "kubernetes", "kubernetes.default", str(ip_network(self.services)[1]))


class ControlPlane:
    """A control plane in a folder."""

    def __init__(self, folder: Path, binaries: Binaries, ports: Ports, site: Site) -> None:
        self._folder = folder
        self.binaries = binaries
        self._ports = ports
        self._site = site
        self._processes: dict[str, Process] = {}
        self._credentials = credentials.Credentials(folder / "pki")

    @classmethod
    def create(
        cls, folder: Path, binaries: Binaries, *, site: Site | None = None, users: Mapping[str, str] | None = None
    ) -> Self:
        """Prepare a new cluster in a new or empty folder; start() starts it.

        `users` are further users with credentials, each with its group.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for each in ("logs", "run", "etcd"):
            (folder / each).mkdir(mode=0o700, exist_ok=True)
        site = site or Site()
        credentials.create(folder / "pki", names=site.names, users=users)
        made = cls(folder, binaries, Ports(free_port(), free_port()), site)
        made._save()
        return made

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing cluster.

        Raises:
            StateError: there is none in this folder.
        """
        try:
            saved = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StateError(f"There is no cluster in {folder}.") from None
        binaries = Binaries(**{name: Path(path) for name, path in saved["binaries"].items()})
        return cls(folder, binaries, Ports(**saved["ports"]), Site(**saved["site"]))

    @property
    def folder(self) -> Path:
        """The folder of the cluster."""
        return self._folder

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator."""
        return self._folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The audit log of kube-apiserver, one JSON document per line."""
        return self._folder / "logs" / "audit.log"

    @property
    def endpoint(self) -> Endpoint:
        """The URL and CA certificate of kube-apiserver."""
        return Endpoint(
            f"https://{self._site.address}:{self._ports.apiserver}", self._credentials.ca_certificate.read_bytes()
        )

    @property
    def etcd_url(self) -> str:
        """The URL of etcd, which requires no authentication."""
        return f"http://{LOOPBACK}:{self._ports.etcd}"

    def log(self, component: str) -> Path:
        """Log of "etcd", "kube-apiserver" or "kube-controller-manager"."""
        return self._folder / "logs" / f"{component}.log"

    def running(self) -> dict[str, bool]:
        """Which components run."""
        return {name: self._find(name) is not None for name in ("etcd", "kube-apiserver", "kube-controller-manager")}

    def start(self) -> None:
        """Start all components and wait until they are ready.

        Raises:
            StartFailed: a component did not start; the text has the end of its log. Nothing runs then.
        """
        try:
            self._on_some_port(self._start_etcd)
            self._on_some_port(self._start_apiserver)
            self._start_controller_manager()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all components, kube-apiserver first, since it hangs without etcd. Logs stay, data is removed."""
        for component in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self._stop(component)
        shutil.rmtree(self._folder / "etcd", ignore_errors=True)

    def stop_apiserver(self) -> None:
        """Stop kube-apiserver only. The controllers reconnect later."""
        self._stop("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start kube-apiserver at its old address, unless it runs, and wait until it is ready."""
        if self._find("kube-apiserver") is None:
            self._start_apiserver()

    def restart_controllers(self) -> None:
        """Restart kube-controller-manager to discover new kinds now; otherwise, that takes up to 30 seconds."""
        self._stop("kube-controller-manager")
        self._start_controller_manager()

    def release(self) -> None:
        """Keep all components running after the end of this process."""
        for process in self._processes.values():
            process.release()

    def _on_some_port(self, start: Callable[[], None]) -> None:
        """Retry with other ports if another process has taken one of the free ports."""
        for attempt in range(_ATTEMPTS):
            try:
                return start()
            except StartFailed as failed:
                if _PORT_TAKEN not in str(failed) or attempt == _ATTEMPTS - 1:
                    raise
                etcd_runs = self._find("etcd") is not None
                self._ports = Ports(self._ports.etcd if etcd_runs else free_port(), free_port())
                self._save()
        return None

    def _start_etcd(self) -> None:
        client = self.etcd_url
        self._run(
            "etcd",
            [
                self.binaries.etcd,
                f"--data-dir={self._folder / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls=http://{LOOPBACK}:0",
                "--unsafe-no-fsync",
                "--quota-backend-bytes=8589934592",
                "--log-level=warn",
            ],
        )
        self._wait("etcd", lambda: is_ok(http.client.HTTPConnection(LOOPBACK, self._ports.etcd, timeout=1), "/readyz"))

    def _start_apiserver(self) -> None:
        mine, site = self._credentials, self._site
        self._run(
            "kube-apiserver",
            [
                self.binaries.kube_apiserver,
                f"--etcd-servers={self.etcd_url}",
                f"--secure-port={self._ports.apiserver}",
                f"--bind-address={site.address}",
                f"--advertise-address={site.address}",
                f"--endpoint-reconciler-type={'master-count' if site.runs_pods else 'none'}",
                f"--tls-cert-file={mine.certificate('server')}",
                f"--tls-private-key-file={mine.key('server')}",
                f"--client-ca-file={mine.ca_certificate}",
                f"--authorization-mode={'Node,RBAC' if site.runs_pods else 'RBAC'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={mine.service_account_key}",
                f"--service-account-signing-key-file={mine.service_account_key}",
                f"--service-cluster-ip-range={site.services}",
                f"--audit-policy-file={_AUDIT_POLICY}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-maxsize=1000000",  # MB: never rotated, readers count from an offset
                "--profiling=false",
                # An optional API for spec.trust of CertificateAuthority.
                "--feature-gates=ClusterTrustBundle=true",
                "--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true",
                *(self._kubelet_options() if site.runs_pods else ()),
            ],
        )
        self._wait("kube-apiserver", self._apiserver_ready)
        write_kubeconfig(
            self.kubeconfig,
            endpoint=self.endpoint,
            user=certificate_user(mine, credentials.ADMIN),
        )

    def _kubelet_options(self) -> tuple[str, ...]:
        """Options to reach the kubelet (logs, exec) by address, since DNS does not know the node's name."""
        mine = self._credentials
        return (
            "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={mine.certificate(credentials.ADMIN)}",
            f"--kubelet-client-key={mine.key(credentials.ADMIN)}",
        )

    def _start_controller_manager(self) -> None:
        mine = self._credentials
        controllers = (*_CONTROLLERS, *(_POD_CONTROLLERS if self._site.runs_pods else ()))
        config = write_kubeconfig(
            self._folder / "run" / "kube-controller-manager.kubeconfig",
            endpoint=self.endpoint,
            user=certificate_user(mine, credentials.CONTROLLER_MANAGER),
        )
        log_before = _size(self.log("kube-controller-manager"))
        self._run(
            "kube-controller-manager",
            [
                self.binaries.kube_controller_manager,
                f"--kubeconfig={config}",
                f"--controllers={','.join(controllers)}",
                "--leader-elect=false",
                "--secure-port=0",
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={mine.service_account_key}",
                f"--root-ca-file={mine.ca_certificate}",
                "--concurrent-gc-syncs=4",
                "--profiling=false",
            ],
        )
        self._wait("kube-controller-manager", lambda: self._controllers_act(log_before))

    def _apiserver_ready(self) -> bool:
        return self._ask("/readyz")

    def _controllers_act(self, log_before: int) -> bool:
        """Whether the default ServiceAccount exists, and the garbage collector knows all kinds."""
        with self.log("kube-controller-manager").open("rb") as log:
            log.seek(log_before)
            collects = b"roceeding to collect garbage" in log.read()
        return collects and self._ask("/api/v1/namespaces/default/serviceaccounts/default")

    def _ask(self, path: str) -> bool:
        mine = self._credentials
        context = ssl.create_default_context(cafile=str(mine.ca_certificate))
        context.load_cert_chain(mine.certificate(credentials.ADMIN), mine.key(credentials.ADMIN))
        connection = http.client.HTTPSConnection(self._site.address, self._ports.apiserver, timeout=5, context=context)
        return is_ok(connection, path)

    def _run(self, component: str, command: Sequence[str | Path]) -> None:
        record = self._folder / "run" / f"{component}.process"
        self._processes[component] = Process.start(command, log=self.log(component), record=record)

    def _wait(self, component: str, ready: Callable[[], bool]) -> None:
        try:
            wait_until(ready, component, self._processes[component], log=self.log(component), limit=_START_LIMIT)
        except StartFailed:
            self._stop(component)
            raise

    def _stop(self, component: str) -> None:
        if process := self._find(component) or self._processes.get(component):
            process.stop(_STOP_LIMIT)
        self._processes.pop(component, None)

    def _find(self, component: str) -> Process | None:
        if mine := self._processes.get(component):
            return mine if mine.running() else None
        return Process.attach(self._folder / "run" / f"{component}.process")

    def _save(self) -> None:
        saved = {
            "binaries": {name: str(path) for name, path in asdict(self.binaries).items()},
            "ports": asdict(self._ports),
            "site": asdict(self._site),
        }
        (self._folder / "cluster.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
