"""Where the API server is and who we are, as kubectl and a pod know it. Loading is the official client's business.

No token is used for longer than it is good: the ServiceAccount's file in a pod and a kubeconfig's tokenFile are read
again every minute, a plugin is asked again before its token ends, and after a 401 everything is loaded anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from kms.cluster.errors import Misconfigured
from kms.cluster.service_account_token import AUTHORITY, TOKEN

RELOAD_SECONDS = 60.0
"""How long a token is used before its source is looked at again; client-go waits as long."""
RENEWAL_SECONDS = 1.0
"""The least time between two loads from scratch, however many requests are answered 401."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts the token of a pod's ServiceAccount."""

_HEADER = "BearerToken"  # the official client's name for the Authorization header

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Loads host, TLS files and token."""

    async def __call__(self, *, anew: bool) -> Configuration:
        """Load; with `anew` nothing that an earlier call learnt is relied on. Raises Misconfigured."""
        ...


class Connection:
    """An API server and our credentials for it. Its repr shows neither token nor key."""

    def __init__(
        self,
        configuration: Configuration,
        source: Source | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = str(configuration.host).rstrip("/")
        self.tls = _tls(configuration) if self.host.startswith("https://") else None
        self.server_hostname: str | None = configuration.tls_server_name
        self.proxy: str | None = configuration.proxy
        self._authorization = _authorization(configuration)
        self._certificate = configuration.cert_file
        self._source = source
        self._monotonic = monotonic
        self._loaded = monotonic()
        self._renewed = self._loaded - RENEWAL_SECONDS
        self._loading = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Connection({self.host})"

    @classmethod
    async def load(
        cls, *, kubeconfig: str | None = None, context: str | None = None, token_directory: Path | None = None
    ) -> Connection:
        """The connection that `kubectl --kubeconfig --context` would use; in a pod, that of its ServiceAccount.

        Where a `token_directory` is given, that of the ServiceAccount whose token lies there. Raises Misconfigured.
        """
        source = InPod(token_directory) if token_directory else source_of(kubeconfig=kubeconfig, context=context)
        return cls(await source(anew=True), source)

    async def authorization(self) -> str | None:
        """The value of the Authorization header, None where we authenticate by certificate or not at all."""
        due = self._monotonic() - self._loaded >= RELOAD_SECONDS
        # Whoever comes while one request reloads goes on with the old token, which is good for minutes yet.
        if due and self._source is not None and not self._loading.locked():
            async with self._loading:
                await self._reload(self._source, anew=False)
        return self._authorization

    async def renew(self, rejected: str | None) -> None:
        """Load everything anew, because the API server has answered 401 to `rejected`."""
        if self._source is None:
            return
        async with self._loading:
            if self._authorization == rejected and self._monotonic() - self._renewed >= RENEWAL_SECONDS:
                self._renewed = self._monotonic()
                await self._reload(self._source, anew=True)

    async def _reload(self, source: Source, *, anew: bool) -> None:
        self._loaded = self._monotonic()
        try:
            configuration = await source(anew=anew)
            if self.tls is not None and configuration.cert_file not in {None, self._certificate}:
                # A plugin has issued another client certificate: connections opened from now on use it.
                self.tls.load_cert_chain(configuration.cert_file, configuration.key_file)
                self._certificate = configuration.cert_file
        except (Misconfigured, OSError) as error:
            logger.warning("credentials not reloaded, going on with the old ones", extra={"error": str(error)})
        else:
            self._authorization = _authorization(configuration)


class InPod:
    """The ServiceAccount of the pod that we run in, or another one whose token is handed to us in a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or SERVICE_ACCOUNT

    async def __call__(self, *, anew: bool) -> Configuration:  # noqa: ARG002 - nothing is kept between loads
        """Read token and CA from the files that the kubelet keeps current. Raises Misconfigured."""
        configuration = Configuration()
        try:
            InClusterConfigLoader(
                token_filename=str(self._folder / TOKEN),
                cert_filename=str(self._folder / AUTHORITY),
                try_refresh_token=False,
            ).load_and_set(configuration)
        except (ConfigException, OSError) as error:
            raise Misconfigured(f"this is no pod with a ServiceAccount, and there is no kubeconfig: {error}") from error
        return configuration


class Kubeconfig:
    """A kubeconfig, or several joined by `:` as in $KUBECONFIG: tokens, files, certificates and exec plugins."""

    def __init__(self, path: str, context: str | None) -> None:
        self._path = path
        self._context = context
        self._loader: Any = None

    async def __call__(self, *, anew: bool) -> Configuration:
        """Read the file, or only what may have changed since: tokenFile, plugin, OIDC token. Raises Misconfigured."""
        configuration = Configuration()
        try:
            if anew or self._loader is None:
                self._loader = await load_kube_config(
                    self._path, self._context, client_configuration=configuration, persist_config=False
                )
            else:
                await self._loader.load_and_set(configuration)
        except yaml.YAMLError as error:  # its text may quote the file, and with it a token
            raise Misconfigured(f"kubeconfig {self._path} is not YAML") from error
        except ConfigException as error:
            raise Misconfigured(f"kubeconfig {self._path}: {error}") from error
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise Misconfigured(f"kubeconfig {self._path} cannot be used: {type(error).__name__}") from error
        return configuration


def source_of(*, kubeconfig: str | None, context: str | None) -> Source:
    """Where kubectl would take its credentials from; in a pod, its ServiceAccount. Raises Misconfigured."""
    path = kubeconfig_path(kubeconfig, environ=os.environ, home=Path.home())
    return InPod() if path is None else Kubeconfig(path, context)


def authority_of(configuration: Configuration) -> bytes:
    """The CA certificates (PEM) by which the API server is known. Raises Misconfigured where none are named."""
    if configuration.ca_cert_data:
        data = configuration.ca_cert_data
        return data.encode() if isinstance(data, str) else bytes(data)
    try:
        return Path(configuration.ssl_ca_cert or "").read_bytes()
    except OSError as error:
        raise Misconfigured(f"the CA of the API server is not known: {error}") from error


def kubeconfig_path(asked_for: str | None, *, environ: Mapping[str, str], home: Path) -> str | None:
    """The kubeconfig that kubectl would use: the one asked for, else $KUBECONFIG, else ~/.kube/config.

    None where there is none of them: then we are in a pod. Raises Misconfigured where the one named is not there.
    """
    named = asked_for or environ.get("KUBECONFIG")
    if named:
        if any(Path(each).expanduser().is_file() for each in named.split(os.pathsep) if each):
            return named
        raise Misconfigured(f"kubeconfig {named} does not exist")
    default = home / ".kube" / "config"
    return str(default) if default.is_file() else None


def _authorization(configuration: Configuration) -> str | None:
    token: str | None = configuration.api_key.get(_HEADER)
    return token.strip() if token else None


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    # The CAs of many clusters lack extensions that OpenSSL's strict mode asks for; client-go does not ask for them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
