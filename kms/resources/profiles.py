"""CertificateProfile: a policy, an issuing CA and an enrollment method."""

from __future__ import annotations

from typing import Literal

import msgspec

from kms.resources.authorities import FormerRoot, Subject
from kms.resources.meta import AllowedNamespaces, Condition, FreeForm, LocalRef, ObjectMeta, Struct, Time, check_depth
from kms.resources.notifications import Notifications

OPEN_ACCOUNT_RETENTION = "720h"
"""The default of accountRetention for profiles whose accounts need no external account binding."""


class CertificateContents(Struct, frozen=True, kw_only=True):
    """The contents of every certificate of the profile."""

    duration: str = "720h"
    usages: tuple[str, ...] = ("digital signature", "key encipherment", "server auth")
    subject: Subject = Subject()
    common_name: Literal["FirstName", "Requested", "None"] = "Requested"


class OrderProfile(Struct, frozen=True, kw_only=True):
    """An entry of a directory's `meta.profiles` (draft-ietf-acme-profiles), and the CertificateProfile behind it.

    Certificates, policy and CA are those of the CertificateProfile; enrollment follows the directory's own profile.
    """

    name: str
    description: str = ""
    profile_ref: LocalRef


class NamespacedIssuers(Struct, frozen=True, kw_only=True):
    """An Issuer of that name in each of these namespaces."""

    name: str
    namespaces: AllowedNamespaces = AllowedNamespaces()


class CertManager(Struct, frozen=True, kw_only=True):
    """The ClusterIssuer or Issuers for cert-manager; `solvers` are passed on unchanged."""

    cluster_issuer: LocalRef | None = None
    issuers: NamespacedIssuers | None = None
    email: str | None = None
    solvers: tuple[FreeForm, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for solvers that are nested too deeply."""
        check_depth(*self.solvers)


class DNSNameTemplates(Struct, frozen=True, kw_only=True):
    """Patterns for DNS names, in which `{namespace}` and `{labels.KEY}` stand for values of the clients' namespace."""

    allowed: tuple[str, ...] = ()
    wildcards: Literal["Allow", "Deny"] = "Deny"


class AddressTemplates(Struct, frozen=True, kw_only=True):
    """CIDR blocks with the same placeholders."""

    allowed: tuple[str, ...] = ()


class NamespaceNames(Struct, frozen=True, kw_only=True):
    """The names that the clients of one namespace may request, within the policy. None: not narrowed."""

    dns_names: DNSNameTemplates | None = None
    ip_addresses: AddressTemplates | None = None


class NamespaceSettings(Struct, frozen=True, kw_only=True):
    """The exceptions for the clients of one namespace; `names` take the place of those for all namespaces."""

    namespace: str
    suspended: bool = False
    names: NamespaceNames | None = None


class ClientNamespaces(AllowedNamespaces, frozen=True, kw_only=True):
    """Where EABCredentials may be created, and what the clients of each namespace may do, however they enroll."""

    names: NamespaceNames | None = None
    settings: tuple[NamespaceSettings, ...] = ()

    def settings_of(self, namespace: str) -> NamespaceSettings | None:
        """The exceptions for this namespace, if there are any."""
        for each in self.settings:
            if each.namespace == namespace:
                return each
        return None


class AcmeEnrollment(Struct, frozen=True, kw_only=True):
    """How ACME clients enroll with the profile."""

    challenges: tuple[Literal["http-01", "dns-01", "tls-alpn-01"], ...] = ("http-01",)
    external_account_binding: Literal["Required", "Optional", "Disabled"] = "Required"
    credential_deletion: Literal["SuspendAccounts", "KeepAccounts"] = "SuspendAccounts"
    ownership_validation: Literal["Required", "Skipped"] = "Required"
    allowed_namespaces: ClientNamespaces = ClientNamespaces()
    terms_of_service: str | None = None
    terms_of_service_changes: Literal["Ignore", "RequireAgreement"] = "Ignore"
    website: str | None = None
    caa_identities: tuple[str, ...] = ()
    caa: Literal["Off", "Report", "Enforce"] = "Off"
    order_lifetime: str = "24h"
    authorization_lifetime: str = "24h"
    account_retention: str | None = None
    maximum_orders: int | None = None
    maximum_order_bytes: int | None = None
    maximum_accounts: int | None = None
    maximum_credentials: int = 1_000
    pre_authorization: Literal["Enabled", "Disabled"] = "Disabled"
    profiles: tuple[OrderProfile, ...] = ()
    cert_manager: CertManager | None = None

    @property
    def is_open(self) -> bool:
        """Whether clients get certificates without a credential, or without proof of control."""
        return self.external_account_binding != "Required" or not self.validates_ownership

    @property
    def retention_of_accounts(self) -> str | None:
        """How long an account without orders is kept; None: forever. By default only where accounts cost nothing."""
        if self.account_retention is None and self.external_account_binding != "Required":
            return OPEN_ACCOUNT_RETENTION
        return self.account_retention

    @property
    def validates_ownership(self) -> bool:
        """Whether clients must prove control of the names that they order."""
        return self.ownership_validation == "Required"


class Enrollment(Struct, frozen=True, kw_only=True):
    """The enrollment method: exactly one member is set."""

    acme: AcmeEnrollment | None = None


class ProfileSpec(Struct, frozen=True, kw_only=True):
    """Certificates that were issued before `renew_issued_before` are to be renewed from then on."""

    issuer_ref: LocalRef
    policy_ref: LocalRef
    description: str = ""
    certificate: CertificateContents = CertificateContents()
    renew_issued_before: Time | None = None
    enrollment: Enrollment = Enrollment()
    notifications: Notifications | None = None


class ProfileStatus(Struct, frozen=True, kw_only=True):
    """Where clients enroll, which namespaces are suspended, and whether the profile is ready.

    `issuer_ref` is the CA that issues: it follows that of the spec once clients can know its root. `root` (PEM) is the
    root that clients are told to trust, and `former_roots` are earlier ones that have not expired, the latest first.
    """

    observed_generation: int | None = None
    issuer_ref: LocalRef | None = None
    root: str | None = None
    former_roots: tuple[FormerRoot, ...] = ()
    directory_url: str | None = msgspec.field(default=None, name="directoryURL")
    suspended_namespaces: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()


class CertificateProfile(Struct, frozen=True, kw_only=True):
    """`kprof`: a certificate profile; each has an ACME directory of its own."""

    metadata: ObjectMeta
    spec: ProfileSpec
    status: ProfileStatus = ProfileStatus()

    @property
    def issuer_name(self) -> str:
        """The name of the CA that issues, in the namespace of the profile."""
        return (self.status.issuer_ref or self.spec.issuer_ref).name

    @property
    def cert_manager(self) -> CertManager | None:
        """The section for cert-manager; None if it is absent."""
        acme = self.spec.enrollment.acme
        return acme.cert_manager if acme is not None else None
