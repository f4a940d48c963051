"""`kms-acme dev`: operator and server as two processes against one kubeconfig, for development.

Each process acts under the token of its own ServiceAccount, with the same rights as in a pod: the server cannot read a
Secret outside the release namespace, regardless of the rights of the kubeconfig's user.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import kubernetes.config
from kubernetes.config import ConfigException

from kms.contract import Program, service_account_name
from kms_acme.install import InstallError, install
from kms_acme.kubeconfigs import RENEW_EVERY, NoToken, ServiceAccountKubeconfig

logger = logging.getLogger(__name__)

GRACE = 25.0
"""Seconds that a program has to shut down."""
PROGRAMS: tuple[Program, ...] = ("operator", "server")

_OF_BOTH = (
    "external_url", "namespace", "watch_namespaces", "serving_secret", "service_name", "deletion_retention",
    "log_format", "log_level", "http_url",
)  # fmt: skip
_OF: Mapping[str, tuple[str, ...]] = {
    "server": (
        "listen", "http_listen", "metrics_listen", "tls_certificate", "tls_private_key", "dns_servers",
        "http01_port", "tls_alpn01_port", "validation_allow", "validation_deny", "maximum_orders",
        "maximum_order_bytes", "maximum_accounts", "namespace_share", "account_share", "maximum_connections",
        "maximum_connections_per_address", "proxy_networks", "audit_log", "list_profiles",
        "peer_service",
    ),
    "operator": (
        "operator_metrics_listen",
        "cert_manager_namespace",
        "cluster_issuers_from",
        "trust_from",
        "open_profiles_from",
        "external_authorities_from",
        "notifications_from",
        "maximum_profiles_per_namespace",
        "maximum_secrets",
        "maximum_secrets_per_namespace",
    ),
}  # fmt: skip
_FLAGS: Mapping[str, str] = {
    "watch_namespaces": "--watch-namespace",
    "dns_servers": "--dns-server",
    "proxy_networks": "--proxy-network",
    "operator_metrics_listen": "--metrics-listen",
}


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs one of the programs."""

    name: Program
    process: subprocess.Popen[bytes]


def arguments(program: Program, values: Mapping[str, Any], kubeconfig: Path) -> list[str]:
    """The command line of `program` with the options that `dev` was given."""
    line = [sys.executable, "-m", "kms_acme", program, "--kubeconfig", str(kubeconfig)]
    for name in (*_OF_BOTH, *_OF[program]):
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        value = values[name]
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                line += [flag, str(each)]
    return line


def run(values: Mapping[str, Any]) -> int:
    """Start both programs, wait until one ends or a signal comes, and return the exit code."""
    try:
        api = kubernetes.config.new_client_from_config(config_file=values["kubeconfig"], context=values["context"])
    except ConfigException as error:
        logger.error("no usable kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config): %s", error)
        return 1
    stop = threading.Event()
    _stop_on_signals(stop)
    with api, tempfile.TemporaryDirectory(prefix="kms-acme-dev-") as folder:
        kubeconfigs = {
            name: ServiceAccountKubeconfig(
                service_account=service_account_name(name), namespace=values["namespace"], folder=Path(folder)
            )
            for name in PROGRAMS
        }
        renew = partial(_renew, kubeconfigs.values(), values)
        try:
            if values["install"]:
                install(api)
            renew()
            for kubeconfig in kubeconfigs.values():
                kubeconfig.write(api)
        except (InstallError, NoToken) as error:
            logger.error("%s", error)
            return 1
        programs = [
            Child(name, subprocess.Popen(arguments(name, values, kubeconfig.path)))  # noqa: S603 - our own
            for name, kubeconfig in kubeconfigs.items()
        ]
        return _supervise(programs, renew, stop)


def _renew(kubeconfigs: Iterable[ServiceAccountKubeconfig], values: Mapping[str, Any]) -> None:
    for each in kubeconfigs:
        each.renew_token(kubeconfig=values["kubeconfig"], context=values["context"])


def _supervise(programs: Sequence[Child], renew: Callable[[], None], stop: threading.Event) -> int:
    """Renew tokens until `stop` is set or one program ends; then stop both and return the exit code."""
    renew_at = time.monotonic() + RENEW_EVERY
    failed = False
    while not stop.wait(0.2):
        ended = [each for each in programs if each.process.poll() is not None]
        if ended:
            for each in ended:
                logger.error("%s ended with exit code %s", each.name, each.process.returncode)
            failed = True
            break
        if time.monotonic() >= renew_at:
            renew_at = time.monotonic() + (RENEW_EVERY if _try_renewal(renew) else 10)
    clean = _stop(programs)
    return 1 if failed or not clean else 0


def _try_renewal(renew: Callable[[], None]) -> bool:
    try:
        renew()
    except NoToken as error:
        logger.warning("tokens not renewed, the old ones stay in use: %s", error)
        return False
    return True


def _stop(programs: Sequence[Child]) -> bool:
    """Send SIGTERM, and after GRACE seconds SIGKILL. Whether all ended with exit code 0 without being killed."""
    for each in programs:
        if each.process.poll() is None:
            each.process.terminate()
    deadline = time.monotonic() + GRACE
    for each in programs:
        try:
            each.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.error("%s did not stop within %.0f s and was killed", each.name, GRACE)
            each.process.kill()
            each.process.wait()
    return all(each.process.returncode == 0 for each in programs)


def _stop_on_signals(stop: threading.Event) -> None:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
