"""cert-manager on a node with our chart, and a team that uses it.

    team.enrolls()
    team.expose("shop")
    team.certificate("shop", dnsNames=[team.name("shop")])
    team.wait("certificate/shop")
    leaf = team.issued("shop").leaf

`shop.NAMESPACE.svc.cluster.local` is a Service for the solver pods that cert-manager starts for this name.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from e2e.cluster import CommandFailed
from e2e.cluster.node import CertManager
from e2e.support.enrollment import Enrollment, enrollment_of, secret
from kms.pki.keys import PrivateKey, load_private_key
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES
from tests.support.installation import PROFILE
from tests.support.manifests import Manifest, text
from tests.support.release import Release

CERT_MANAGER = CertManager(minimum_backoff="10s", maximum_backoff="10s")
"""cert-manager for tests: its defaults, with a shorter back-off."""
API = "cert-manager.io/v1"
ISSUER = "kms-acme"
"""The name of a team's issuer."""
ACCOUNT = "kms-acme-account"
"""The Secret of its account key."""
HTTP01: Sequence[Mapping[str, Any]] = (
    {"http01": {"ingress": {"ingressClassName": "none", "serviceType": "ClusterIP"}}},
)
"""A solver with pods and an Ingress that no controller serves."""
TRUSTED: Mapping[str, Any] = {"ownershipValidation": "Skipped"}
"""A profile without validation, for tests of other features."""
_STORY = ("issuers", "certificates", "certificaterequests", "orders.acme.cert-manager.io", "challenges", "acmeorders")
_ENCODED = re.compile(r"[A-Za-z0-9+/=]{60}|-----(BEGIN|END) ")
"""CSRs and certificates, to leave out of descriptions."""

Spec = Mapping[str, Any]


