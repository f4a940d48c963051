from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Literal

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from dns.rdtypes.ANY.CAA import CAA
from dns.rdtypes.ANY.TXT import TXT
from hypothesis import given
from hypothesis import strategies as st

from acme_server.validation.caa_rules import Property
from acme_server.validation.dns import messages
from acme_server.validation.dns.messages import (
    UDP_PAYLOAD,
    MalformedResponse,
    Query,
    RecordType,
    Response,
    UnrelatedMessage,
    read_response,
)
from tests.support.processor import least_time

NAME = "_acme-challenge.www.example.com"
LONGEST = 0.02
labels = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=6).map(".".join)
types: st.SearchStrategy[RecordType] = st.sampled_from(["A", "AAAA", "TXT", "CAA"])


def asked(name: str = NAME, type_: RecordType = "TXT", id_: int = 4711) -> Query:
    return messages.build_query(messages.parse_name(name), type_, id_)


def reply(query: Query, *rrsets: dns.rrset.RRset, rcode: int = 0, flags: int = 0) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(query.wire))
    message.answer.extend(rrsets)
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.flags |= flags
    return message.to_wire(max_size=65535)


def alias(owner: str, target: str, type_: str = "CNAME") -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{owner}.", 60, "IN", type_, f"{target}.")


def txt(owner: str, *values: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{owner}.", 60, "IN", "TXT", *values)


def texts(response: Response) -> list[bytes]:
    return sorted(messages.texts(response.records))


@given(names, types, st.integers(0, 65535))
def test_a_query_asks_for_recursion_and_leaves_dnssec_to_the_resolver(name: str, type_: RecordType, id_: int) -> None:
    message = dns.message.from_wire(asked(name, type_, id_).wire)
    assert message.id == id_
    assert message.flags == dns.flags.RD  # not CD: a resolver that validates answers SERVFAIL for what is bogus
    assert (message.edns, message.payload) == (0, UDP_PAYLOAD)
    assert [each.to_text() for each in message.question] == [f"{name}. IN {type_}"]


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, ".".join(["x" * 50] * 6), "bücher.example"])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match="not a DNS name"):
        messages.parse_name(name)


@given(st.lists(st.lists(st.binary(max_size=255), min_size=1, max_size=5), max_size=5))
@pytest.mark.requirement("SEC52")
def test_the_strings_of_each_txt_record_are_joined(values: list[list[bytes]]) -> None:
    query = asked()
    owner = query.name
    rrsets = []
    if values:
        records = [TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings) for strings in values]
        rrsets.append(dns.rrset.from_rdata_list(owner, 60, records))
    response = read_response(reply(query, *rrsets), query)
    assert set(texts(response)) == {b"".join(strings) for strings in values}


@given(
    st.lists(
        st.builds(
            Property,
            flags=st.integers(0, 255),
            tag=st.from_regex(rb"[a-zA-Z0-9]{1,20}", fullmatch=True),
            value=st.binary(max_size=300),
        ),
        max_size=5,
    )
)
def test_properties_are_read_as_they_were_sent(sent: list[Property]) -> None:
    query = asked("example.com", "CAA")
    classes = dns.rdataclass.IN, dns.rdatatype.CAA
    records = [CAA(*classes, each.flags, each.tag, each.value) for each in sent]  # type: ignore[no-untyped-call]
    rrsets = [dns.rrset.from_rdata_list(query.name, 60, records)] if records else []
    response = read_response(reply(query, *rrsets), query)
    assert set(messages.properties(response.records)) == set(sent)


@given(st.sampled_from([4, 6]), st.data())
def test_addresses_are_read(version: Literal[4, 6], data: st.DataObject) -> None:
    sent = data.draw(st.lists(st.ip_addresses(v=version), max_size=4, unique=True))
    type_: RecordType = "A" if version == 4 else "AAAA"
    query = asked("www.example.com", type_)
    rrsets = [dns.rrset.from_text("www.example.com.", 60, "IN", type_, *map(str, sent))] if sent else []
    assert set(messages.addresses(read_response(reply(query, *rrsets), query).records)) == set(sent)


