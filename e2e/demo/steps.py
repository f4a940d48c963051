"""The steps of the demo, in order. Each runs a few commands."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from e2e.cluster.ports import free_port
from e2e.demo.given import GivenCluster, GivenClusterError, Manifest, Traces, confined, documents
from e2e.demo.narrator import Narrator, StepFailedError
from e2e.demo.session import CLUSTER, Session

ROOT = Path(__file__).parent.parent.parent
NAME = "web.demo.test"
PYTHON = shlex.quote(sys.executable)

STEPS = (
    "cluster",
    "manifests",
    "programs",
    "credentials",
    "certificate",
    "chain",
    "web_server",
    "renewal",
    "overview",
)


@dataclass(frozen=True)
class Ports:
    """Loopback ports of the demo; none needs root."""

    acme: int
    http: int
    server_metrics: int
    operator_metrics: int
    dns: int
    http01: int
    web: int

    @classmethod
    def free(cls) -> Ports:
        """Choose free ports."""
        return cls(*(free_port() for _ in range(7)))


@dataclass
class Demo:
    """The demo on its own cluster, with the state that its steps share."""

    tell: Narrator
    session: Session
    ports: Ports
    namespace: str = "pki"
    """The namespace of the four manifests."""
    scope: str = "-A"
    """The scope option of the overview."""
    confinement: str = ""
    """Options that restrict the programs to one namespace."""

    @property
    def server_log(self) -> Path:
        """The log of operator and server."""
        return self.tell.folder / "kms-acme.log"

    def run(self) -> None:
        """Run all steps. Raises StepFailedError if one fails."""
        for name, title in zip(STEPS, self.titles(), strict=True):
            self.tell.step(title)
            getattr(self, name)()

    @classmethod
    def titles(cls) -> list[str]:
        """The titles of the steps: the first lines of their docstrings."""
        return [(getattr(cls, name).__doc__ or "").splitlines()[0] for name in STEPS]

    def cluster(self) -> None:
        """A Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager"""
        self.tell.watch(f"{PYTHON} -m e2e.cluster up --name {CLUSTER}", timeout=5400)
        exports = self.tell.run(f"{PYTHON} -m e2e.cluster env --name {CLUSTER}")
        for line in exports.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.tell.environment[name] = os.path.expandvars("".join(shlex.split(value)))
        self._prefer_our_python(self.tell.environment["PATH"])

    def manifests(self) -> None:
        """The eight kinds, the RBAC rules, and the four manifests of an administrator"""
        self.tell.run(f"kubectl apply -f {ROOT}/crds -f {ROOT}/deploy/rbac.yaml")
        self.tell.run(f"kubectl wait --for=condition=Established --timeout=30s -f {ROOT}/crds")
        self.tell.run(f"kubectl apply -f {ROOT}/deploy/samples")

    def programs(self) -> None:
        """Operator and server, each under the token of its own ServiceAccount, and a DNS server for demo.test"""
        self._start(
            f"python -m e2e.support.dns --zone demo.test --address 127.0.0.1 --port {self.ports.dns}", "dns.log"
        )
        self._start(
            f"kms-acme dev --external-url https://localhost:{self.ports.acme} --listen 127.0.0.1:{self.ports.acme}"
            f" --http-listen 127.0.0.1:{self.ports.http} --metrics-listen 127.0.0.1:{self.ports.server_metrics}"
            f" --operator-metrics-listen 127.0.0.1:{self.ports.operator_metrics}"
            f" --dns-server 127.0.0.1:{self.ports.dns} --http01-port {self.ports.http01}"
            f" --validation-allow 127.0.0.0/8 --log-format text{self.confinement}",
            self.server_log.name,
        )
        self.tell.run(
            f"kubectl -n {self.namespace} wait --for=condition=Ready --timeout=60s"
            " certificateauthority/issuing certificatepolicy/web certificateprofile/web eabcredential/web",
            log=self.server_log,
        )
        self._until_ready(f"http://127.0.0.1:{self.ports.server_metrics}/readyz")

    def credentials(self) -> None:
        """What a client needs: directory URL, KID and secret, and the CA of the server's own certificate"""
        of = f"kubectl -n {self.namespace} get"
        self.tell.let("KID", f"{of} secret web-eab -o go-template='{{{{.data.kid | base64decode}}}}'")
        self.tell.let("SECRET", f"{of} secret web-eab -o go-template='{{{{.data.secret | base64decode}}}}'")
        self.tell.let("DIRECTORY", f"{of} certificateprofile web -o jsonpath='{{.status.directoryURL}}'")
        for key in ("ca.crt", "chain.crt"):
            template = f'{{{{index .data "{key}" | base64decode}}}}'
            self.tell.run(f"{of} secret web-acme -o go-template='{template}' >{key}")
        self.tell.run("curl --silent --show-error --fail --cacert ca.crt $DIRECTORY && echo")

    def certificate(self) -> None:
        """certbot opens an account, answers an HTTP-01 challenge and obtains a certificate"""
        self.tell.run(
            "REQUESTS_CA_BUNDLE=ca.crt certbot certonly --non-interactive --agree-tos"
            f" --register-unsafely-without-email --server $DIRECTORY --eab-kid $KID --eab-hmac-key $SECRET"
            f" --standalone --http-01-address 127.0.0.1 --http-01-port {self.ports.http01} --domain {NAME}"
            " --config-dir certbot --work-dir certbot/work --logs-dir certbot/logs",
            log=self.server_log,
        )

    def chain(self) -> None:
        """openssl checks the chain against the CA of the profile"""
        self.tell.run(f"openssl verify -CAfile chain.crt certbot/live/{NAME}/cert.pem")
        self.tell.run(
            f"openssl x509 -in certbot/live/{NAME}/cert.pem -noout -subject -issuer -serial -dates -ext subjectAltName"
        )

    def web_server(self) -> None:
        """An HTTPS server uses the certificate, curl trusts it"""
        live = f"certbot/live/{NAME}"
        self._start(
            f"openssl s_server -accept 127.0.0.1:{self.ports.web} -www"
            f" -cert {live}/cert.pem -key {live}/privkey.pem -cert_chain {live}/chain.pem",
            "web.log",
        )
        self.tell.run(
            "curl --silent --fail --retry 20 --retry-delay 1 --retry-connrefused --output page.html"
            " --write-out 'HTTP %{http_code}, certificate verified: %{ssl_verify_result} (0 is yes)\\n'"
            f" --cacert chain.crt --resolve {NAME}:{self.ports.web}:127.0.0.1 https://{NAME}:{self.ports.web}/",
            log=self.tell.folder / "web.log",
        )

    def renewal(self) -> None:
        """certbot renews: the same account, a new order, a new certificate"""
        serial = f"openssl x509 -in certbot/live/{NAME}/cert.pem -noout -serial"
        before = self.tell.run(serial)
        self.tell.run(
            "REQUESTS_CA_BUNDLE=ca.crt certbot renew --non-interactive --force-renewal --no-random-sleep-on-renew"
            " --config-dir certbot --work-dir certbot/work --logs-dir certbot/logs",
            log=self.server_log,
        )
        if self.tell.run(serial) == before:
            raise StepFailedError("the certificate is the same as before", log=self.server_log)

    def overview(self) -> None:
        """All of it, as kubectl shows it"""
        self.tell.run(f"kubectl get kms,kms-records {self.scope}")

    def _prefer_our_python(self, path: str) -> None:
        self.tell.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"

    def _start(self, line: str, log: str) -> None:
        self.session.remember(self.tell.start(line, log=self.tell.folder / log))

    def _until_ready(self, url: str) -> None:
        self.tell.run(
            f"curl --silent --fail --retry 15 --retry-delay 1 --retry-all-errors {url}",
            log=self.server_log,
        )