def manifest(api: str, kind: str, name: str, spec: Spec) -> Manifest:
    """The manifest of an object with a spec."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The EAB credential of an issuer."""

    namespace: str
    key_id: str
    secret: str

    @property
    def binding(self) -> dict[str, Any]:
        """The `externalAccountBinding` of an issuer."""
        return {"keyID": self.key_id, "keySecretRef": {"name": self.secret, "key": "secret"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The Secret of a Certificate."""

    key: PrivateKey
    chain: tuple[x509.Certificate, ...]
    ca: str

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself."""
        return self.chain[0]

    @property
    def names(self) -> set[str]:
        """All its DNS names and IP addresses."""
        extension = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {str(each.value) for each in extension}

    def verify(self, trusted: str, name: x509.DNSName | x509.IPAddress) -> Sequence[x509.Certificate]:
        """Verify the certificate with the chain in the Secret and the `trusted` roots (PEM); returns the path.

        Raises:
            VerificationError: there is no path, or the certificate is not valid for this name now.
        """
        assert self.leaf.public_key() == self.key.public_key()
        roots = [each for each in x509.load_pem_x509_certificates(trusted.encode()) if each.issuer == each.subject]
        verifier = PolicyBuilder().store(Store(roots)).time(datetime.now(UTC)).build_server_verifier(name)
        return verifier.verify(self.leaf, list(self.chain[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A namespace on a cluster with cert-manager and our chart."""

    release: Release
    namespace: str

    def kubectl(self, *args: str, stdin: str | None = None, limit: float = 180) -> str:
        """Run kubectl in the namespace, for `limit` seconds at most.

        Raises:
            CommandFailed: it failed.
        """
        return self.release.cluster.kubectl(f"--namespace={self.namespace}", *args, stdin=stdin, limit=limit)

    def name(self, host: str) -> str:
        """The DNS name of a Service of the team, which its policy allows."""
        return f"{host}.{self.namespace}.svc.cluster.local"

    # Objects of kms-acme

    def profile(
        self,
        *,
        authority: Spec | None = None,
        policy: Spec | None = None,
        certificate: Spec | None = None,
        **acme: Any,
    ) -> Enrollment:
        """Create a CA below a root, a policy for the names of the namespace, and a profile; wait until Ready.

        `authority` is the spec of another CA; `policy` and `certificate` are further members of the policy's spec and
        of the profile's certificate section.
        """
        root = {"internal": {"subject": {"commonName": f"Root of {self.namespace}"}}}
        below = {"subject": {"commonName": f"CA of {self.namespace}"}, "issuerRef": {"name": "root"}}
        issuing = authority or {"internal": {**below, "duration": "43800h"}}
        names = {"dnsNames": {"allowed": [f"**.{self.namespace}.svc.cluster.local"]}}
        enrollment = {"issuerRef": {"name": PROFILE}, "policyRef": {"name": PROFILE}, "enrollment": {"acme": acme}}
        self.write(
            manifest(AUTHORITIES.api_version, AUTHORITIES.kind, "root", root),
            manifest(AUTHORITIES.api_version, AUTHORITIES.kind, PROFILE, issuing),
            manifest(POLICIES.api_version, POLICIES.kind, PROFILE, {**names, **(policy or {})}),
            manifest(PROFILES.api_version, PROFILES.kind, PROFILE, {**enrollment, "certificate": certificate or {}}),
        )
        self.wait(f"certificateprofile/{PROFILE}")
        return self.enrollment

    @property
    def enrollment(self) -> Enrollment:
        """Read the directory Secret of the profile."""
        return enrollment_of(self.release.cluster, self.namespace, PROFILE)

    def credential(self, *, namespace: str = "", name: str = PROFILE, **spec: Any) -> Credential:
        """Create an EABCredential for the team's profile, perhaps in another namespace; wait until Ready."""
        where = namespace or self.namespace
        reference = {"name": PROFILE, "namespace": self.namespace}
        self.release.apply(where, CREDENTIALS, {"profileRef": reference, **spec}, name=name)
        self.release.wait(where, f"eabcredential/{name}")
        key_id = secret(self.release.cluster, where, f"{name}-eab")["kid"]
        return Credential(namespace=where, key_id=key_id, secret=f"{name}-eab")

    # Objects of cert-manager

    def issuer_spec(self, credential: Credential, solvers: Sequence[Spec] = HTTP01, **acme: Any) -> dict[str, Any]:
        """The `spec.acme` of an issuer for the team's profile; `acme` adds or replaces members."""
        enrollment = self.enrollment
        return {
            "server": enrollment.directory_url,
            "caBundle": base64.b64encode(enrollment.authority.encode()).decode(),
            "externalAccountBinding": credential.binding,
            "privateKeySecretRef": {"name": ACCOUNT},
            "solvers": list(solvers),
            **acme,
        }

    def issuer(self, acme: Spec, *, name: str = ISSUER) -> str:
        """Create or change an Issuer; returns its name for `wait`."""
        return self.apply("Issuer", name, {"acme": acme})

    def enrolls(self, solvers: Sequence[Spec] = HTTP01, *, issuer: Spec | None = None, **profile: Any) -> Enrollment:
        """Create a profile, a credential and an Issuer; wait until Ready.

        `issuer` has further members of the Issuer's `spec.acme`; `profile` are the arguments of profile().
        """
        enrollment = self.profile(**profile)
        self.wait(self.issuer(self.issuer_spec(self.credential(), solvers, **(issuer or {}))))
        return enrollment

    def certificate(self, name: str, **spec: Any) -> str:
        """Create or change a Certificate; returns its name for `wait`. `spec` has its names and options."""
        defaults = {"secretName": f"{name}-tls", "issuerRef": {"name": ISSUER, "kind": "Issuer"}}
        return self.apply("Certificate", name, {**defaults, **spec})

    def renew(self, name: str) -> None:
        """Request a renewal as `cmctl renew` does, and wait until it is complete."""
        status = self.object("certificate", name)["status"]
        asked = {
            "type": "Issuing",
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "Certificate re-issuance manually triggered",
            "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        conditions = [*(each for each in status["conditions"] if each["type"] != "Issuing"), asked]
        patch = json.dumps({"status": {"conditions": conditions}})
        self.kubectl("patch", "certificate", name, "--subresource=status", "--type=merge", f"--patch={patch}")
        self.wait(f"certificate/{name}", f"jsonpath={{.status.revision}}={status['revision'] + 1}")

    def expose(self, host: str, *, domain: str = "") -> str:
        """Create a Service for the solver pods of its name, or of another domain; returns its address."""
        selector = {"acme.cert-manager.io/http-domain": str(zlib.adler32((domain or self.name(host)).encode()))}
        spec = {"selector": selector, "ports": [{"port": 80, "targetPort": 8089}]}
        self.apply("Service", host, spec, api="v1")
        return str(self.object("service", host)["spec"]["clusterIP"])

    def apply(self, kind: str, name: str, spec: Spec, *, api: str = API) -> str:
        """Create or change an object; returns its name for `wait`, such as "certificate/web"."""
        self.write(manifest(api, kind, name, spec))
        return f"{kind.lower()}/{name}"

    def write(self, *manifests: Manifest) -> None:
        """Create or change objects."""
        self.kubectl("apply", "--server-side", "--filename=-", stdin=text(*manifests))

    # Results

    def wait(self, thing: str, until: str = "condition=Ready", *, limit: int = 90) -> None:
        """Run `kubectl wait --for=UNTIL`.

        Raises:
            CommandFailed: the condition was not met; the error has a description of all objects.
        """
        try:
            self.kubectl("wait", f"--for={until}", f"--timeout={limit}s", thing, limit=limit + 30)
        except CommandFailed as failed:
            failed.add_note(self.story())
            raise

    def object(self, resource: str, name: str) -> dict[str, Any]:
        """Read an object of the namespace."""
        return self.release.object(resource, self.namespace, name)

    def objects(self, resource: str) -> list[dict[str, Any]]:
        """Read all objects of a resource in the namespace."""
        return self.release.objects(resource, self.namespace)

    def issued_orders(self) -> list[dict[str, Any]]:
        """The valid ACMEOrders; cert-manager may abandon other orders after a write conflict."""
        return [each for each in self.objects("acmeorders") if each.get("status", {}).get("state") == "valid"]

    def proven_challenge_types(self) -> list[str]:
        """The challenge type that proved each name of the one issued order."""
        (order,) = self.issued_orders()
        return [
            challenge["type"]
            for authorization in order["status"]["authorizations"]
            for challenge in authorization["challenges"]
            if challenge["state"] == "valid"
        ]

    def describe(self, *things: str) -> str:
        """Run `kubectl describe`."""
        return self.kubectl("describe", *things)

    def condition(self, resource: str, name: str, type_: str) -> dict[str, Any]:
        """A condition of an object; empty if it has none of this type."""
        conditions = self.object(resource, name).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == type_), {})

    def issued(self, certificate: str) -> Issued:
        """Read the Secret of a Ready Certificate."""
        data = secret(self.release.cluster, self.namespace, f"{certificate}-tls")
        chain = x509.load_pem_x509_certificates(data["tls.crt"].encode())
        key = load_private_key(data["tls.key"].encode())
        return Issued(key=key, chain=tuple(chain), ca=data.get("ca.crt", ""))

    def story(self) -> str:
        """Describe all objects from the issuer to our orders, to explain a failure."""
        try:
            told = self.describe(",".join(_STORY))
        except CommandFailed as error:  # cert-manager deletes requests that have failed
            told = f"{error}\n{self.kubectl('get', ','.join(_STORY), '--output=yaml')}"
        return "\n".join(each for each in told.splitlines() if not _ENCODED.search(each))