def test_case_of_the_response_does_not_matter() -> None:
    query = asked("WWW.Example.COM", "A")
    sent = reply(query, dns.rrset.from_text("www.EXAMPLE.com.", 60, "IN", "A", "10.0.0.1"))
    assert [str(each) for each in messages.addresses(read_response(sent, query).records)] == ["10.0.0.1"]


@given(names, st.lists(names, max_size=6), st.data())
def test_aliases_are_followed_in_whatever_order_they_come(name: str, more: list[str], data: st.DataObject) -> None:
    chain = list(dict.fromkeys([name, *more]))
    query = asked(name)
    rrsets = [alias(*each) for each in pairwise(chain)] + [txt(chain[-1], '"found"')]
    assert texts(read_response(reply(query, *data.draw(st.permutations(rrsets))), query)) == [b"found"]


@pytest.mark.requirement("SEC52")
def test_more_than_eight_aliases_are_too_many() -> None:
    query = asked("a0.example.com")
    chain = [f"a{number}.example.com" for number in range(12)]
    with pytest.raises(MalformedResponse, match="aliases"):
        read_response(reply(query, *[alias(*each) for each in pairwise(chain)]), query)


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("target", [NAME, "_acme-challenge.other.example.com"])
def test_aliases_that_go_in_circles_end(target: str) -> None:
    query = asked()
    with pytest.raises(MalformedResponse, match="aliases"):
        read_response(reply(query, alias(NAME, target), alias(target, NAME)), query)


@pytest.mark.requirement("SEC52")
def test_a_renamed_subtree_is_followed_with_and_without_the_alias_that_servers_make_of_it() -> None:
    query = asked()
    renamed = alias("example.com", "example.net", "DNAME")
    found = txt("_acme-challenge.www.example.net", '"found"')
    made = alias(NAME, "_acme-challenge.www.example.net")
    assert texts(read_response(reply(query, renamed, made, found), query)) == [b"found"]
    assert texts(read_response(reply(query, renamed, found), query)) == [b"found"]


def test_a_renamed_subtree_does_not_rename_its_own_top_nor_its_neighbours() -> None:
    query = asked()
    elsewhere = [alias(NAME, "a.example.net", "DNAME"), alias("other.example.com", "b.example.net", "DNAME")]
    response = read_response(reply(query, *elsewhere), query)
    assert (response.records, response.alias) == ((), None)


@pytest.mark.requirement("SEC52")
def test_renaming_in_circles_ends() -> None:
    query = asked()
    longer = alias("com", "example.com", "DNAME")
    with pytest.raises(MalformedResponse, match=r"aliases|too long"):
        read_response(reply(query, longer), query)
    longest = alias("com", ".".join(["x" * 50] * 4), "DNAME")
    with pytest.raises(MalformedResponse, match="too long"):
        read_response(reply(asked(f"{'y' * 60}.com"), longest), asked(f"{'y' * 60}.com"))


def test_an_alias_that_the_server_has_followed_is_not_told() -> None:
    query = asked()
    message = dns.message.make_response(dns.message.from_wire(query.wire))
    message.answer.append(alias(NAME, "a.example.net"))
    soa = "ns.example.net. admin.example.net. 1 2 3 4 5"
    message.authority.append(dns.rrset.from_text("example.net.", 60, "IN", "SOA", soa))
    assert read_response(message.to_wire(), query).alias is None
    assert read_response(reply(query, alias(NAME, "a.example.net"), rcode=3), query).alias is None


def test_an_alias_that_the_server_has_not_followed_is_told() -> None:
    query = asked()
    assert read_response(reply(query, alias(NAME, "a.example.net")), query).alias == dns.name.from_text("a.example.net")


