from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.accounts.contacts import parse, text
from acme_server.problems import ProblemType, Refused


@pytest.mark.requirement("S79")
def test_mail_addresses_are_kept_as_they_were_written_each_once() -> None:
    written = ("mailto:Admin@Example.com", "MAILTO:a+b@x.y", "mailto:Admin@Example.com", "mailto:a%2Fb@x")
    assert parse(written) == ("mailto:Admin@Example.com", "MAILTO:a+b@x.y", "mailto:a%2Fb@x")
    assert parse(()) == ()


@pytest.mark.requirement("S79")
def test_blanks_behind_the_scheme_are_skipped() -> None:
    written = ("mailto: a@example.com", "mailto:a@example.com", "MAILTO: \tb@example.com")
    assert parse(written) == ("mailto:a@example.com", "MAILTO:b@example.com")


@pytest.mark.requirement("M80")
@pytest.mark.parametrize("contact", ["tel:+12025551212", "https://example.com", "x:y"])
def test_other_schemes_are_not_supported(contact: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(("mailto:a@example.com", contact))
    assert caught.value.type == ProblemType.UNSUPPORTED_CONTACT


@pytest.mark.requirement("S79", "M80")
@pytest.mark.parametrize(
    "contact",
    [
        "",
        "admin@example.com",
        "mailto:",
        "mailto:admin",
        "mailto:@example.com",
        "mailto:a@example.com,b@example.com",
        "mailto:a@example.com?cc=b@example.com",
        "mailto:a@example.com?subject=x",
        "mailto:a@example..com",
        "mailto:a@-example.com",
        "mailto:a b@example.com",
        "mailto: a b@example.com",
        "mailto: ",
        " mailto:a@example.com",
        "mailto:a@example.com ",
        "mailto:\n a@example.com",
        "mailto:a@example.com\nBcc: b@example.com",
        "mailto:a%zz@example.com",
        "mailto:ü@example.com",
        "mailto:a@" + "x." * 200 + "com",
        "mailto:" + "a" * 65 + "@example.com",
    ],
)
def test_what_is_no_single_address_is_invalid(contact: str) -> None:
    with pytest.raises(Refused) as caught:
        parse((contact,))
    assert caught.value.type == ProblemType.INVALID_CONTACT


@pytest.mark.requirement("SEC40")
@given(st.lists(st.text(max_size=40), max_size=3))
def test_no_text_is_anything_but_kept_or_refused(contacts: list[str]) -> None:
    try:
        assert set(parse(contacts)) <= {kept for each in contacts for kept in (each, "".join(each.split()))}
    except Refused:
        return


def test_kubectl_shows_the_addresses() -> None:
    assert text(()) is None
    assert text(("mailto:a@example.com", "MAILTO:b@example.com")) == "a@example.com, b@example.com"
    assert len(text([f"mailto:{number}@example.com" for number in range(100)]) or "") <= 80
