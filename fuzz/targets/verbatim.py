"""A CSR in DER that is to go to another CA unchanged."""

from __future__ import annotations

from fuzz.target import Target
from kms.pki.csr import MAXIMUM_REQUEST, InvalidRequest, parse_request
from kms.pki.verbatim import requested_usages, verbatim_violations
from kms.resources.compile import compile_policy
from kms.resources.meta import ObjectMeta
from kms.resources.policies import CertificatePolicy, PolicySpec

_USAGES = ("digital signature", "key encipherment", "server auth")
_POLICY = compile_policy(CertificatePolicy(metadata=ObjectMeta(namespace="pki", name="web"), spec=PolicySpec()))


def read(data: bytes) -> None:
    """Parse the CSR, check it, and read the usages of one that may go."""
    request = parse_request(data)
    violations = verbatim_violations(request, usages=_USAGES, subject={"organizations": ("Example",)}, policy=_POLICY)
    for each in violations:
        if not each.message.isprintable():
            raise AssertionError("the message has more than one line")
    if not violations and not requested_usages(request, _USAGES):
        raise AssertionError("no usages are asked for")


TARGET = Target(read, (InvalidRequest,), longest=MAXIMUM_REQUEST + 1)
