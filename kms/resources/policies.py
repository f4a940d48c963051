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


class AttributeRules(Struct, frozen=True, kw_only=True):
    """Patterns for the values of one attribute of a requested subject, and what happens to other values.

    Without a word, a request with another value is refused.
    """

    requested: Literal["Allow", "Require", "Deny", "LeaveOut"] | None = None
    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


class SubjectRules(Struct, frozen=True, kw_only=True):
    """Rules for each attribute of a requested subject, and what happens to attributes without rules."""

    common_name: AttributeRules | None = None
    organizations: AttributeRules | None = None
    organizational_units: AttributeRules | None = None
    countries: AttributeRules | None = None
    localities: AttributeRules | None = None
    provinces: AttributeRules | None = None
    other_attributes: Literal["LeaveOut", "Deny"] = "LeaveOut"


class PolicySpec(Struct, frozen=True, kw_only=True):
    """Absent sections allow no names; the other defaults are in crds/.

    Without `signature_algorithms`, those of the key algorithms are allowed.
    """

    dns_names: DNSNameRules | None = None
    ip_addresses: ValueRules | None = None
    subject: SubjectRules = SubjectRules(common_name=AttributeRules(allowed=("**",)))
    usages: ValueRules = ValueRules(allowed=("digital signature", "key encipherment", "server auth", "client auth"))
    key_algorithms: tuple[str, ...] = ("ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096")
    signature_algorithms: tuple[str, ...] = ()
    maximum_duration: str = "2160h"
    maximum_names: int = 100


class PolicyStatus(Struct, frozen=True, kw_only=True):
    """Whether the rules are valid, and why not. `dns_names` is for people: the allowed DNS names in one text.

    It is None only where no operator has written it: empty if no name is allowed.
    """

    observed_generation: int | None = None
    dns_names: str | None = None
    conditions: tuple[Condition, ...] = ()


class CertificatePolicy(Struct, frozen=True, kw_only=True):
    """`kpol`: a certificate policy."""

    metadata: ObjectMeta
    spec: PolicySpec
    status: PolicyStatus = PolicyStatus()
