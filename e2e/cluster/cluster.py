"""A Kubernetes cluster for tests, the demo and the load tool."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.audit import AuditLog
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.errors import CommandFailed, NotOurs
from e2e.cluster.kubeconfig import Endpoint, token_user
from e2e.cluster.kubeconfig import write as write_kubeconfig
from e2e.cluster.sources import OwnCluster

_KUBECTL_LIMIT = 180.0


class Cluster:
    """A running cluster. The code that started it stops it."""

    def __init__(self, plane: ControlPlane | OwnCluster, *, folder: Path) -> None:
        """`folder` is for new kubeconfigs."""
        self._plane = plane
        self._folder = folder
        self._kubectl = plane.binaries.kubectl if isinstance(plane, ControlPlane) else plane.kubectl

    @property
    def is_ours(self) -> bool:
        """Whether it is a test cluster, and not the user's own."""
        return isinstance(self._plane, ControlPlane)

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator."""
        return self._plane.kubeconfig

    @property
    def kubectl_program(self) -> Path:
        """The path of kubectl."""
        return self._kubectl

    @property
    def env(self) -> dict[str, str]:
        """Environment variables for programs that use this cluster: KUBECONFIG, and PATH with kubectl first."""
        path = f"{self._kubectl.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "KUBECTL_KUBERC": "false"}

    def kubectl(
        self, *args: str | Path, stdin: str | None = None, check: bool = True, limit: float = _KUBECTL_LIMIT
    ) -> str:
        """Run kubectl as administrator and return its output; with check=False, including its errors.

        Raises:
            CommandFailed: it failed and `check` is true, or it took longer than `limit` seconds.
        """
        return self.run(self._kubectl, *args, stdin=stdin, check=check, limit=limit)

    def run(
        self,
        program: Path,
        *args: str | Path,
        stdin: str | None = None,
        check: bool = True,
        limit: float = _KUBECTL_LIMIT,
    ) -> str:
        """Run another program, such as helm, as administrator of this cluster, like kubectl().

        Raises:
            CommandFailed: as above.
        """
        command = [str(each) for each in args]
        try:
            done = subprocess.run(
                [str(program), *command],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                env={**os.environ, **self.env},
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(command, -1, f"it did not end within {limit:.0f} s", program=program.name) from None
        if check and done.returncode != 0:
            raise CommandFailed(command, done.returncode, done.stderr or done.stdout, program=program.name)
        return done.stdout if check else done.stdout + done.stderr

    def audit(self) -> AuditLog:
        """A reader of the audit log that starts counting now.

        Raises:
            NotOurs: the cluster is the user's own.
        """
        return AuditLog(self._ours().audit_log)

    @property
    def etcd_url(self) -> str:
        """The URL of etcd, for writes that would take the API server too long.

        Raises:
            NotOurs: the cluster is the user's own.
        """
        return self._ours().etcd_url

    def stop_apiserver(self) -> None:
        """Stop kube-apiserver; etcd keeps all objects.

        Raises:
            NotOurs: the cluster is the user's own.
        """
        self._ours().stop_apiserver()

    def start_apiserver(self) -> None:
        """Start kube-apiserver again at the same address, and wait until it is ready.

        Raises:
            NotOurs: the cluster is the user's own.
            StartFailed: it does not start.
        """
        self._ours().start_apiserver()

    def learn_new_kinds(self) -> None:
        """Let garbage collection discover new kinds now, instead of within half a minute."""
        if isinstance(self._plane, ControlPlane):
            self._plane.restart_controllers()

    def kubeconfig_for(
        self, serviceaccount: str, namespace: str, *, duration: str = "24h", endpoint: Endpoint | None = None
    ) -> Path:
        """Write a kubeconfig with a token of an existing ServiceAccount (TokenRequest API).

        `endpoint` replaces the address of the API server, for a proxy.
        """
        token = self.kubectl("create", "token", serviceaccount, f"--namespace={namespace}", f"--duration={duration}")
        return write_kubeconfig(
            self._folder / f"{namespace}-{serviceaccount}{'-proxy' if endpoint else ''}.kubeconfig",
            endpoint=endpoint or self.endpoint,
            user=token_user(token.strip()),
            namespace=namespace,
        )

    def log(self, component: str) -> Path:
        """Log file of "etcd", "kube-apiserver" or "kube-controller-manager".

        Raises:
            NotOurs: the cluster is the user's own.
        """
        return self._ours().log(component)

    def _ours(self) -> ControlPlane:
        if isinstance(self._plane, ControlPlane):
            return self._plane
        raise NotOurs("this needs a cluster that the tests start themselves, not your own")

    @property
    def endpoint(self) -> Endpoint:
        """The URL and CA certificate of the API server."""
        if isinstance(self._plane, ControlPlane):
            return self._plane.endpoint
        config = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
        entry: Mapping[str, str] = config["clusters"][0]["cluster"]
        return Endpoint(entry["server"], base64.b64decode(entry.get("certificate-authority-data", "")))
