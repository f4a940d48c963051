from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from kms.pki.subjects import ATTRIBUTES, COMMON_NAME, LIMITS, attributes_of, subject_name


def test_a_subject_goes_from_wide_to_narrow_with_the_common_name_last() -> None:
    name = subject_name(
        "www.example.com",
        {
            "organizationalUnits": ("Web", "Shop"),
            "organizations": ("Example, Inc.",),
            "localities": ("Berlin",),
            "provinces": ("Berlin",),
            "countries": ("DE",),
        },
    )
    assert [(each.oid, each.value) for each in name] == [
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.STATE_OR_PROVINCE_NAME, "Berlin"),
        (NameOID.LOCALITY_NAME, "Berlin"),
        (NameOID.ORGANIZATION_NAME, "Example, Inc."),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Web"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Shop"),
        (NameOID.COMMON_NAME, "www.example.com"),
    ]


def test_a_subject_can_be_empty() -> None:
    assert len(subject_name(None, {})) == 0


@pytest.mark.parametrize("attributes", [{"emailAddress": ("a@example.com",)}, {COMMON_NAME: ("a",)}])
def test_an_attribute_that_manifests_do_not_know_is_refused(attributes: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="a subject has no"):
        subject_name(None, attributes)


@pytest.mark.parametrize("attribute", sorted(ATTRIBUTES))
def test_values_that_are_too_long_for_x509_are_refused(attribute: str) -> None:
    subject_name(None, {attribute: ("x" * LIMITS[attribute],)})
    with pytest.raises(ValueError, match=attribute):
        subject_name(None, {attribute: ("x" * (LIMITS[attribute] + 1),)})
    with pytest.raises(ValueError, match=attribute):
        subject_name(None, {attribute: ("",)})


def test_other_alphabets_have_as_much_room_as_ours() -> None:
    assert attributes_of(subject_name(None, {"organizations": ("ü" * 64,)})) == {"organizations": ("ü" * 64,)}


def test_special_characters_in_a_value_stay_part_of_the_value() -> None:
    hostile = "Example,CN=admin+O=Evil\\/{{ .Token }}"
    name = subject_name("a", {"organizations": (hostile,)})
    assert attributes_of(name) == {"organizations": (hostile,), COMMON_NAME: ("a",)}


def test_attributes_without_a_word_go_by_their_short_name_or_oid() -> None:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.com"),
            x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4"), "x"),
            x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\x00\xff", x509.name._ASN1Type.BitString),
            x509.NameAttribute(x509.ObjectIdentifier("1.2.3.5"), ""),
        ]
    )
    assert attributes_of(name) == {
        "DC": ("example",),
        "1.2.840.113549.1.9.1": ("a@example.com",),
        "1.2.3.4": ("x",),
        NameOID.X500_UNIQUE_IDENTIFIER.dotted_string: ("00ff",),
    }
