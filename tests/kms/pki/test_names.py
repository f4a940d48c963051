from __future__ import annotations

import ipaddress
import string

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.names import InvalidName, Name, common_name_of, dns_name, ip_address


@pytest.mark.requirement("M62")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("example.com", "example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("*.apps.example.com", "*.apps.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("kubernetes", "kubernetes"),
        ("my--svc.cluster.local", "my--svc.cluster.local"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("0x7f.example", "0x7f.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_dns_name_is_normalised(text: str, value: str) -> None:
    assert dns_name(text) == Name("dns", value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (".", "dot"),
        ("example.com.", "ends in a dot"),
        ("a..example.com", "empty label"),
        (".example.com", "empty label"),
        ("*", "may stand only in front"),
        ("*.", "ends in a dot"),
        ("*.*.example.com", "may stand only in front"),
        ("a.*.example.com", "may stand only in front"),
        ("w*.example.com", "may stand only in front"),
        ("_acme-challenge.example.com", "characters other than"),
        ("a_b.example.com", "characters other than"),
        ("a b.example.com", "characters other than"),
        ("exa\x00mple.com", "characters other than"),
        ("example.com\n", "characters other than"),
        ("-a.example.com", 'begins or ends with "-"'),
        ("a-.example.com", 'begins or ends with "-"'),
        ("a" * 64 + ".example", "longer than 63"),
        (".".join(["abcdefg"] * 32), "longer than the 253"),
        ("bücher.example", "A-labels"),
        ("xn--bcher-kva.ex ample", "characters other than"),
        ("user@example.com", "characters other than"),
        ("https://example.com", "characters other than"),
    ],
)
def test_what_is_no_dns_name_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(InvalidName) as refusal:
        dns_name(text)
    assert says in str(refusal.value)
    assert str(refusal.value).isprintable()


@pytest.mark.requirement("IP-M7", "SEC42")
@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "127.0.0.0x1",
        "1.2.3.0x",
        "10.0.0.999",
        "example.1",
        "::1",
        "[::1]",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "fe80::1%eth0",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u0661\u0662\u0667.0.0.1",
        "*.127.0.0.1",
        "10.0.0.0/8",
    ],
)
def test_an_ip_address_in_any_spelling_is_no_dns_name(text: str) -> None:
    with pytest.raises(InvalidName):
        dns_name(text)


@pytest.mark.requirement("SEC42")
def test_digits_of_another_alphabet_do_not_make_an_address() -> None:
    with pytest.raises(InvalidName, match="number"):
        dns_name("127.0.0." + idna.alabel("१२७").decode())


@pytest.mark.requirement("M63")
@pytest.mark.parametrize("label", ["xn--", "xn--a", "xn--zzzzzzzzzz99", "xn--ls8h", "xn--a-ecp.ru", "xn--bcher-KVA-x"])
def test_an_a_label_must_be_valid_under_idna_2008(label: str) -> None:
    with pytest.raises(InvalidName):
        dns_name(f"{label}.example")


def test_wildcards_can_be_ruled_out() -> None:
    with pytest.raises(InvalidName, match="must not be a wildcard"):
        dns_name("*.example.com", wildcard=False)
    assert dns_name("example.com", wildcard=False).value == "example.com"


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidName) as refusal:
        dns_name("!" * 100_000)
    assert len(str(refusal.value)) < 300


@pytest.mark.requirement("IP-M1")
@pytest.mark.parametrize("text", ["10.0.0.1", "255.255.255.255", "::1", "2001:db8::1", "2001:db8:0:1:1:1:1:1"])
def test_a_canonical_ip_address_is_taken_as_it_is(text: str) -> None:
    assert ip_address(text) == Name("ip", text)


@pytest.mark.requirement("IP-M1", "IP-M7")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("example.com", "not an IP address"),
        ("", "not an IP address"),
        ("010.0.0.1", "not an IP address"),
        ("127.1", "not an IP address"),
        ("10.0.0.1 ", "not an IP address"),
        ("1.2.3.٤", "not an IP address"),
        ("10.0.0.0/8", "not an IP address"),
        ("2001:DB8::1", 'write "2001:db8::1"'),
        ("2001:0db8::1", 'write "2001:db8::1"'),
        ("2001:db8:0:0:0:0:0:1", 'write "2001:db8::1"'),
        ("::ffff:10.0.0.1", 'write "10.0.0.1"'),
        ("::ffff:a00:1", 'write "10.0.0.1"'),
        ("fe80::1%eth0", "zone"),
    ],
)
def test_other_spellings_of_an_ip_address_are_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidName) as refusal:
        ip_address(text)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("www.Example.com", Name("dns", "www.example.com")),
        ("10.0.0.1", Name("ip", "10.0.0.1")),
        ("*.example.com", Name("dns", "*.example.com")),
        ("My Server", None),
        ("", None),
    ],
)
def test_a_common_name_is_a_name_or_only_text(text: str, name: Name | None) -> None:
    assert common_name_of(text) == name


def test_a_name_tells_what_it_is() -> None:
    assert str(dns_name("a.example")) == 'DNS name "a.example"'
    assert str(dns_name("*.a.example")) == 'wildcard DNS name "*.a.example"'
    assert str(ip_address("::1")) == 'IP address "::1"'
    assert dns_name("*.a.example").is_wildcard
    assert dns_name("*.a.example").base == dns_name("a.example").base == "a.example"


@pytest.mark.requirement("SEC40")
@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    for read in (dns_name, ip_address):
        try:
            name = read(text)
        except InvalidName as refusal:
            assert str(refusal).isprintable()  # noqa: PT017 - either outcome is right, but not any other
        else:
            assert read(name.value) == name


@pytest.mark.requirement("SEC42")
@given(st.text(alphabet=string.ascii_letters + string.digits + ".-*_x", max_size=30))
def test_no_dns_name_is_also_an_address(text: str) -> None:
    try:
        name = dns_name(text)
    except InvalidName:
        return
    with pytest.raises(ValueError, match="does not appear to be"):
        ipaddress.ip_address(name.value)
    assert name.value == name.value.lower()
    assert not name.base.rsplit(".", 1)[-1].isdigit()


@pytest.mark.requirement("IP-M1")
@given(st.ip_addresses())
def test_every_address_has_exactly_one_spelling(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return
    assert ip_address(str(address)).value == str(address)
    if address.exploded != str(address):
        with pytest.raises(InvalidName):
            ip_address(address.exploded)
