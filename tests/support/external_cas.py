"""External CAs in the release namespace of an installation: a role of OpenBao, and an issuer of cert-manager."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.serialization import Encoding

from e2e.support.enrollment import Enrollment, enrollment_of
from e2e.support.knot import TSIGKey
from e2e.support.pebble import PublicCA
from e2e.support.programs import RELEASE
from kms.pki.keys import private_key_pem
from kms.resources.kinds import AUTHORITIES, POLICIES, PROFILES
from tests.support.installation import ZONE, Installation
from tests.support.openbao import OpenBao
from tests.support.scripted_issuer import ANCHOR, FOREIGN_CA

ExternalKind = Literal["vault", "certManager", "signer"]
_TIMEOUT = "5m"


@dataclass(frozen=True)
class ExternalCA:
    """A CertificateAuthority with a profile, both of that name. `mount` is the engine of OpenBao."""

    kind: ExternalKind
    name: str
    enrollment: Enrollment
    mount: str = ""


@contextmanager
def external_ca(installation: Installation, name: str, external: Mapping[str, Any], *things: Any) -> Iterator[None]:
    """A CA of this spec and an open profile of the same name, both Ready; `things` are applied before."""
    cluster = installation.cluster
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(things)})
    if things:
        cluster.kubectl("apply", "--server-side", f"--namespace={RELEASE}", "--filename=-", stdin=listed)
    references = {"issuerRef": {"name": name}, "policyRef": {"name": name}}
    try:
        installation.apply(RELEASE, AUTHORITIES, {"external": {"timeout": _TIMEOUT, **external}}, name=name)
        installation.apply(RELEASE, POLICIES, {"dnsNames": {"allowed": [f"**.{ZONE}"]}}, name=name)
        acme = {"externalAccountBinding": "Disabled"}
        installation.apply(RELEASE, PROFILES, {**references, "enrollment": {"acme": acme}}, name=name)
        installation.wait(RELEASE, f"certificateprofile/{name}")
        yield
    finally:
        gone = (f"--namespace={RELEASE}", "--ignore-not-found", "--wait=false")
        cluster.kubectl("delete", "kprof,kpol,kca", name, *gone)
        if things:
            cluster.kubectl("delete", "--filename=-", *gone, stdin=listed)


@contextmanager
def vault_ca(installation: Installation, openbao: OpenBao, name: str = "vault") -> Iterator[ExternalCA]:
    """A CA whose certificates a role of OpenBao signs, with a token in a Secret."""
    mount = openbao.root_ca()
    token = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-token"}}
    token |= {"stringData": {"token": openbao.token(openbao.pki_policy(mount), ttl="6h")}}
    vault = {
        "server": openbao.url,
        "path": f"{mount}/sign/web",
        "caBundle": openbao.ca_bundle,
        "auth": {"tokenSecretRef": {"name": f"{name}-token", "key": "token"}},
    }
    with external_ca(installation, name, {"vault": vault}, token):
        yield ExternalCA("vault", name, enrollment_of(installation.cluster, RELEASE, name), mount)


def binding(name: str, role: str, kind: str = "RoleBinding") -> dict[str, Any]:
    """The binding of a ClusterRole to the server, in the release namespace or as ClusterRoleBinding."""
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{api}/v1",
        "kind": kind,
        "metadata": {"name": name},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "kms-acme-server", "namespace": RELEASE}],
    }


@contextmanager
def cert_manager_ca(installation: Installation, name: str = "cert-manager") -> Iterator[ExternalCA]:
    """A CA behind a CA issuer of cert-manager, which must run on the cluster."""
    pair = {
        "tls.crt": FOREIGN_CA.certificate.public_bytes(Encoding.PEM).decode(),
        "tls.key": private_key_pem(FOREIGN_CA.key).decode(),
        "ca.crt": ANCHOR,
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": f"{name}-ca"}}
    issuer = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}}
    things = (
        {**secret, "stringData": pair},
        {**issuer, "spec": {"ca": {"secretName": f"{name}-ca"}}},
        binding(name, "kms-acme-external-cert-manager"),
    )
    external = {"certManager": {"issuerRef": {"name": name}}, "trustAnchors": [ANCHOR]}
    with external_ca(installation, name, external, *things):
        yield ExternalCA("certManager", name, enrollment_of(installation.cluster, RELEASE, name))


@contextmanager
def acme_ca(
    installation: Installation, public: PublicCA, zone: str, *, nameserver: str, key: TSIGKey, name: str
) -> Iterator[ExternalCA]:
    """A CA behind an ACME issuer of cert-manager, which proves names of the zone by changing it (dns-01, RFC 2136)."""
    tsig = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-tsig"}}
    rfc2136 = {
        "nameserver": nameserver,
        "tsigKeyName": key.name,
        "tsigAlgorithm": "HMACSHA256",
        "tsigSecretSecretRef": {"name": f"{name}-tsig", "key": "secret"},
    }
    acme = {
        "server": public.directory_url,
        "caBundle": b64encode(public.tls_ca.encode()).decode(),
        "privateKeySecretRef": {"name": f"{name}-account"},
        "solvers": [{"selector": {"dnsZones": [zone]}, "dns01": {"rfc2136": rfc2136}}],
    }
    issuer = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}, "spec": {"acme": acme}}
    things = (
        {**tsig, "stringData": {"secret": key.secret}},
        issuer,
        binding(name, "kms-acme-external-cert-manager"),
    )
    external = {"certManager": {"issuerRef": {"name": name}}, "trustAnchors": [public.root]}
    with external_ca(installation, name, external, *things):
        yield ExternalCA("certManager", name, enrollment_of(installation.cluster, RELEASE, name))


@contextmanager
def signer_ca(installation: Installation, signer: str, *, name: str) -> Iterator[ExternalCA]:
    """A CA behind a signer of Kubernetes, whose program also approves, and signs as FOREIGN_CA."""
    rights = binding(name, "kms-acme-external-signer", "ClusterRoleBinding")
    external = {"signer": {"name": signer}, "trustAnchors": [ANCHOR]}
    with external_ca(installation, name, external, rights):
        yield ExternalCA("signer", name, enrollment_of(installation.cluster, RELEASE, name))
