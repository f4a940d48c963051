"""A CSR in DER (RFC 2986), its check against a policy, and a comparison with what cryptography reads."""

from __future__ import annotations

from contextlib import suppress

from cryptography import x509

from fuzz.target import Target
from kms.pki.csr import MAXIMUM_REQUEST, InvalidRequest, parse_request
from kms.pki.parsing import PARSER_ERRORS
from kms.pki.policy import request_violations
from kms.resources.compile import compile_policy
from kms.resources.meta import ObjectMeta
from kms.resources.policies import AttributeRules, CertificatePolicy, DNSNameRules, PolicySpec, SubjectRules, ValueRules

_RULES = AttributeRules(allowed=("a*z", "**.*.example"), denied=("*x*y*",), required=("**",))
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
    """Parse the CSR, then check it against the policy, and its names and signature against those of cryptography."""
    request = parse_request(data)
    for violation in request_violations(request, _POLICY, None):
        if not violation.message.isprintable():
            raise AssertionError("the message has more than one line")
    names, signed = _as_cryptography_reads(data)
    if not signed or not names <= {each.value for each in request.names}:
        raise AssertionError("cryptography reads another request")


def _as_cryptography_reads(data: bytes) -> tuple[set[str], bool]:
    """The alternative names, and whether the signature is valid; none and True for what cryptography refuses."""
    with suppress(*PARSER_ERRORS):
        request = x509.load_der_x509_csr(data)
        with suppress(x509.ExtensionNotFound):
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return {each.lower() for each in names.get_values_for_type(x509.DNSName)}, request.is_signature_valid
        return set(), request.is_signature_valid
    return set(), True


TARGET = Target(read, (InvalidRequest,), longest=MAXIMUM_REQUEST + 1)
