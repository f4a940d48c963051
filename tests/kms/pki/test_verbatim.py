from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.csr import InvalidRequest, parse_request
from kms.pki.usages import EXTENDED_KEY_USAGES, KEY_USAGES, bits_in
from kms.pki.verbatim import MAXIMUM_ATTRIBUTES, requested_usages, verbatim_violations
from tests.support import csrs
from tests.support.csrs import SEQUENCE, UTF8, tlv
from tests.support.pki import csr, key
from tests.support.processor import least_time
from tests.support.requests import (
    COMMON_NAME,
    HARMFUL_EXTENSIONS,
    HARMFUL_SUBJECTS,
    HARMLESS_EXTENSIONS,
    HARMLESS_SUBJECTS,
    LOCALITY,
    NAMES,
    POLICY,
    SERVER,
    SIGNATURES,
    SUBJECT,
    USAGES,
    WEB,
    built,
    harmless,
    oid_of,
    purposes,
    with_names,
)

EARLIER = csrs.text_attribute("1.2.3", b"a")
"""DER has this attribute before the extensions, since it is shorter."""


def violations(der: bytes, usages: tuple[str, ...] = USAGES) -> list[str]:
    found = verbatim_violations(parse_request(der), usages=usages, subject=SUBJECT, policy=POLICY)
    return [each.message for each in found]


def refusal(der: bytes) -> str:
    """Why the request is refused, by whichever of the two checks."""
    try:
        (message,) = violations(der)
    except InvalidRequest as refused:
        return str(refused)
    assert message.isprintable()
    return message


@pytest.mark.requirement("X27", "X28", "X29")
@given(harmless())
def test_a_harmless_request_may_go_to_any_ca(der: bytes) -> None:
    assert violations(der) == []


@pytest.mark.requirement("X27")
@given(harmless=st.sampled_from(sorted(HARMLESS_EXTENSIONS)), harmful=st.sampled_from(sorted(HARMFUL_EXTENSIONS)))
def test_one_harmful_extension_among_harmless_ones_is_enough(harmless: str, harmful: str) -> None:
    extensions, says = HARMFUL_EXTENSIONS[harmful]
    oids = {oid_of(each) for each in extensions}
    if harmful == "key usage alone":
        oids.add(oid_of(SERVER))
    others = [each for each in HARMLESS_EXTENSIONS[harmless] if oid_of(each) not in oids]
    assert says in refusal(built(NAMES, *others, *extensions))


@pytest.mark.requirement("X27")
@pytest.mark.parametrize("what", sorted(HARMFUL_EXTENSIONS))
def test_a_harmful_extension_is_refused_by_name(what: str) -> None:
    extensions, says = HARMFUL_EXTENSIONS[what]
    assert says in refusal(built(NAMES, *extensions))


@pytest.mark.requirement("X27")
@pytest.mark.parametrize("bits", [b"\x02\x84", b"\x01\x82"])
def test_usages_of_a_ca_are_refused(bits: bytes) -> None:
    der = built(NAMES, csrs.extension("2.5.29.15", tlv(csrs.BITS, bits)), SERVER)
    assert "key usage of a CA" in refusal(der)


@pytest.mark.requirement("X27")
def test_a_request_for_a_ca_is_refused() -> None:
    der = built(NAMES, csrs.extension("2.5.29.19", tlv(SEQUENCE, tlv(csrs.BOOLEAN, b"\xff"))))
    assert "asks for a CA certificate" in refusal(der)


@pytest.mark.requirement("X27")
@pytest.mark.parametrize("twice", [NAMES, SERVER, csrs.extension("1.2.3.4", b"\x05\x00")])
def test_an_extension_that_occurs_twice_is_refused(twice: bytes) -> None:
    der = built(*({NAMES, SERVER} - {twice}), twice, twice)
    with pytest.raises(InvalidRequest):
        parse_request(der)


@pytest.mark.requirement("X27")
def test_the_usages_of_the_profile_decide() -> None:
    der = built(NAMES, SIGNATURES, SERVER)
    assert violations(der, ("signing", "server auth")) == []
    assert len(violations(der, ("key encipherment", "client auth"))) == 2


