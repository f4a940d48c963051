"""Templates give names below one namespace alone, whatever its name and labels are."""

from __future__ import annotations

import ipaddress
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kms.pki.name_templates import UnresolvedTemplate, dns_template, network_template
from kms.pki.pattern_sets import PatternSet, Value
from kms.pki.patterns import InvalidPattern, label_pattern

TEAM = "example.com/team"
DNS_TEMPLATES = (
    "*.{namespace}.svc.cluster.local",
    "{namespace}.example.com",
    "**.x-{labels.example.com/team}.apps.test",
)
LABELS = string.ascii_lowercase + string.digits + "-"
dns_labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
label_values = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,30}[A-Za-z0-9])?)?", fullmatch=True)


@pytest.mark.requirement("SEC78")
@given(
    template=st.sampled_from(DNS_TEMPLATES), namespace=dns_labels, value=st.one_of(label_values, st.text(max_size=9))
)
def test_a_value_never_adds_a_wildcard_or_a_label(template: str, namespace: str, value: str) -> None:
    parsed = dns_template(template)
    try:
        pattern = parsed.expand(namespace, {TEAM: value})
    except UnresolvedTemplate:
        assert "labels" in template
        return
    sample = dns_template(template).expand("a", {TEAM: "a"})
    assert pattern.count("*") == sample.count("*")
    assert pattern.count(".") == sample.count(".")
    assert set(pattern) <= set(LABELS + "*.")
    label_pattern(pattern)


@pytest.mark.requirement("SEC78")
@given(
    template=st.sampled_from(DNS_TEMPLATES),
    one=st.tuples(dns_labels, dns_labels),
    other=st.tuples(dns_labels, dns_labels),
    prefix=st.lists(dns_labels, max_size=3),
)
def test_no_name_is_one_of_two_namespaces(
    template: str, one: tuple[str, str], other: tuple[str, str], prefix: list[str]
) -> None:
    assume(one[0] != other[0] and one[1] != other[1])
    parsed = dns_template(template)
    mine, theirs = (label_pattern(parsed.expand(each[0], {TEAM: each[1]})) for each in (one, other))
    name = ".".join([*prefix, mine.text.removeprefix("**.").removeprefix("*.")])
    assert not all(PatternSet.of(each).find(Value.of(name)) for each in (mine, theirs))


@pytest.mark.requirement("SEC78")
@given(value=st.one_of(label_values, st.text(max_size=6)))
def test_a_value_gives_one_network_of_the_size_that_the_template_says(value: str) -> None:
    for text, size, within in (
        ("10.{labels.site}.0.0/16", 16, "10.0.0.0/8"),
        ("fd00:{labels.site}::/32", 32, "fd00::/16"),
    ):
        try:
            network = ipaddress.ip_network(network_template(text).expand("team", {"site": value}))
        except UnresolvedTemplate:
            continue
        assert network.prefixlen == size
        assert network.network_address in ipaddress.ip_network(within)


@pytest.mark.parametrize(
    ("template", "labels", "pattern"),
    [
        ("*.{namespace}.svc.cluster.local", {}, "*.team-a.svc.cluster.local"),
        ("{labels.team}.apps.example.com", {"team": "shop"}, "shop.apps.example.com"),
        ("*.{labels.example.com/team}.apps.example.com", {TEAM: "shop"}, "*.shop.apps.example.com"),
        ("{namespace}.{labels.a.b_c}.test", {"a.b_c": "x1"}, "team-a.x1.test"),
        ("web-{namespace}.test", {}, "web-team-a.test"),
        ("**.example.com", {}, "**.example.com"),
    ],
)
def test_placeholders_stand_for_the_name_and_the_labels(template: str, labels: dict[str, str], pattern: str) -> None:
    assert dns_template(template).expand("team-a", labels) == pattern


@pytest.mark.requirement("SEC78")
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "needs the label example.com/team, which namespace team-a lacks"),
        ("", "needs one DNS label in lowercase"),
        ("*", "needs one DNS label in lowercase"),
        ("a.b", "needs one DNS label in lowercase"),
        ("Shop", 'the label example.com/team of namespace team-a is "Shop"'),
        ("a_b", "needs one DNS label in lowercase"),
        ("a\n", "needs one DNS label in lowercase"),
        ("{namespace}", "needs one DNS label in lowercase"),
        ("x" * 64, "needs one DNS label in lowercase"),
    ],
)
def test_a_label_that_is_missing_or_not_usable_gives_nothing(value: str | None, why: str) -> None:
    labels = {TEAM: value} if value is not None else {"team": "a"}
    with pytest.raises(UnresolvedTemplate, match=why):
        dns_template("*.{labels.example.com/team}.test").expand("team-a", labels)


def test_a_result_that_is_too_long_gives_nothing() -> None:
    template = ".".join(["{namespace}"] * 5)
    assert dns_template(template).expand("team", {})
    with pytest.raises(UnresolvedTemplate, match="longer than 253"):
        dns_template(template).expand("x" * 60, {})


@pytest.mark.requirement("SEC78")
@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{namespace}-*.example.com", "beside"),
        ("*{namespace}.example.com", "beside"),
        ("*-x-{labels.team}.example.com", "beside"),
        ("{namespace}-{labels.team}.example.com", "beside"),
        ("{namespace}{namespace}.example.com", "beside"),
        ("**{namespace}.example.com", "beside"),
        ("{name}.example.com", "unknown placeholder"),
        ("{labels.}.example.com", "unknown placeholder"),
        ("{labels}.example.com", "unknown placeholder"),
        ("{}.example.com", "unknown placeholder"),
        ("{labels.a b}.example.com", "unknown placeholder"),
        ("{labels.-a}.example.com", "unknown placeholder"),
        ("{labels.Example.com/team}.example.com", "unknown placeholder"),
        ("{namespace.example.com", "brace"),
        ("namespace}.example.com", "brace"),
        ("{{namespace}}.example.com", "brace"),
        ("{namespace}..example.com", "is not a pattern"),
        ("{namespace}.exämple.com", "is not a pattern"),
        ("{namespace}.a_b.com", "is not a pattern"),
        ("", "matches no DNS name"),
    ],
)
def test_a_template_that_two_namespaces_could_share_or_nobody_can_read_is_refused(template: str, why: str) -> None:
    with pytest.raises(InvalidPattern, match=why):
        dns_template(template)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("10.1{labels.site}.0.0/16", "one whole number"),
        ("10.{labels.site}0.0/16", "one whole number"),
        ("10.0.0.0/{labels.site}", "one whole number"),
        ("{labels.site}{labels.site}.0.0.0/8", "one whole number"),
        ("10.{labels.site}.0.0", "prefix length"),
        ("10.{labels.site}.0/16", "is not a CIDR block"),
        ("{labels.site}", "prefix length"),
    ],
)
def test_a_template_of_addresses_has_whole_numbers_and_a_prefix(template: str, why: str) -> None:
    with pytest.raises(InvalidPattern, match=why):
        network_template(template)


@pytest.mark.parametrize("value", ["256", "08", "1.2", "x", "", "ffff", "\u0661"])
def test_a_number_that_no_address_has_gives_nothing(value: str) -> None:
    with pytest.raises(UnresolvedTemplate):
        network_template("10.{labels.site}.0.0/16").expand("team", {"site": value})
