"""Kubeconfigs for the two programs: each acts under the token of its own ServiceAccount, never as the user.

The token lies in a file beside the kubeconfig and is renewed long before it expires; the programs read it again.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes import client
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

TOKEN_LIFETIME = 3600
"""Seconds that a token is asked for."""
RENEW_EVERY = TOKEN_LIFETIME / 3
"""Seconds after which a new token replaces it."""


class IdentityError(Exception):
    """No token could be had; the message names the fix."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One ServiceAccount and the files that let a program act as it."""

    service_account: str
    namespace: str
    folder: Path

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig to hand to the program."""
        return self.folder / f"{self.service_account}.kubeconfig"

    @property
    def token(self) -> Path:
        """The file that the kubeconfig names for the token."""
        return self.folder / f"{self.service_account}.token"

    def renew(self, api: ApiClient) -> None:
        """Ask for a new token and put it in place of the old one, in one step.

        Raises IdentityError where the ServiceAccount is missing or the user may not ask for its tokens.
        """
        request = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=TOKEN_LIFETIME)
        )
        try:
            answer = client.CoreV1Api(api).create_namespaced_service_account_token(
                name=self.service_account, namespace=self.namespace, body=request
            )
        except ApiException as error:
            raise IdentityError(
                f"no token for ServiceAccount {self.namespace}/{self.service_account} ({error.status} {error.reason});"
                " apply deploy/rbac.yaml, or start with --install"
            ) from error
        if answer.status is None or not answer.status.token:
            raise IdentityError(
                f"the API server gave no token for ServiceAccount {self.namespace}/{self.service_account}"
            )
        _write_privately(self.token, answer.status.token)

    def write_kubeconfig(self, api: ApiClient) -> None:
        """Write a kubeconfig for the same API server that names the token's file."""
        cluster: dict[str, object] = {"server": api.configuration.host}
        if api.configuration.ssl_ca_cert:
            authority = Path(api.configuration.ssl_ca_cert).read_bytes()
            cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
        if not api.configuration.verify_ssl:
            cluster["insecure-skip-tls-verify"] = True
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "kms-acme",
            "clusters": [{"name": "kms-acme", "cluster": cluster}],
            "users": [{"name": self.service_account, "user": {"tokenFile": str(self.token)}}],
            "contexts": [{"name": "kms-acme", "context": {"cluster": "kms-acme", "user": self.service_account}}],
        }
        _write_privately(self.kubeconfig, yaml.safe_dump(config))


def _write_privately(path: Path, text: str) -> None:
    """Replace the file in one step; nobody but its owner may read it."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