def test_records_of_other_names_types_and_classes_do_not_count() -> None:
    query = asked()
    others = [
        txt("www.example.com", '"other name"'),
        dns.rrset.from_text(f"{NAME}.", 60, "CH", "TXT", '"other class"'),
        dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "10.0.0.1"),
    ]
    assert texts(read_response(reply(query, *others), query)) == []


@pytest.mark.requirement("SEC52")
def test_answers_to_other_queries_are_none() -> None:
    query = asked()
    for other in (
        asked(id_=4712),
        asked("www.example.com"),
        asked(type_="CAA"),
    ):
        with pytest.raises(UnrelatedMessage):
            read_response(reply(other, txt(NAME, '"x"')), query)
    for message in (query.wire, b"", query.wire[:11]):
        with pytest.raises(UnrelatedMessage):
            read_response(message, query)


def test_truncated_answers_are_told_even_if_they_end_in_the_middle_and_not_believed() -> None:
    query = asked()
    wire = reply(query, txt(NAME, '"value"'), flags=dns.flags.TC)
    for sent in (wire, wire[:-4]):
        assert read_response(sent, query) == Response(0, truncated=True)


@pytest.mark.requirement("SEC52")
def test_more_than_a_hundred_records_are_too_many() -> None:
    query = asked()
    with pytest.raises(MalformedResponse, match="records"):
        read_response(reply(query, txt(NAME, *(f'"{number}"' for number in range(101)))), query)


def test_an_answer_that_is_cut_short_is_broken() -> None:
    query = asked(type_="CAA")
    wire = reply(query, dns.rrset.from_text(f"{NAME}.", 60, "IN", "CAA", '0 issue "ca.example.com"'))
    with pytest.raises(MalformedResponse):
        read_response(wire.replace(b"issue", b"is-ue"), query)


CONTENTS: dict[RecordType, str] = {
    "A": "192.0.2.1",
    "AAAA": "2001:db8::1",
    "TXT": '"some" "text"',
    "CAA": '0 issue "ca.example.com"',
}


def use(response: Response, type_: RecordType) -> None:
    """Read the records as the client does."""
    if type_ == "TXT":
        assert all(isinstance(each, bytes) for each in messages.texts(response.records))
    elif type_ == "CAA":
        assert all(isinstance(each.tag, bytes) for each in messages.properties(response.records))
    else:
        assert {each.version for each in messages.addresses(response.records)} <= {6 if type_ == "AAAA" else 4}


@given(types, st.data())
@pytest.mark.requirement("SEC40")
def test_no_bytes_do_anything_else_than_be_read_or_refused(type_: RecordType, data: st.DataObject) -> None:
    query = asked("www.example.com", type_)
    sent = bytearray(
        reply(
            query,
            alias("www.example.com", "a.example.net"),
            dns.rrset.from_text("a.example.net.", 60, "IN", type_, CONTENTS[type_]),
            alias("example.net", "example.org", "DNAME"),
        )
    )
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(sent) - 1), st.integers(0, 255)), max_size=8)
    ):
        sent[position] = value
    wire = bytes(sent[: data.draw(st.integers(0, len(sent)))]) if data.draw(st.booleans()) else bytes(sent)
    try:
        use(read_response(wire, query), type_)
    except (UnrelatedMessage, MalformedResponse):
        return


@pytest.mark.requirement("SEC40")
@given(types, st.binary(max_size=600))
def test_arbitrary_bytes_are_read_or_refused(type_: RecordType, message: bytes) -> None:
    query = asked(type_=type_)
    for wire in (message, query.wire[:2] + message):
        try:
            use(read_response(wire, query), type_)
        except (UnrelatedMessage, MalformedResponse):
            continue


