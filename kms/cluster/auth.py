"""The address of the API server and our credentials, from where kubectl or a pod takes them.

The official client loads them. No token is used after it has expired: a pod's token file and a kubeconfig's tokenFile
are read again every minute, a plugin is called again before its token expires, and a 401 reloads everything.
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

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts the token of a pod's ServiceAccount."""

_HEADER = "BearerToken"  # the official client's name for the Authorization header

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Loads host, TLS files and token."""

    async def __call__(self, *, anew: bool) -> Configuration:
        """Load; `anew` ignores what an earlier call has cached. Raises Misconfigured."""
        ...


class Connection:
    """An API server and our credentials for it. Its repr shows neither token nor key.

    A token is read again after `reload_after` seconds, as in client-go. However many requests are answered 401, there
    are `renew_after` seconds between two loads from scratch.
    """

    def __init__(
        self,
        configuration: Configuration,
        source: Source | None = None,
        *,
        reload_after: float = 60.0,
        renew_after: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = str(configuration.host).rstrip("/")
        self.tls = _tls(configuration) if self.host.startswith("https://") else None
        self.server_hostname: str | None = configuration.tls_server_name
        self.proxy: str | None = configuration.proxy
        self._authorization = _authorization(configuration)
        self._certificate = configuration.cert_file
        self._source = source
        self._reload_after = reload_after
        self._renew_after = renew_after
        self._monotonic = monotonic
        self._loaded = monotonic()
        self._renewed = self._loaded - renew_after
        self._loading = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Connection({self.host})"

    @classmethod
    async def load(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        token_directory: Path | None = None,
        service_account: Path = SERVICE_ACCOUNT,
    ) -> Connection:
        """The connection that `kubectl --kubeconfig --context` would use; in a pod, that of its ServiceAccount.

        With a `token_directory`, that of the ServiceAccount whose token is there. `service_account` is the folder of
        the pod's own. Raises Misconfigured.
        """
        source: Source
        if token_directory is not None:
            source = InPod(token_directory)
        else:
            source = source_of(kubeconfig=kubeconfig, context=context, service_account=service_account)
        return cls(await source(anew=True), source)

    async def authorization(self) -> str | None:
        """The value of the Authorization header; None with a client certificate, or without credentials."""
        due = self._monotonic() - self._loaded >= self._reload_after
        # While one request reloads, others use the old token, which is valid for some minutes more.
        if due and self._source is not None and not self._loading.locked():
            async with self._loading:
                await self._reload(self._source, anew=False)
        return self._authorization

    async def renew(self, rejected: str | None) -> None:
        """Load everything anew: the API server has answered 401 to `rejected`."""
        if self._source is None:
            return
        async with self._loading:
            if self._authorization == rejected and self._monotonic() - self._renewed >= self._renew_after:
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
            logger.warning("credentials not reloaded, the old ones stay in use", extra={"error": str(error)})
        else:
            self._authorization = _authorization(configuration)


class InPod:
    """The ServiceAccount whose token is in the folder: by default that of the pod."""

    def __init__(self, folder: Path = SERVICE_ACCOUNT) -> None:
        self._folder = folder

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
            raise Misconfigured(
                f"there is no kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config), and this is no pod: {error}"
            ) from error
        return configuration


class Kubeconfig:
    """A kubeconfig, or several joined by `:` as in $KUBECONFIG: tokens, files, certificates and exec plugins."""

    def __init__(self, path: str, context: str | None) -> None:
        self._path = path
        self._context = context
        self._loader: Any = None

    async def __call__(self, *, anew: bool) -> Configuration:
        """Read the file, or only what may have changed: tokenFile, plugin, OIDC token. Raises Misconfigured."""
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


def source_of(*, kubeconfig: str | None, context: str | None, service_account: Path = SERVICE_ACCOUNT) -> Source:
    """The source of kubectl's credentials; in a pod, its ServiceAccount. Raises Misconfigured."""
    path = kubeconfig_path(kubeconfig, environ=os.environ, home=Path.home())
    return InPod(service_account) if path is None else Kubeconfig(path, context)


def authority_of(configuration: Configuration) -> bytes:
    """The CA certificates (PEM) that the API server is verified with. Raises Misconfigured if there are none."""
    if configuration.ca_cert_data:
        data = configuration.ca_cert_data
        return data.encode() if isinstance(data, str) else bytes(data)
    try:
        return Path(configuration.ssl_ca_cert or "").read_bytes()
    except OSError as error:
        raise Misconfigured(f"no CA certificate of the API server: {error}") from error


def kubeconfig_path(requested: str | None, *, environ: Mapping[str, str], home: Path) -> str | None:
    """The kubeconfig that kubectl would use: the requested one, else $KUBECONFIG, else ~/.kube/config.

    None if there is none: then we are in a pod. Raises Misconfigured if the file that is named does not exist.
    """
    named = requested or environ.get("KUBECONFIG")
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
