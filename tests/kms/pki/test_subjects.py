from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from kms.pki.subjects import ATTRIBUTES, COMMON_NAME, LIMITS, attribute_name, subject_name


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
    (attribute,) = subject_name(None, {"organizations": ("ü" * 64,)})
    assert attribute.value == "ü" * 64


def test_special_characters_in_a_value_stay_part_of_the_value() -> None:
    hostile = "Example,CN=admin+O=Evil\\/{{ .Token }}"
    assert [each.value for each in subject_name("a", {"organizations": (hostile,)})] == [hostile, "a"]


def test_attributes_go_by_the_names_of_manifests_or_x520_or_their_oid() -> None:
    oids = (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME, NameOID.DOMAIN_COMPONENT, x509.ObjectIdentifier("1.2.3.4"))
    names = [attribute_name(each.dotted_string) for each in oids]
    assert names == ["organizations", COMMON_NAME, "domainComponent", "1.2.3.4"]
