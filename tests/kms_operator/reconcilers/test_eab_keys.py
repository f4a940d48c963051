"""Keys for external account binding: what is drawn is good, and what is brought is judged."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.resources.meta import is_label_value
from kms_operator.reconcilers.eab_keys import BindingKey, InvalidKey, key_in, new_key
from tests.support.operated import entropy, secret

GOOD = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")


def brought(kid: bytes = b"web-1", value: bytes = GOOD.encode()) -> BindingKey:
    return key_in(secret("web-eab", data={"kid": kid, "secret": value}))


def test_a_key_with_both_parts_is_taken_as_it_is() -> None:
    assert brought() == BindingKey("web-1", GOOD)


@pytest.mark.requirement("M89", "SEC11")
def test_a_drawn_key_has_32_bytes_and_an_identifier_that_a_label_can_carry() -> None:
    key = new_key(entropy())
    assert len(base64.urlsafe_b64decode(key.secret + "=")) == 32
    assert is_label_value(key.key_id)
    assert key_in(secret("x", data=key.data)) == key


def test_no_two_drawn_keys_are_alike() -> None:
    draw = entropy()
    assert len({new_key(draw).key_id for _ in range(100)}) == 100


def test_a_new_key_does_not_look_like_an_option_of_a_command_line() -> None:
    drawn = iter([b"k" * 15, b"\xfb" * 32, b"\xf8" * 32, b"s" * 32])
    key = new_key(lambda _: next(drawn))
    assert key.secret == base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")


def test_a_key_does_not_show_its_secret() -> None:
    assert GOOD not in repr(brought())


@pytest.mark.parametrize(
    ("kid", "complaint"),
    [
        (b"web-1\n", "printf"),
        (b" web", "blanks"),
        (b"", "1 to 63"),
        (b"a" * 64, "1 to 63"),
        (b"-web", "both ends"),
        (b"a/b", "letters"),
        (b"\xff\xfe", "plain text"),
        ("wäb".encode(), "plain text"),
    ],
)
def test_a_bad_identifier_is_refused_with_what_is_wrong(kid: bytes, complaint: str) -> None:
    with pytest.raises(InvalidKey, match=complaint):
        brought(kid=kid)


@pytest.mark.requirement("M89", "SEC11")
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (GOOD.encode() + b"\n", "line break"),
        (GOOD.encode() + b"=", "padded"),
        (base64.b64encode(b"\xff" * 32).rstrip(b"="), "not base64url"),
        (base64.urlsafe_b64encode(b"x" * 31).rstrip(b"="), "31 bytes long, at least 32 are required"),
        (bytes(range(200, 232)), "raw bytes"),
        (b"", "not base64url"),
        (b"A" * 45, "not base64url"),
        (b"A" * 1025, "longer"),
    ],
)
def test_a_bad_secret_is_refused_with_how_to_make_a_good_one(value: bytes, complaint: str) -> None:
    with pytest.raises(InvalidKey, match=complaint) as refusal:
        brought(value=value)
    assert "openssl rand" in str(refusal.value)


@pytest.mark.parametrize("missing", ["kid", "secret"])
def test_a_missing_part_is_named(missing: str) -> None:
    data = {"kid": b"web-1", "secret": GOOD.encode()}
    del data[missing]
    with pytest.raises(InvalidKey, match=f"no key '{missing}'"):
        key_in(secret("web-eab", data=data))


@pytest.mark.requirement("SEC40", "SEC64")
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_give_a_key_or_a_complaint_that_does_not_quote_them(kid: bytes, value: bytes) -> None:
    try:
        key = brought(kid=kid, value=value)
    except InvalidKey as refusal:
        quoted = len(value) >= 8 and value.decode(errors="replace") in str(refusal)
    else:
        quoted = False
        assert key.data == {"kid": kid, "secret": value}
        assert is_label_value(key.key_id)
    assert not quoted
