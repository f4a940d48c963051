"""CertificatePolicy: the rules that an incoming certificate request must satisfy."""

from __future__ import annotations

from typing import Literal

from kms.resources.meta import Condition, ObjectMeta, Struct


class ValueRules(Struct, frozen=True, kw_only=True):
    """Patterns for one kind of value. Deny wins over allow; each required pattern must match a value."""

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


class DNSNameRules(Struct, frozen=True, kw_only=True):
    """Patterns for DNS names; `wildcards` says whether a certificate for `*.name` may be requested at all."""

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    wildcards: Literal["Allow", "Deny"] = "Deny"


class SubjectRules(Struct, frozen=True, kw_only=True):
    """Patterns for each attribute of a requested subject; an attribute without rules may not be requested."""

    common_name: ValueRules | None = None
    organizations: ValueRules | None = None
    organizational_units: ValueRules | None = None
    countries: ValueRules | None = None
    localities: ValueRules | None = None
    provinces: ValueRules | None = None


class PolicySpec(Struct, frozen=True, kw_only=True):
    """Absent sections allow no names; the other defaults are in crds/."""

    dns_names: DNSNameRules | None = None
    ip_addresses: ValueRules | None = None
    subject: SubjectRules = SubjectRules(common_name=ValueRules(allowed=("**",)))
    usages: ValueRules = ValueRules(allowed=("digital signature", "key encipherment", "server auth", "client auth"))
    key_algorithms: tuple[str, ...] = ("ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096")
    signature_algorithms: tuple[str, ...] = ("ECDSA-SHA256", "ECDSA-SHA384", "RSA-SHA256", "RSA-SHA384", "RSA-SHA512")
    maximum_duration: str = "2160h"
    maximum_names: int = 100


class PolicyStatus(Struct, frozen=True, kw_only=True):
    """Whether the rules are valid, and why not."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()


class CertificatePolicy(Struct, frozen=True, kw_only=True):
    """`kpol`: a certificate policy."""

    metadata: ObjectMeta
    spec: PolicySpec
    status: PolicyStatus = PolicyStatus()