@pytest.mark.requirement("X27")
def test_key_encipherment_is_for_rsa() -> None:
    usage = x509.KeyUsage(*(position in {0, 2} for position in range(9)))
    purpose = x509.ExtendedKeyUsage([EXTENDED_KEY_USAGES["server auth"]])
    extensions: list[tuple[x509.ExtensionType, bool]] = [(usage, True), (purpose, False)]
    assert violations(csr(WEB, extensions=extensions, signed_with=key("RSA", 2048))) == []
    assert "key encipherment" in refusal(csr(WEB, extensions=extensions))


@pytest.mark.requirement("X28")
@pytest.mark.parametrize(
    ("values", "says"),
    [
        (((csrs.EMAIL, b"a@example.com"),), "only DNS names and IP addresses"),
        (((0x86, b"spiffe://a"),), "only DNS names and IP addresses"),
        (((csrs.DNS, b""),), "it is empty"),
        (((csrs.DNS, "bücher.example".encode()),), ""),
        (((csrs.IP, b"\x0a"),), ""),
    ],
)
def test_a_name_that_programs_read_differently_is_refused(values: tuple[tuple[int, bytes], ...], says: str) -> None:
    assert says in refusal(with_names(WEB, *values))


@pytest.mark.requirement("X28")
@pytest.mark.parametrize("extensions", [(), (SERVER,), (csrs.extension("2.5.29.17", tlv(SEQUENCE)),)])
def test_names_of_the_common_name_alone_are_refused(extensions: tuple[bytes, ...]) -> None:
    der = built(*extensions, subject=((COMMON_NAME, UTF8, WEB.encode()),))
    assert refusal(der) == (
        'DNS name "www.example.com" is in the common name of the certificate request only; use subjectAltName too'
    )


@pytest.mark.requirement("X28")
@pytest.mark.parametrize("extensions", [(NAMES,), (csrs.alternative_names("admin.example.com"),), ()])
def test_microsofts_list_of_extensions_is_refused(extensions: tuple[bytes, ...]) -> None:
    second = csrs.requested(*extensions, attribute=csrs.MICROSOFT_EXTENSION_REQUEST)
    subject = csrs.subject((COMMON_NAME, UTF8, WEB.encode()))
    refused = refusal(csrs.sign(csrs.info(csrs.in_order(csrs.requested(NAMES), second), name=subject)))
    assert csrs.MICROSOFT_EXTENSION_REQUEST in refused or "occurs twice" in refused


@pytest.mark.requirement("X28")
def test_a_second_list_of_extensions_is_refused() -> None:
    lists = csrs.requested(NAMES), csrs.requested(csrs.extension("1.2.3.4", bytes(40)))
    assert "more than one list of extensions" in refusal(csrs.sign(csrs.info(csrs.in_order(*lists))))


@pytest.mark.requirement("X29")
@pytest.mark.parametrize("what", sorted(HARMFUL_SUBJECTS))
def test_a_subject_that_must_not_be_copied_is_refused_by_name(what: str) -> None:
    subject, says = HARMFUL_SUBJECTS[what]
    assert says in refusal(built(NAMES, subject=subject))


@pytest.mark.requirement("X29")
@pytest.mark.parametrize("what", sorted(HARMLESS_SUBJECTS))
def test_a_subject_of_profile_and_policy_is_accepted(what: str) -> None:
    assert violations(built(NAMES, subject=HARMLESS_SUBJECTS[what])) == []


@pytest.mark.requirement("X29")
def test_sixteen_attributes_are_accepted() -> None:
    assert violations(built(NAMES, subject=((LOCALITY, UTF8, b"a"),) * MAXIMUM_ATTRIBUTES)) == []


@pytest.mark.requirement("X29")
def test_a_part_of_several_attributes_is_refused() -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(NameOID.COMMON_NAME, WEB), x509.NameAttribute(NameOID.LOCALITY_NAME, "Bern")]
            )
        ]
    )
    der = csrs.sign(csrs.info(csrs.in_order(csrs.requested(NAMES)), name=name.public_bytes()))
    assert "multi-valued RDN" in refusal(der)


