"""Certificate requests of clients that put more into them than names: they get a certificate, and the order says what
was left out of it.
"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from kms.resources.kinds import ORDERS
from kms.resources.policies import AttributeRules, DNSNameRules, PolicySpec, SubjectRules, ValueRules
from kms.resources.profiles import CertificateContents
from tests.support import csrs
from tests.support.csrs import SEQUENCE, alternative_names, extension, oid, request, subject, tlv
from tests.support.server import Server

WEB = "www.example.com"
MUST_STAPLE = extension("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x05")
CODE_SIGNING = extension("2.5.29.37", tlv(SEQUENCE, oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.3")))
NAMES = DNSNameRules(allowed=("**.example.com",))


async def issue(server: Server, der: bytes, **members: Any) -> tuple[x509.Certificate, tuple[str, ...]]:
    """The certificate for the request, and what the order says was left out."""
    finalized = await server.finalize(await server.ready(WEB, **members), der)
    assert finalized.status == 200, finalized.text
    certificate = await server.certificate(finalized)
    (key,) = server.world.stored_orders()
    stored = server.world.api.read(ORDERS, *key)
    assert stored is not None
    (ready,) = stored.status.conditions
    assert ("status.leftOut" in ready.message) == bool(stored.status.left_out)
    return certificate, stored.status.left_out


@pytest.mark.requirement("SEC29")
@pytest.mark.parametrize(
    ("der", "left_out"),
    [
        (csrs.certbot(), ()),
        (csrs.acme_client_of_ruby(), ()),
        (
            csrs.crypt_le(),
            ('provinces "State"', 'organizations "Organization"', 'countries "US"', 'localities "City"'),
        ),
        (
            csrs.openssl(),
            (
                'countries "AU"',
                'provinces "Some-State"',
                'organizations "Internet Widgits Pty Ltd"',
                'emailAddress "admin@example.com"',
                "usage content commitment",
            ),
        ),
        (
            request(alternative_names(WEB), MUST_STAPLE, CODE_SIGNING),
            ("usage code signing", "extension 1.3.6.1.5.5.7.1.24 (tlsfeature, OCSP must-staple)"),
        ),
    ],
)
async def test_a_client_gets_its_certificate(server: Server, der: bytes, left_out: tuple[str, ...]) -> None:
    certificate, told = await issue(server, der)
    assert told == left_out
    assert {each.oid for each in certificate.subject} <= {x509.oid.NameOID.COMMON_NAME}
    assert [each.oid.dotted_string for each in certificate.extensions if each.oid.dotted_string in left_out] == []
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


async def test_acme_sh_gets_a_certificate_for_an_address(server: Server) -> None:
    server.world.configure(policy=PolicySpec(ip_addresses=ValueRules(allowed=("10.0.0.0/8",))))
    der = csrs.acme_sh((csrs.IP, b"\x0a\x00\x00\x01"))
    certificate, left_out = await issue(server, der, identifiers=[{"type": "ip", "value": "10.0.0.1"}])
    assert left_out == ('organizations "acme.sh"', "usage client auth")
    assert len(certificate.subject) == 0


async def test_what_policy_and_profile_certify_is_not_left_out(server: Server) -> None:
    rules = SubjectRules(organizations=AttributeRules(allowed=("Org*",)), countries=AttributeRules(requested="Allow"))
    server.world.configure(
        policy=PolicySpec(dns_names=NAMES, subject=rules, usages=ValueRules(allowed=("signing", "server auth"))),
        contents=CertificateContents(usages=("signing", "server auth"), common_name="FirstName"),
    )
    certificate, left_out = await issue(server, csrs.crypt_le())
    assert left_out == ('provinces "State"', 'localities "City"')
    assert [each.value for each in certificate.subject] == ["US", "Organization", WEB]


@pytest.mark.requirement("S114")
async def test_a_policy_can_refuse_what_it_does_not_certify(server: Server) -> None:
    server.world.configure(policy=PolicySpec(dns_names=NAMES, subject=SubjectRules(other_attributes="Deny")))
    order = await server.ready(WEB)
    refused = await server.finalize(order, csrs.openssl())
    assert (refused.status, refused.problem["type"]) == (400, "badCSR")
    assert "spec.subject.otherAttributes" in refused.problem["detail"]
    assert (await server.finalize(order, csrs.certbot())).status == 200


async def test_a_password_in_the_request_is_nowhere(server: Server) -> None:
    _, left_out = await issue(server, csrs.openssl())
    assert not any("secret" in each for each in left_out)


@pytest.mark.requirement("SEC72")
async def test_an_order_says_at_most_a_kilobyte_of_what_was_left_out(server: Server) -> None:
    name = subject(*[("2.5.4.13", csrs.UTF8, f"{number}\u20ac".encode() * 60) for number in range(30)])
    _, left_out = await issue(server, request(alternative_names(WEB), name=name))
    assert len("".join(left_out).encode()) < 1_100
    assert left_out[-1].startswith("and ")
    assert left_out[-1].endswith(" more")
    assert len(left_out) - 1 + int(left_out[-1].split()[1]) == 30
