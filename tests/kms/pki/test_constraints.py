from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.x509 import verification
from hypothesis import example, given
from hypothesis import strategies as st

from kms.pki.ca import AuthorityTemplate, NameConstraints, chain_to_root_pem, intermediate, self_signed
from kms.pki.certificate import Signer, sign, sign_leaf
from kms.pki.constraints import constraint_violations, constraints_of
from kms.pki.names import Name, dns_name, ip_address
from tests.support.pki import DAY, NOW, key, leaf, root

TEN = ipaddress.ip_network("10.0.0.0/8")
TEN_ONE = ipaddress.ip_network("10.1.0.0/16")


def constrained(constraints: NameConstraints | None, *, above: Signer | None = None) -> Signer:
    """A CA with these constraints: a root, or one below another CA."""
    with_key = key(which="constrained")
    template = AuthorityTemplate(
        common_name="Constrained" if above else "Constrained Root",
        serial=7,
        not_before=NOW - DAY,
        not_after=NOW + 100 * DAY,
        constraints=constraints,
    )
    if above is None:
        return Signer(self_signed(template, with_key), with_key)
    return Signer(intermediate(template, with_key, above), with_key, (above.certificate, *above.issuers))


def objections(signer: Signer, *names: Name) -> list[str]:
    constraints = constraints_of(chain_to_root_pem(signer))
    return [each.message for each in constraint_violations(names, constraints)]


def test_a_chain_without_constraints_objects_to_nothing() -> None:
    assert constraints_of(chain_to_root_pem(root())) == ()
    assert objections(root(), dns_name("www.example.com")) == []


def test_an_objection_names_the_name_the_ca_and_the_rule() -> None:
    signer = constrained(NameConstraints(permitted_domains=("example.com",), excluded_domains=("secret.example.com",)))
    assert objections(signer, dns_name("www.example.com")) == []
    excluded, outside = objections(signer, dns_name("a.secret.example.com"), dns_name("www.example.org"))
    rule = 'by the nameConstraints of the CA "CN=Constrained Root"'
    assert excluded == f'DNS name "a.secret.example.com" is excluded {rule}: it is within secret.example.com'
    assert outside == f'DNS name "www.example.org" is not permitted {rule}: example.com'


def test_the_constraints_of_every_ca_of_the_chain_count() -> None:
    top = constrained(NameConstraints(permitted_domains=("example.com",)))
    signer = constrained(NameConstraints(excluded_domains=("dev.example.com",)), above=top)
    assert objections(signer, dns_name("www.example.com")) == []
    assert len(objections(signer, dns_name("dev.example.com"), dns_name("example.org"))) == 2


def test_addresses_are_constrained_by_networks() -> None:
    signer = constrained(NameConstraints(permitted_networks=(TEN,), excluded_networks=(TEN_ONE,)))
    assert objections(signer, ip_address("10.2.0.1"), dns_name("www.example.com")) == []
    assert objections(signer, ip_address("10.1.0.1"))[0].endswith("it is within 10.1.0.0/16")
    assert objections(signer, ip_address("192.0.2.1"))[0].endswith(": 10.0.0.0/8")
    assert len(objections(signer, ip_address("2001:db8::1"))) == 1


def with_domains(*domains: str) -> Signer:
    """A root as others make them, with spellings that we never write."""
    signer = root()
    value = x509.NameConstraints(permitted_subtrees=None, excluded_subtrees=[x509.DNSName(each) for each in domains])
    builder = (
        x509.CertificateBuilder()
        .subject_name(signer.certificate.subject)
        .issuer_name(signer.certificate.subject)
        .public_key(signer.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(value, critical=True)
    )
    return Signer(sign(builder, signer.key), signer.key)


def test_a_domain_with_a_dot_in_front_is_about_what_is_below_it() -> None:
    signer = with_domains(".Example.com")
    assert objections(signer, dns_name("example.com")) == []
    assert len(objections(signer, dns_name("www.example.com"))) == 1


def test_the_empty_domain_is_all_of_them() -> None:
    assert len(objections(with_domains(""), dns_name("example.com"))) == 1


def test_what_is_no_certificate_is_an_error() -> None:
    with pytest.raises(ValueError, match="PEM"):
        constraints_of("")


labels = st.sampled_from(["a", "b", "xa"])
domains = st.lists(labels, min_size=1, max_size=3).map(lambda parts: ".".join([*parts, "test"]))
some_domains = st.lists(domains, max_size=2, unique=True).map(tuple)


@given(name=domains, permitted=some_domains, excluded=some_domains)
@example(name="xa.test", permitted=("a.test",), excluded=())
def test_we_object_to_exactly_what_clients_refuse(
    name: str, permitted: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    signer = constrained(NameConstraints(permitted_domains=permitted, excluded_domains=excluded), above=root())
    certificate = sign_leaf(leaf(dns_name(name)), signer)
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([root().certificate]))
        .time(NOW + DAY / 2)
        .build_server_verifier(x509.DNSName(name))
    )
    try:
        verifier.verify(certificate, [signer.certificate])
    except verification.VerificationError:
        refused = True
    else:
        refused = False
    assert bool(objections(signer, dns_name(name))) == refused
