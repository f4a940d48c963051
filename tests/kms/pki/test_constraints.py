from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification
from hypothesis import example, given
from hypothesis import strategies as st

from kms.pki.ca import AuthorityTemplate, NameConstraints, chain_to_root_pem, intermediate, self_signed
from kms.pki.certificate import Signer, certificate_pem, chain_pem, sign, sign_leaf
from kms.pki.constraints import constraint_violations, constraints_of
from kms.pki.names import Name, dns_name, ip_address
from tests.support.pki import DAY, NOW, key, leaf, root
from tests.support.processor import least_time

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


def test_an_objection_names_the_authority_whose_chain_it_is() -> None:
    top = constrained(NameConstraints(permitted_domains=("example.com",)))
    signer = constrained(NameConstraints(excluded_domains=("dev.example.com",)), above=top)
    constraints = constraints_of(chain_to_root_pem(signer), authority="CertificateAuthority pki/issuing")
    own, above = (
        each.message
        for each in constraint_violations([dns_name("a.dev.example.com"), dns_name("www.example.org")], constraints)
    )
    assert 'excluded by the nameConstraints of CertificateAuthority pki/issuing ("CN=Constrained"): it is' in own
    assert 'by the nameConstraints of the CA "CN=Constrained Root" above CertificateAuthority pki/issuing: ex' in above


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


WILDCARD = dns_name("*.example.com")


@pytest.mark.requirement("SEC81")
@pytest.mark.parametrize(
    ("permitted", "excluded", "refused"),
    [
        ((), ("secret.example.com",), "it covers names in secret.example.com"),
        ((), ("example.com",), "it covers names in example.com"),
        ((), ("com",), "it covers names in com"),
        ((), ("a.secret.example.com",), None),
        ((), ("example.org", "myexample.com", "secret.example.com.org"), None),
        (("example.com",), (), None),
        (("com",), (), None),
        (("secret.example.com",), (), "is not permitted"),
        (("example.com",), ("secret.example.com",), "it covers names in secret.example.com"),
        (("xample.com", "www.example.com"), (), "is not permitted"),
    ],
)
def test_a_wildcard_is_judged_by_all_names_that_it_stands_for(
    permitted: tuple[str, ...], excluded: tuple[str, ...], refused: str | None
) -> None:
    signer = constrained(NameConstraints(permitted_domains=permitted, excluded_domains=excluded))
    found = objections(signer, WILDCARD)
    assert len(found) == (0 if refused is None else 1)
    assert refused is None or refused in found[0]


@pytest.mark.requirement("SEC81")
def test_a_domain_with_a_dot_in_front_has_no_name_directly_below_its_parent() -> None:
    assert objections(with_domains(".secret.example.com"), WILDCARD) == []
    assert len(objections(with_domains(".example.com"), WILDCARD)) == 1


def openssl_accepts(directory: Path, name: Name, host: str, signer: Signer) -> bool:
    """Whether OpenSSL takes a certificate for `name` below this CA as one of `host`."""
    certificate = sign_leaf(leaf(name), signer)
    (directory / "root.pem").write_text(certificate_pem(root().certificate))
    (directory / "chain.pem").write_text(chain_pem(certificate, signer))
    command = [
        "openssl", "verify", "-x509_strict", "-attime", str(int((NOW + DAY / 2).timestamp())), "-purpose", "sslserver",
        "-verify_hostname", host, "-CAfile", "root.pem", "-untrusted", "chain.pem", "chain.pem",
    ]  # fmt: skip
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


@pytest.mark.requirement("SEC81")
@pytest.mark.parametrize("base", ["example.com", "a.example.com"])
@pytest.mark.parametrize("excluded", [None, "secret.example.com", "secret.a.example.com", "a.example.com", "com"])
@pytest.mark.parametrize("permitted", [None, "example.com", "a.example.com"])
def test_openssl_accepts_nothing_that_the_ca_excludes(
    tmp_path: Path, base: str, excluded: str | None, permitted: str | None
) -> None:
    signer = constrained(
        NameConstraints(
            permitted_domains=(permitted,) if permitted else (), excluded_domains=(excluded,) if excluded else ()
        ),
        above=root(),
    )
    wildcard = dns_name(f"*.{base}")
    covered = [dns_name(f"{label}.{base}") for label in ("secret", "a", "x")]
    # What is forbidden by its own name must not be had by a wildcard, and what OpenSSL refuses must not be issued.
    allowed = not any(objections(signer, each) for each in covered)
    assert (objections(signer, wildcard) == []) is allowed
    if allowed:
        assert all(openssl_accepts(tmp_path, wildcard, each.value, signer) for each in covered)


@pytest.mark.requirement("SEC81")
def test_openssl_leaves_the_decision_to_us(tmp_path: Path) -> None:
    signer = constrained(NameConstraints(excluded_domains=("secret.example.com",)), above=root())
    assert not openssl_accepts(tmp_path, dns_name("secret.example.com"), "secret.example.com", signer)
    assert openssl_accepts(tmp_path, WILDCARD, "secret.example.com", signer)
    assert objections(signer, WILDCARD) != []


@pytest.mark.requirement("SEC74")
def test_a_chain_with_thousands_of_subtrees_does_not_hold_up_the_event_loop() -> None:
    domains = [f"d{number}.example.com" for number in range(5000)]
    constraints = constraints_of(chain_to_root_pem(with_domains(*domains)))
    names = [dns_name(f"a.d{number}.example.com") for number in range(50)]
    names += [dns_name(f"{'a.' * 100}x{number}.example.com") for number in range(50)]
    assert len(constraint_violations(names, constraints)) == 50
    assert least_time(lambda: constraint_violations(names, constraints)) < 0.02


def test_a_message_lists_some_subtrees() -> None:
    signer = constrained(NameConstraints(permitted_domains=tuple(f"d{number}.example" for number in range(30))))
    (message,) = objections(signer, dns_name("www.example.com"))
    assert message.endswith(": d0.example, d1.example, d2.example, d3.example, d4.example and 25 more")


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
