"""Kubeconfigs for the two programs: each acts under the token of its own ServiceAccount, never as the user.

The token is in a file beside the kubeconfig. It is renewed long before it expires, and the programs read it again.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes.client import ApiClient

from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.cluster.service_account_token import RENEWED_AFTER, TOKEN_SECONDS, Token, replace_privately

RENEW_EVERY = TOKEN_SECONDS * RENEWED_AFTER
"""Seconds between two tokens."""


class NoToken(Exception):
    """The API server issued no token; the message names the fix."""


@dataclass(frozen=True, slots=True)
class ServiceAccountKubeconfig:
    """The kubeconfig of a ServiceAccount: two files in `folder`."""

    service_account: str
    namespace: str
    folder: Path

    @property
    def path(self) -> Path:
        """The kubeconfig."""
        return self.folder / f"{self.service_account}.kubeconfig"

    @property
    def token(self) -> Path:
        """The token file that the kubeconfig names."""
        return self.folder / f"{self.service_account}.token"

    def renew_token(self, *, kubeconfig: str | None, context: str | None) -> None:
        """Request a new token, as the user of a kubeconfig, and replace the old one atomically.

        Raises NoToken if the ServiceAccount is missing or the user may not request its tokens.
        """
        try:
            token = asyncio.run(self._token(kubeconfig, context))
        except ClusterError as error:
            raise NoToken(
                f"no token for ServiceAccount {self.namespace}/{self.service_account} ({error});"
                " apply deploy/rbac.yaml, or start with --install"
            ) from error
        replace_privately(self.token, token.token.encode())

    async def _token(self, kubeconfig: str | None, context: str | None) -> Token:
        cluster = await Cluster.connect(kubeconfig=kubeconfig, context=context)
        try:
            return await cluster.create_token(self.namespace, self.service_account)
        finally:
            await cluster.close()

    def write(self, api: ApiClient) -> None:
        """Write the kubeconfig, for the API server of `api`."""
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
        replace_privately(self.path, yaml.safe_dump(config).encode())
