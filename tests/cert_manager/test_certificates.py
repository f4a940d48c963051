"""Certificates over HTTP-01, with real solver pods: of one name, of many, of an address."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509

from tests.support.certmanager import Team


@pytest.mark.requirement("C1", "C10", "C11", "C14")
def test_a_certificate_of_one_name_becomes_ready(team: Team) -> None:
    enrollment = team.enrolls()
    team.expose("shop")
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")]))
    issued = team.issued("shop")
    assert issued.names == {team.name("shop")}
    leaf, issuing, _root = issued.verify(enrollment.chain, x509.DNSName(team.name("shop")))
    assert issued.chain == (leaf, issuing)
    assert not issued.ca, "what to trust is in chain.crt of the directory Secret, as docs/cert-manager.md says"
    (order,) = team.issued_orders()
    (authorization,) = order["status"]["authorizations"]
    assert {each["type"]: each["state"] for each in authorization["challenges"]} == {"http-01": "valid"}


@pytest.mark.requirement("C1", "C2")
def test_a_certificate_of_many_names_becomes_ready(team: Team) -> None:
    enrollment = team.enrolls()
    hosts = [f"shop-{number}" for number in range(3)]
    for each in hosts:
        team.expose(each)
    names = [team.name(each) for each in hosts]
    team.wait(team.certificate("shop", commonName=names[2], dnsNames=names))
    issued = team.issued("shop")
    assert issued.names == set(names)
    for each in names:
        issued.verify(enrollment.chain, x509.DNSName(each))
    (common_name,) = issued.leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert common_name.value == names[2]


@pytest.mark.requirement("C1", "IP-M1")
def test_a_certificate_of_a_service_address_becomes_ready(team: Team) -> None:
    address = team.expose("shop")
    enrollment = team.enrolls(policy={"ipAddresses": {"allowed": [f"{address}/32"]}})
    team.expose("shop", domain=address)
    team.wait(team.certificate("shop", ipAddresses=[address]))
    issued = team.issued("shop")
    assert issued.names == {address}
    issued.verify(enrollment.chain, x509.IPAddress(ip_address(address)))