@given(types, st.binary(max_size=200))
@pytest.mark.requirement("SEC40")
def test_arbitrary_bytes_behind_a_good_header_are_read_or_refused(type_: RecordType, tail: bytes) -> None:
    query = asked("www.example.com", type_)
    head = bytearray(reply(query)[: len(query.wire) - 11])  # without EDNS
    head[7] = 2
    head[11] = 0
    try:
        read_response(bytes(head) + tail, query)
    except (UnrelatedMessage, MalformedResponse):
        return


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("name", [b"\xc0\x0c", b"\x01a\xc0\x0c", b"\xc0\x20", b"\xff\xff", b"\x80abc", b"\x3fx" * 5])
def test_a_name_that_does_not_end_is_no_response(name: bytes) -> None:
    query = asked()
    header = struct.pack("!HHHHHH", 4711, 0x8000, 1, 0, 0, 0)
    with pytest.raises(UnrelatedMessage):
        read_response(header + name + struct.pack("!HH", 16, 1) + b"\0" * 20, query)


@pytest.mark.requirement("SEC40", "SEC41", "SEC52")
def test_pointers_that_lead_from_one_to_the_next_are_followed_only_so_far() -> None:
    query = asked()
    head = bytearray(query.wire[:-11])  # without EDNS
    head[2] |= 0x80
    struct.pack_into("!HHH", head, 6, 100, 0, 0)
    first = len(head) + 12  # the data of the first record: pointers, each to the one before it
    chain = b"".join(struct.pack("!H", 0xC000 | (first + 2 * number)) for number in range(8000))
    chain = b"\0\0" + chain[: 2 * ((0x3FFF - first) // 2)]
    records = b"\xc0\x0c" + struct.pack("!HHIH", 10, 1, 0, len(chain)) + chain
    last = struct.pack("!H", 0xC000 | (first + len(chain) - 2))
    records += (last + struct.pack("!HHIH", 16, 1, 0, 0)) * 99

    def refuse() -> None:
        with pytest.raises(MalformedResponse):
            read_response(bytes(head) + records, query)

    assert least_time(refuse) < LONGEST


@pytest.mark.parametrize(("type_", "data"), [("A", b"\x0a\0\0"), ("A", b"\x0a\0\0\1\0"), ("AAAA", b"\x0a\0\0\1")])
def test_addresses_of_the_wrong_length_are_malformed(type_: RecordType, data: bytes) -> None:
    query = asked(type_=type_)
    head = bytearray(query.wire[:-11])  # without EDNS
    head[2] |= 0x80
    struct.pack_into("!HHH", head, 6, 1, 0, 0)
    with pytest.raises(MalformedResponse):
        read_response(bytes(head) + b"\xc0\x0c" + struct.pack("!HHIH", query.type, 1, 60, len(data)) + data, query)


@pytest.mark.requirement("SEC41")
def test_the_most_laborious_answer_is_read_in_a_moment() -> None:
    # A hundred owners that differ, each a chain of pointers into those before.
    query = asked("www.example.com")
    wire = bytearray(query.wire[: len(query.wire) - 11])  # without EDNS
    wire[2] |= 0x80
    wire[6:8] = (100).to_bytes(2, "big")
    wire[10:12] = b"\0\0"
    target = 12
    for number in range(100):
        start = len(wire)
        wire += b"\x01x" + (0xC000 | target).to_bytes(2, "big") + b"\0\x10\0\1\0\0\0\0\0\x65\x64" + b"t" * 100
        target = start if number % 8 else 12

    def refuse() -> None:
        with pytest.raises(MalformedResponse, match="too many names"):
            read_response(bytes(wire), asked("www.example.com"))

    assert least_time(refuse) < LONGEST


@pytest.mark.requirement("SEC52", "SEC74")
def test_a_response_may_have_as_many_names_as_a_chain_of_aliases_needs() -> None:
    query = asked("w.a0.example")
    chain = [f"a{number}.example" for number in range(9)]
    rrsets = [each for a, b in pairwise(chain) for each in (alias(a, b, "DNAME"), alias(f"w.{a}", f"w.{b}"))]
    answer = reply(query, *rrsets, txt("w.a8.example", *(f'"{number}"' for number in range(80))))
    assert len(texts(read_response(answer, query))) == 80


def pointer(offset: int) -> bytes:
    return struct.pack("!H", 0xC000 | offset)


@pytest.mark.requirement("SEC41", "SEC74")
@pytest.mark.parametrize("owner", [lambda _: pointer(12), lambda number: pointer(12 + 2 * number)])
@pytest.mark.parametrize("section", [0, 1, 2])
@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (1, lambda number: bytes([10, 0, 0, number])),
        (2, lambda number: pointer(12 + 2 * number)),  # NS
        (5, lambda _: pointer(12)),  # CNAME
        (5, lambda number: pointer(12 + 2 * number)),
        (39, lambda number: b"\x01y" + pointer(14 + 2 * number)),  # DNAME
        (6, lambda _: pointer(12) + pointer(14) + bytes(20)),  # SOA
        (17, lambda _: pointer(12) + pointer(14)),  # RP
    ],
)
def test_a_hundred_records_with_names_of_very_many_labels_are_read_in_a_moment(
    type_: int, data: Callable[[int], bytes], owner: Callable[[int], bytes], section: int
) -> None:
    query = asked(".".join("x" * 120), "A")
    wire = bytearray(query.wire[: len(query.wire) - 11])  # without EDNS
    wire[2] |= 0x80
    struct.pack_into("!HHH", wire, 6, *(100 * (each == section) for each in range(3)))
    for number in range(100):
        wire += owner(number) + struct.pack("!HHIH", type_, 1, 60, len(data(number))) + data(number)

    def read() -> None:
        with suppress(MalformedResponse):
            read_response(bytes(wire), query)

    assert least_time(read) < LONGEST


