"""A CSR in DER (RFC 2986), and its check against a policy."""

from __future__ import annotations

from fuzz.target import Target
from kms.pki.csr import MAXIMUM_REQUEST, InvalidRequest, parse_request
from kms.pki.policy import request_violations
from kms.resources.compile import compile_policy
from kms.resources.meta import ObjectMeta
from kms.resources.policies import CertificatePolicy, DNSNameRules, PolicySpec, SubjectRules, ValueRules

_RULES = ValueRules(allowed=("a*z", "**.*.example"), denied=("*x*y*",), required=("**",))
_POLICY = compile_policy(
    CertificatePolicy(
        metadata=ObjectMeta(namespace="pki", name="web"),
        spec=PolicySpec(
            dns_names=DNSNameRules(allowed=("**.example.com",), denied=("*db*.**",), required=("www.**",)),
            ip_addresses=ValueRules(allowed=("10.0.0.0/8", "2001:db8::/32")),
            subject=SubjectRules(common_name=_RULES, organizations=_RULES),
        ),
    )
)


def read(data: bytes) -> None:
    """Parse the CSR, then check it against the policy."""
    for violation in request_violations(parse_request(data), _POLICY, None):
        if not violation.message.isprintable():
            raise AssertionError("the message has more than one line")


TARGET = Target(read, (InvalidRequest,), longest=MAXIMUM_REQUEST + 1)
