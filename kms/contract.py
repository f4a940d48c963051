"""What the server and the operator must agree on and no resource defines.

The names of Secrets are in kms.resources.secret_names, those of the metrics of API calls in kms.cluster.metrics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from kms.address import Address
from kms.pki.policy import Policy, unlisted_names
from kms.resources.meta import condition
from kms.resources.profiles import AcmeEnrollment, CertificateProfile
from kms.resources.secret_names import SERVICE_NAME, nonce_secret_name, serving_secret_name

_PORT = re.compile(r":[0-9]+$")

Program = Literal["server", "operator"]

READY = "Ready"
"""The condition of all our kinds that says whether a resource can be used."""

OPEN_ENROLLMENT = "OpenEnrollment"
"""The condition of an open CertificateProfile: whether its namespace may have one (`AcmeEnrollment.is_open`)."""
WARNINGS = "Warnings"
"""The condition that is True while a part of a resource has no effect. Ready does not depend on it."""
DURATION_SHORTENED = "DurationShortened"
"""The condition that is True while certificates of a profile, or that of an order, end with their CA."""
TRUST_PUBLISHED = "TrustPublished"
"""The condition of a CertificateAuthority: whether its root is published as spec.trust says."""
NOTIFICATIONS = "Notifications"
"""The condition of a CertificateProfile or CertificateAuthority: whether its receiver gets what it is told."""
WAITING_FOR_CERTIFICATE = "WaitingForCertificate"
"""Its reason before the CA has a root, and that of Ready before a CA by request has its certificate."""
RENEWAL_DUE = "RenewalDue"
"""The condition that is True while a CertificateAuthority by request needs a new certificate."""
UNREADABLE = "Unreadable"
"""The reason of Ready and of Events where an object, or one that it refers to, does not fit its model."""

SERVING_LIST_PATH, SERVING_CA_PATH = "/crl/serving.crl", "/ca/serving.crt"
"""The revocation list and the certificate of the CA of the server's own certificate."""
KEY_ID = r"[0-9a-f]{2,128}"
"""Key identifiers that URLs of revocation lists and CA certificates have, as a regular expression."""
DEFAULT_HTTP_PORT = 8080
"""The port of --http-listen by default."""

LONGEST_REST = timedelta(hours=1)

ACME_PATH = "/acme"
"""What the paths of all profiles begin with."""

DELETION_RETENTION = timedelta(days=7)
"""The default of --deletion-retention."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that both programs have.

    `external_url` has no trailing slash and is the only source of URLs. `namespace` is the release namespace.
    `watch_namespaces` empty: all. `service_name` names the Service in front of the server, after which the Secrets and
    Leases of the installation are named. The Secret `serving_secret` holds the server's certificate. What belongs to a
    deleted CertificateAuthority, CertificateProfile or EABCredential is kept for `deletion_retention`. The process may
    load the PKCS #11 modules with the paths `pkcs11_modules`.
    """

    external_url: str
    namespace: str
    watch_namespaces: tuple[str, ...] = ()
    metrics_listen: Address = Address("", 9090)
    serving_secret: str = serving_secret_name(SERVICE_NAME)
    service_name: str = SERVICE_NAME
    deletion_retention: timedelta = DELETION_RETENTION
    kubeconfig: str | None = None
    context: str | None = None
    pkcs11_modules: tuple[str, ...] = ()

    @property
    def nonce_secret(self) -> str:
        """The Secret of the release namespace with the key of the nonces."""
        return nonce_secret_name(self.service_name)


def lease_name(service: str, program: Program) -> str:
    """The Lease of the release namespace that elects one replica of the program.

    It is named after the Service in front of the server, so that two installations in one namespace elect apart.
    """
    return f"{service}-{program}"


def service_account_name(program: Program) -> str:
    """The ServiceAccount of the program in deploy/rbac.yaml. The chart names its own after the release."""
    return f"kms-acme-{program}"


def profile_url(external_url: str, namespace: str, profile: str) -> str:
    """What all URLs of a profile begin with."""
    return f"{external_url}{ACME_PATH}/{namespace}/{profile}"


def directory_url(external_url: str, namespace: str, profile: str) -> str:
    """The ACME directory of a profile."""
    return f"{profile_url(external_url, namespace, profile)}/directory"


def minimum_rest(duration: timedelta) -> timedelta:
    """The least that a CA must have left to issue certificates of that duration: a tenth of it, at most an hour.

    Clients renew certificates before they end, so shorter ones would be renewed all the time.
    """
    return min(LONGEST_REST, duration / 10)


def default_http_url(external_url: str, http_port: int) -> str:
    """The URL of the server without TLS, on the host of the external URL.

    If that names a port, clients reach the server directly, on `http_port`; else on the standard port.
    """
    host = external_url.removeprefix("https://")
    port = _PORT.search(host)
    return f"http://{host}" if port is None else f"http://{host[: port.start()]}:{http_port}"


def revocation_list_url(http_url: str, namespace: str, authority: str, key_id: str | None) -> str:
    """The revocation list of a CertificateAuthority; for certificates, so by HTTP (RFC 5280, 4.2.1.13).

    `key_id`, in hexadecimal, is that of the key that signs the certificate; None: it has none.
    """
    return f"{http_url}/crl/{_of_key(namespace, authority, key_id)}.crl"


def ca_certificate_url(http_url: str, namespace: str, authority: str, key_id: str | None) -> str:
    """The certificate of a CertificateAuthority with that key; for certificates, so by HTTP (RFC 5280, 4.2.2.1)."""
    return f"{http_url}/ca/{_of_key(namespace, authority, key_id)}.crt"


def _of_key(namespace: str, authority: str, key_id: str | None) -> str:
    # An imported CA may have an identifier of any length.
    is_short = key_id is not None and re.fullmatch(KEY_ID, key_id)
    return f"{namespace}/{authority}/{key_id}" if is_short else f"{namespace}/{authority}"


def may_enroll(profile: CertificateProfile) -> bool:
    """Whether clients may use the profile as far as the operator decides that by the namespace of the profile.

    An open profile needs the operator's consent (condition OpenEnrollment): where there is none, it is denied. The
    consent is to the namespace, so it outlives changes of the profile.
    """
    acme = profile.spec.enrollment.acme
    if acme is None or not acme.is_open:
        return True
    consent = condition(profile.status.conditions, OPEN_ENROLLMENT)
    return consent is not None and consent.status == "True"


def objection_to_skipping(acme: AcmeEnrollment, policy: Policy) -> str | None:
    """Why the profile may not skip the validation of ownership; None if it may, or does not skip it."""
    if acme.validates_ownership:
        return None
    if acme.external_account_binding != "Required":
        return "ownershipValidation: Skipped needs externalAccountBinding: Required, or any client could get any name"
    if unlisted := unlisted_names(policy):
        return f"ownershipValidation: Skipped needs a policy that lists names; policy {policy.name} allows {unlisted}"
    return None


def may_offer(acme: AcmeEnrollment, policy: Policy | None) -> bool:
    """Whether a directory may offer certificates under the policy of another profile; None: it has no valid policy.

    A directory that skips the validation of ownership may do so only where that policy lists names, too.
    """
    return acme.validates_ownership or (policy is not None and unlisted_names(policy) is None)
