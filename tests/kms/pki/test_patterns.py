from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.pattern_sets import PatternSet, Value
from kms.pki.patterns import InvalidPattern, Pattern, label_pattern, value_pattern
from tests.support.processor import least_time


def matches(pattern: Pattern, value: str) -> bool:
    return PatternSet.of(pattern).find(Value.of(value)) == pattern.text


def matches_below(pattern: Pattern, base: str) -> bool:
    return PatternSet.of(pattern).find_below(Value.of(base)) == pattern.text


@pytest.mark.requirement("SEC33")
@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("example.com", ["example.com", "EXAMPLE.com"], ["www.example.com", "examplexcom", "example.com.evil", ""]),
        (
            "*.apps.example.com",
            ["a.apps.example.com", "A.apps.example.com"],
            ["apps.example.com", "a.b.apps.example.com", "aapps.example.com", "a.apps.example.com.evil"],
        ),
        (
            "**.svc.cluster.local",
            ["a.svc.cluster.local", "a.b.svc.cluster.local"],
            ["svc.cluster.local", "xsvc.cluster.local"],
        ),
        ("web*.example.com", ["web.example.com", "web1.example.com"], ["we.example.com", "web.x.example.com"]),
        ("*-*.example.com", ["a-b.example.com", "-.example.com"], ["ab.example.com"]),
        ("a.**.z", ["a.b.z", "a.b.c.z"], ["a.z", "a.b.c"]),
        ("**.a.**", ["x.a.y", "a.a.a", "x.y.a.y.x"], ["a.y", "x.a", "x.b.y"]),
        ("**", ["a", "a.b", "a.b.c"], []),
        ("*", ["a"], ["a.b"]),
        ("a*b*c", ["abc", "axbxc", "abbc"], ["ac", "acb", "ab.c", "axxc"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("EXAMPLE.Com", ["example.com"], []),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, matching: list[str], others: list[str]) -> None:
    compiled = label_pattern(pattern)
    assert [each for each in matching if not matches(compiled, each)] == []
    assert [each for each in others if matches(compiled, each)] == []
    assert compiled.text == pattern


@pytest.mark.requirement("SEC33")
@pytest.mark.parametrize("special", ["[a]", "a.?", "(a|b)", "a+", "^a$", "\\d", "a.b{2}"])
def test_nothing_but_the_star_is_special(special: str) -> None:
    assert matches(value_pattern(special), special)
    for other in ("a", "ab", "a.b", "a.bb", "1", "aa"):
        assert not matches(value_pattern(special), other)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "matches no DNS name"),
        (".example.com", "single dots"),
        ("example.com.", "single dots"),
        ("a..b", "single dots"),
        ("a_b.example.com", "letters, digits"),
        ("a b", "letters, digits"),
        ("example.com\n", "letters, digits"),
        ("bücher.example", "xn--"),
        ("a**.example.com", "stands alone"),
        ("***.example.com", "stands alone"),
        ("a." * 127 + "a", "longer than 253"),
    ],
)
def test_what_can_match_no_dns_name_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidPattern) as refusal:
        label_pattern(text)
    assert says in str(refusal.value)


@pytest.mark.parametrize("text", ["", "a**", "Example, Inc**"])
def test_a_value_pattern_is_refused_too_where_it_makes_no_sense(text: str) -> None:
    with pytest.raises(InvalidPattern):
        value_pattern(text)


def test_value_patterns_match_text_with_dots_spaces_and_other_alphabets() -> None:
    assert matches(value_pattern("**"), "Example, Inc.")
    assert matches(value_pattern("**"), "")
    assert matches(value_pattern("Example, *."), "example, inc.")
    assert matches(value_pattern("BÜCHER*"), "Bücher Straße")
    assert matches(value_pattern("straße"), "STRASSE")
    assert not matches(value_pattern("*"), "Example, Inc.")


@pytest.mark.parametrize(
    ("pattern", "base", "covered"),
    [
        ("admin.example.com", "example.com", True),
        ("*.example.com", "example.com", True),
        ("adm*.example.com", "example.com", True),
        ("**.example.com", "example.com", True),
        ("**.example.com", "a.example.com", True),
        ("**", "example.com", True),
        ("example.com", "example.com", False),
        ("x.admin.example.com", "example.com", False),
        ("admin.example.org", "example.com", False),
        ("*", "example.com", False),
    ],
)
def test_a_pattern_knows_what_a_wildcard_certificate_would_cover(pattern: str, base: str, covered: bool) -> None:
    assert matches_below(label_pattern(pattern), base) is covered


def naive(pattern: list[str], value: list[str]) -> bool:
    """The definition, word by word: exponential, and obviously right."""
    if not pattern:
        return not value
    if pattern[0] == "**":
        return any(naive(pattern[1:], value[taken:]) for taken in range(1, len(value) + 1))
    return bool(value) and naive_label(pattern[0], value[0]) and naive(pattern[1:], value[1:])


def naive_label(glob: str, label: str) -> bool:
    if not glob:
        return not label
    if glob[0] == "*":
        return any(naive_label(glob[1:], label[taken:]) for taken in range(len(label) + 1))
    return bool(label) and glob[0] == label[0] and naive_label(glob[1:], label[1:])


labels = st.text(alphabet="ab", min_size=1, max_size=5)
globs = st.one_of(
    st.just("**"), labels, st.text(alphabet="ab*", min_size=1, max_size=6).filter(lambda text: "**" not in text)
)


@given(st.lists(globs, min_size=1, max_size=6), st.lists(labels, min_size=1, max_size=6))
def test_matching_agrees_with_the_definition(pattern: list[str], value: list[str]) -> None:
    compiled = label_pattern(".".join(pattern))
    assert matches(compiled, ".".join(value)) is naive(pattern, value)


@given(st.lists(globs, min_size=1, max_size=5), st.lists(labels, min_size=1, max_size=5))
def test_what_a_wildcard_covers_agrees_with_a_search(pattern: list[str], base: list[str]) -> None:
    compiled = label_pattern(".".join(pattern))
    # A label that satisfies any glob over "ab*": what the glob itself says, with its stars as nothing; else anything.
    candidates = ["x", *(glob.replace("*", "") for glob in pattern if glob.replace("*", ""))]
    found = any(naive(pattern, [candidate, *base]) for candidate in candidates)
    assert matches_below(compiled, ".".join(base)) is found


@pytest.mark.requirement("SEC40")
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_compiles_or_is_refused_and_matching_never_fails(text: str, value: str) -> None:
    for compile_ in (label_pattern, value_pattern):
        try:
            compiled = compile_(text)
        except InvalidPattern:
            continue
        assert matches(compiled, value) in {True, False}


@given(st.text(alphabet="abc.", min_size=1, max_size=30))
def test_text_without_stars_matches_itself_alone(text: str) -> None:
    compiled = value_pattern(text)
    assert matches(compiled, text.upper())
    assert not matches(compiled, text + "a")


@pytest.mark.requirement("SEC33", "SEC41")
@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("*a" * 100 + "*b", "a" * 250),
        ("**." * 60 + "b", "a." * 125 + "a"),
        ("**.a*a*a." * 20 + "b", "aaaa." * 50 + "a"),
    ],
)
def test_no_pattern_takes_long(pattern: str, value: str) -> None:
    compiled: Pattern = label_pattern(pattern)
    assert not matches(compiled, value)
    assert least_time(lambda: matches(compiled, value)) < 0.05