@pytest.mark.requirement("SEC41")
def test_no_more_than_one_question_is_read() -> None:
    query = asked(".".join("x" * 120), "A")
    wire = bytearray(query.wire[: len(query.wire) - 11])
    wire[2] |= 0x80
    struct.pack_into("!HHHH", wire, 4, 2001, 0, 0, 0)
    wire += (pointer(12) + struct.pack("!HH", 1, 1)) * 2000

    def refuse() -> None:
        with pytest.raises(UnrelatedMessage):
            read_response(bytes(wire), query)

    assert least_time(refuse) < 0.01


@pytest.mark.parametrize("rcode", [16, 23])
def test_the_upper_bits_of_the_response_code_count(rcode: int) -> None:
    response = dns.message.make_response(dns.message.from_wire(asked().wire))
    response.set_rcode(dns.rcode.Rcode.make(rcode))
    assert read_response(response.to_wire(), asked()).rcode == rcode


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_a_failure_need_not_repeat_the_question(rcode: int) -> None:
    head = bytearray(asked().wire[:12])
    head[2] |= 0x80
    head[3] |= rcode
    struct.pack_into("!HHHH", head, 4, 0, 0, 0, 0)
    assert read_response(bytes(head), asked()).rcode == rcode


def test_an_answer_without_a_question_is_none() -> None:
    head = bytearray(asked().wire[:12])
    head[2] |= 0x80
    struct.pack_into("!HHHH", head, 4, 0, 0, 0, 0)
    with pytest.raises(UnrelatedMessage):
        read_response(bytes(head), asked())


@pytest.mark.requirement("SEC41")
def test_a_query_for_a_name_of_very_many_labels_is_built_in_a_moment() -> None:
    name = messages.parse_name(".".join("x" * 120))
    assert least_time(lambda: messages.build_query(name, "A", 4711)) < 0.001


@given(name=names, type_=types, id_=st.integers(0, 0xFFFF))
def test_a_query_is_that_of_dnspython(name: str, type_: RecordType, id_: int) -> None:
    query = dns.message.make_query(f"{name}.", type_, use_edns=0, payload=UDP_PAYLOAD, id=id_)
    assert asked(name, type_, id_).wire == query.to_wire()


def test_octets_after_the_last_record_are_malformed() -> None:
    query = asked()
    with pytest.raises(MalformedResponse):
        read_response(reply(query, txt(NAME, "x")) + b"\0", query)