@pytest.mark.requirement("X28")
@pytest.mark.parametrize(
    ("der", "part"),
    [
        (csrs.sign(csrs.info(csrs.in_order(csrs.requested(NAMES)), version=b"\x02")), "structure"),
        (csrs.sign(csrs.info(csrs.attribute_list(csrs.requested(NAMES), EARLIER))), "structure"),
        (csrs.sign(csrs.info(csrs.attribute_list(EARLIER, csrs.requested(NAMES)))), None),
        (built(csrs.alternative_names(WEB, critical=b"\x00")), "list of extensions"),
        (built(NAMES, purposes()), "list of extensions"),
        (built(NAMES, subject=((LOCALITY, csrs.PRINTABLE, b"a_b"),)), "structure"),
    ],
)
def test_what_only_lenient_programs_read_is_refused(der: bytes, part: str | None) -> None:
    # An internal CA takes all of these.
    strict = f"the {part} of the certificate request is not strict DER (X.690)"
    assert [each.partition(";")[0] for each in violations(der)] == ([] if part is None else [strict])


@pytest.mark.requirement("X19")
def test_without_usages_in_the_request_those_of_the_profile_are_asked_for() -> None:
    usages = ("signing", "key encipherment", "digital signature", "server auth", "s/mime", "email protection")
    ecdsa, rsa = parse_request(built(NAMES)), parse_request(csr(WEB, signed_with=key("RSA", 2048)))
    assert requested_usages(ecdsa, usages) == ("signing", "server auth", "s/mime")
    assert requested_usages(rsa, usages) == ("signing", "key encipherment", "server auth", "s/mime")


@pytest.mark.requirement("X19", "X27")
def test_key_usage_alone_goes_to_a_ca_that_is_told_the_purposes_apart() -> None:
    """cert-manager makes such requests by default."""
    request = parse_request(built(NAMES, SIGNATURES))
    (violation,) = verbatim_violations(request, usages=USAGES, subject=SUBJECT, policy=POLICY)
    assert "usages digital signature and server auth" in violation.message
    assert verbatim_violations(request, usages=USAGES, subject=SUBJECT, policy=POLICY, purposes_apart=True) == ()
    assert requested_usages(request, USAGES, purposes_apart=True) == (
        "digital signature",
        "server auth",
        "client auth",
        "any",
    )
    both = parse_request(built(NAMES, SIGNATURES, SERVER))
    assert requested_usages(both, USAGES, purposes_apart=True) == ("digital signature", "server auth")


@pytest.mark.requirement("X19")
@given(harmless())
def test_the_usages_asked_for_are_those_of_the_request(der: bytes) -> None:
    asked = requested_usages(parse_request(der), USAGES)
    extensions = {each.oid: each.value for each in x509.load_der_x509_csr(der).extensions}
    usage, purposes = extensions.get(x509.KeyUsage.oid), extensions.get(x509.ExtendedKeyUsage.oid)
    if usage is None and purposes is None:
        assert asked == ("digital signature", "server auth", "client auth", "any")
        return
    bits = {KEY_USAGES[each] for each in asked if each in KEY_USAGES}
    assert bits == (bits_in(usage) if isinstance(usage, x509.KeyUsage) else set())
    found = [EXTENDED_KEY_USAGES[each] for each in asked if each in EXTENDED_KEY_USAGES]
    assert found == (list(purposes) if isinstance(purposes, x509.ExtendedKeyUsage) else [])


def test_the_largest_request_costs_little() -> None:
    many = [csrs.extension(f"1.2.3.{number}", bytes(400)) for number in range(31)]
    request = parse_request(built(NAMES, *many, subject=((LOCALITY, UTF8, b"a" * 60),) * 32))
    assert least_time(lambda: verbatim_violations(request, usages=USAGES, subject=SUBJECT, policy=POLICY)) < 0.02
