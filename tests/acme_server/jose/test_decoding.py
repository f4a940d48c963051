import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.jose.decoding import MAXIMUM_DEPTH, base64url, json_object
from acme_server.problems import ProblemType, Refused
from tests.support.acme import b64


@pytest.mark.requirement("M4")
@given(st.binary())
def test_base64url_reads_what_others_write(value: bytes) -> None:
    assert base64url(b64(value), "It") == value


@pytest.mark.requirement("M4", "SEC14")
@pytest.mark.parametrize(
    "text",
    ["A", "AA==", "AAA=", "AA\n", " AAAA", "AAAA ", "+/+/", "AA A", "ÄÄÄÄ", "AB", "AAB", "A" * 5, None, 7, b"AAAA"],
)
def test_base64url_has_one_spelling(text: object) -> None:
    with pytest.raises(Refused) as refused:
        base64url(text, "It")
    assert refused.value.type is ProblemType.MALFORMED


@given(st.text(max_size=60))
def test_base64url_agrees_with_a_naive_reader(text: str) -> None:
    try:
        naive = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
        expected = naive if b64(naive) == text else None
    except ValueError:
        expected = None
    try:
        assert base64url(text, "It") == expected
    except Refused:
        assert expected is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(st.dictionaries(st.text(), JSON), st.booleans())
def test_objects_are_read_as_they_are(value: dict[str, object], ascii_only: bool) -> None:
    try:
        data = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    if depth(value) > MAXIMUM_DEPTH:
        with pytest.raises(Refused):
            json_object(data, "It")
    else:
        assert json_object(data, "It") == value


@pytest.mark.requirement("SEC40")
@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\u0d8 1eN-', max_size=80).map(str.encode))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    with suppress(Refused):
        assert isinstance(json_object(data, "It"), dict)


MEMBERS = st.tuples(
    st.sampled_from(['"a"', '"b"', '"\\u0061"', "a", '"ä"']), st.sampled_from(['"a"', '""', '"\t"', "1", "{}"])
)


@pytest.mark.requirement("SEC14")
@given(st.lists(MEMBERS, max_size=4), st.sampled_from(["", " ", "}", '"', "\x00", "\ufeff"]))
def test_short_objects_are_read_as_a_slow_reader_reads_them(members: list[tuple[str, str]], end: str) -> None:
    text = "{" + ", ".join(":".join(each) for each in members) + "}" + end
    try:
        pairs = json.JSONDecoder(object_pairs_hook=list).decode(text)
        expected = {name: {} if value == [] else value for name, value in pairs}
    except ValueError:
        pairs, expected = [], None
    try:
        assert json_object(text.encode(), "It") == expected
        assert len(expected or {}) == len(pairs)
    except Refused:
        assert expected is None or len(expected) < len(pairs)


@pytest.mark.requirement("M1", "SEC14", "SEC36")
@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"a":"1","a":"2"}',
        b'{"a":"1","b":"2","a":"1"}',
        b'{"a":"1\n"}',
        b'{"x":{"a":1,"a":2}}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"9" * 5000 + b"}",
        b"[]",
        b'"a"',
        b"null",
        b"",
        b"{} {}",
        b'{"a":' + b"[" * MAXIMUM_DEPTH + b"]" * MAXIMUM_DEPTH + b"}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
)
def test_what_parsers_disagree_about_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        json_object(data, "It")
    assert refused.value.type is ProblemType.MALFORMED


def test_brackets_in_strings_are_not_depth() -> None:
    data = json.dumps({"a": "[" * 40 + '\\"[{', "b": [1]}).encode()
    assert json_object(data, "It")["b"] == [1]


def test_many_brackets_side_by_side_are_not_depth() -> None:
    data = json.dumps({"identifiers": [{"type": "dns", "value": str(i)} for i in range(100)]}).encode()
    assert len(json_object(data, "It")["identifiers"]) == 100


def test_paired_surrogates_are_text() -> None:
    assert json_object(b'{"a":"\\ud83d\\ude00"}', "It") == {"a": "\U0001f600"}
