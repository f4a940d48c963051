from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.orders import policy
from acme_server.orders.certificate_template import template
from acme_server.orders.lifetimes import BACKDATE
from acme_server.urls import URLs
from kms.pki.certificate import LeafTemplate
from kms.resources.authorities import Subject
from kms.resources.orders import ACMEOrder
from kms.resources.profiles import CertificateContents
from tests.support import pki
from tests.support.acme import EXTERNAL_URL
from tests.support.acmeorders import NOW, order
from tests.support.domain import World

FAR = NOW + timedelta(days=3650)
LONG = "y" * 53 + ".example.com"
"""65 characters, one more than a common name has."""


def build_template(world: World, der: bytes | None = None, for_: ACMEOrder | None = None) -> LeafTemplate:
    request = policy.parse_csr(der or pki.csr("www.example.com"))
    return template(for_ or order(), request, world.profile, base=NOW, ca_not_after=FAR, urls=URLs(EXTERNAL_URL))


@pytest.mark.requirement("SEC35")
async def test_the_same_order_and_request_give_the_same_certificate(world: World) -> None:
    der = pki.csr("www.example.com")
    assert build_template(world, der) == build_template(world, der)
    assert (
        build_template(world, der).serial
        != build_template(world, pki.csr("www.example.com", common_name="www.example.com")).serial
    )


@pytest.mark.requirement("M107", "PROF-M7", "SEC29")
async def test_names_come_from_the_order_and_the_rest_from_the_profile(world: World) -> None:
    world.configure(
        contents=CertificateContents(
            duration="48h", usages=("digital signature", "client auth"), subject=Subject(organizations=("Example",))
        )
    )
    leaf = build_template(world, pki.csr("b.example.com", "a.example.com"), order("a.example.com", "b.example.com"))
    assert [name.value for name in leaf.names] == ["a.example.com", "b.example.com"]
    assert leaf.usages == {"digital signature", "client auth"}
    assert leaf.subject == {"organizations": ("Example",)}
    assert leaf.not_before == NOW - BACKDATE
    assert leaf.not_after == NOW - BACKDATE + timedelta(hours=48)


@pytest.mark.parametrize(
    ("rule", "asked", "expected"),
    [
        ("Requested", "www.example.com", "www.example.com"),
        ("Requested", None, None),
        ("FirstName", None, "www.example.com"),
        ("None", "www.example.com", None),
    ],
)
async def test_the_common_name_follows_the_profiles_rule(
    world: World, rule: str, asked: str | None, expected: str | None
) -> None:
    world.configure(contents=CertificateContents(common_name=rule))  # type: ignore[arg-type]
    assert build_template(world, pki.csr("www.example.com", common_name=asked)).common_name == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([LONG], None),
        ([LONG, "www.example.com", "api.example.com"], "www.example.com"),
        ([LONG, "x" * 52 + ".example.com"], "x" * 52 + ".example.com"),
    ],
)
async def test_the_common_name_is_the_first_name_that_fits(
    world: World, names: list[str], expected: str | None
) -> None:
    world.configure(contents=CertificateContents(common_name="FirstName"))
    assert build_template(world, pki.csr(*names), order(*names)).common_name == expected


@pytest.mark.requirement("M108")
async def test_requested_dates_are_taken_as_they_are(world: World) -> None:
    plain = order()
    wanted = replace(plain, spec=replace(plain.spec, not_before=NOW, not_after=NOW + timedelta(days=2)))
    leaf = build_template(world, for_=wanted)
    assert (leaf.not_before, leaf.not_after) == (NOW, NOW + timedelta(days=2))


@pytest.mark.requirement("SEC31")
async def test_a_certificate_never_outlives_its_ca(world: World) -> None:
    request = policy.parse_csr(pki.csr("www.example.com"))
    soon = NOW + timedelta(days=1)
    assert (
        template(order(), request, world.profile, base=NOW, ca_not_after=soon, urls=URLs(EXTERNAL_URL)).not_after
        == soon
    )
    plain = order()
    wanted = replace(plain, spec=replace(plain.spec, not_after=NOW + timedelta(days=2)))
    with pytest.raises(ValueError, match="after the end"):
        template(wanted, request, world.profile, base=NOW, ca_not_after=soon, urls=URLs(EXTERNAL_URL))


@pytest.mark.requirement("SEC15")
async def test_a_certificate_says_where_the_list_and_the_certificate_of_its_ca_are(world: World) -> None:
    leaf = build_template(world)
    key_id = world.profile.authority.status.subject_key_id
    assert leaf.crl_url == f"http://acme.example.com/crl/pki/ca/{key_id}.crl"
    assert leaf.ca_url == f"http://acme.example.com/ca/pki/ca/{key_id}.crt"