@dataclass
class DemoOnGivenCluster(Demo):
    """The demo on the user's cluster: it builds nothing and removes its objects at the end."""

    given: GivenCluster = field(kw_only=True)

    def cluster(self) -> None:
        """The cluster that you named, and nothing of it but this context"""
        self._prefer_our_python(os.environ.get("PATH", os.defpath))
        flags = f"--kubeconfig {shlex.quote(str(self.given.kubeconfig))} --context {shlex.quote(self.given.context)}"
        self.tell.run(f"kubectl config view --raw --minify --flatten {flags} >kubeconfig")
        self.tell.run("export KUBECONFIG=$PWD/kubeconfig; kubectl version --request-timeout=20s")
        self.tell.environment["KUBECONFIG"] = str(self.tell.folder / "kubeconfig")

    def manifests(self) -> None:
        """The kinds that the cluster lacks, and in a namespace of its own RBAC rules and four manifests"""
        kinds = list(documents(*sorted((ROOT / "crds").glob("*.yaml"))))
        try:
            traces = self._planned([each["metadata"]["name"] for each in kinds])
        except GivenClusterError as error:
            raise StepFailedError(str(error)) from error
        self.namespace, self.scope = traces.namespace, f"-n {traces.namespace}"
        self.confinement = f" --namespace {self.namespace} --watch-namespace {self.namespace}"
        self.tell.say(
            "  The demo creates the following, with the permissions of this context, and deletes it at the end:"
        )
        self.tell.say(f"    the namespace {self.namespace}, with all objects of the demo")
        for each in traces.definitions:
            self.tell.say(f"    the CustomResourceDefinition {each}")
        if len(traces.definitions) < len(kinds):
            self.tell.say("  It uses the other CustomResourceDefinitions of the cluster unchanged.")
        traces.write(self.session.traces)
        self.tell.run(f"kubectl create namespace {self.namespace}")
        if traces.definitions:
            lacking = [each for each in kinds if each["metadata"]["name"] in traces.definitions]
            self._apply("crds.yaml", lacking)
            self.tell.run("kubectl wait --for=condition=Established --timeout=30s -f crds.yaml")
        self._apply("rbac.yaml", confined(documents(ROOT / "deploy" / "rbac.yaml"), self.namespace))
        samples = documents(*sorted((ROOT / "deploy" / "samples").glob("*.yaml")))
        self._apply("samples.yaml", confined(samples, self.namespace))

    def _planned(self, kinds: list[str]) -> Traces:
        kubectl = shutil.which("kubectl", path=self.tell.environment["PATH"]) or "kubectl"
        return Traces.planned(kubectl, Path(self.tell.environment["KUBECONFIG"]), kinds)

    def _apply(self, name: str, manifests: Iterable[Manifest]) -> None:
        (self.tell.folder / name).write_text(yaml.safe_dump_all(manifests, sort_keys=False), encoding="utf-8")
        self.tell.run(f"kubectl apply -f {name}")
