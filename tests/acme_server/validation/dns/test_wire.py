from __future__ import annotations

import struct
from ipaddress import ip_address
from itertools import pairwise

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.validation.dns.wire import (
    UDP_PAYLOAD,
    Answer,
    InvalidMessage,
    Question,
    RecordType,
    answer,
    question,
    wire_name,
)
from tests.support.processor import least_time

NAME = "www.example.com"
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=6).map(".".join)
types = st.sampled_from(list(RecordType))


def asked(name: str = NAME, type_: RecordType = RecordType.A, id_: int = 4711) -> Question:
    return question(wire_name(name), type_, id_)


def reply(query: Question, *rrsets: dns.rrset.RRset, rcode: int = 0, flags: int = 0) -> dns.message.Message:
    message = dns.message.make_response(dns.message.from_wire(query.wire))
    message.answer.extend(rrsets)
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.flags |= flags
    return message


@given(names, types, st.integers(0, 65535))
def test_a_query_is_what_dnspython_reads_as_one(name: str, type_: RecordType, id_: int) -> None:
    message = dns.message.from_wire(asked(name, type_, id_).wire)
    assert message.id == id_
    assert message.flags == dns.flags.RD
    assert message.payload == UDP_PAYLOAD
    assert message.edns == 0
    assert [(each.name.to_text(), int(each.rdtype)) for each in message.question] == [(f"{name}.", int(type_))]


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, ".".join(["x" * 50] * 6)])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(InvalidMessage):
        wire_name(name)


ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)


@given(name=names, data=st.data())
def test_addresses_and_aliases_are_read_as_dnspython_reads_them(name: str, data: st.DataObject) -> None:
    type_ = data.draw(types)
    query = asked(name, type_)
    chain = [name, *data.draw(st.lists(names, max_size=4))]
    rrsets = [dns.rrset.from_text(f"{owner}.", 60, "IN", "CNAME", f"{alias}.") for owner, alias in pairwise(chain)]
    addresses = data.draw(st.lists(ipv4 if type_ is RecordType.A else ipv6, max_size=4, unique=True))
    if addresses:
        rrsets.append(dns.rrset.from_text(f"{chain[-1]}.", 60, "IN", type_.name, *addresses))
    message = reply(query, *data.draw(st.permutations(rrsets)))
    wire = message.to_wire()
    try:
        theirs = dns.message.from_wire(wire).resolve_chaining()  # type: ignore[attr-defined]
        expected = {ip_address(each.address) for each in theirs.answer or ()}
    except dns.exception.DNSException:
        return  # loops among the aliases: that we end is for the next test
    try:
        ours = answer(wire, query)
    except InvalidMessage:
        assert len(set(chain)) < len(chain)
        return
    assert set(ours.addresses) == expected


@pytest.mark.requirement("SEC40")
@given(st.binary(max_size=600))
def test_no_bytes_are_anything_but_an_answer_or_invalid(message: bytes) -> None:
    try:
        assert isinstance(answer(message, asked()), Answer)
    except InvalidMessage:
        return


@pytest.mark.requirement("SEC40")
@given(st.data())
def test_no_damage_to_an_answer_is_anything_but_an_answer_or_invalid(data: st.DataObject) -> None:
    query = asked()
    rrsets = [
        dns.rrset.from_text(f"{NAME}.", 60, "IN", "CNAME", "a.example.com."),
        dns.rrset.from_text("a.example.com.", 60, "IN", "CNAME", "b.example.com."),
        dns.rrset.from_text("b.example.com.", 60, "IN", "A", "10.0.0.1", "10.0.0.2"),
    ]
    wire = bytearray(reply(query, *rrsets).to_wire())
    for _ in range(data.draw(st.integers(1, 8))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))
    try:
        assert isinstance(answer(bytes(wire[:cut]), query), Answer)
    except InvalidMessage:
        return


def test_case_of_the_answer_does_not_matter() -> None:
    query = asked("WWW.Example.COM")
    rrset = dns.rrset.from_text("www.EXAMPLE.com.", 60, "IN", "A", "10.0.0.1")
    assert [str(each) for each in answer(reply(query, rrset).to_wire(), query).addresses] == ["10.0.0.1"]


def test_an_answer_to_another_query_is_none() -> None:
    rrset = dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "10.0.0.1")
    wire = reply(asked(), rrset).to_wire()
    for other in (asked(id_=4712), asked("other.example.com"), asked(type_=RecordType.AAAA)):
        with pytest.raises(InvalidMessage):
            answer(wire, other)
    with pytest.raises(InvalidMessage):
        answer(asked().wire, asked())  # our own query, sent back


def test_addresses_of_other_names_in_the_answer_do_not_count() -> None:
    query = asked()
    rrset = dns.rrset.from_text("evil.example.com.", 60, "IN", "A", "10.6.6.6")
    assert answer(reply(query, rrset).to_wire(), query).addresses == ()


def test_truncation_is_told_and_nothing_else_is_believed() -> None:
    query = asked()
    rrset = dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "10.0.0.1")
    found = answer(reply(query, rrset, flags=dns.flags.TC).to_wire(), query)
    assert found.truncated
    assert found.addresses == ()


def test_an_alias_that_the_server_has_not_followed_is_told() -> None:
    query = asked()
    alias = dns.rrset.from_text(f"{NAME}.", 60, "IN", "CNAME", "target.example.net.")
    assert answer(reply(query, alias).to_wire(), query).alias == wire_name("target.example.net")
    followed = reply(query, alias)
    followed.authority.append(
        dns.rrset.from_text("example.net.", 60, "IN", "SOA", "ns.example.net. admin.example.net. 1 2 3 4 5")
    )
    assert answer(followed.to_wire(), query).alias is None
    assert answer(reply(query, alias, rcode=3).to_wire(), query).alias is None


@pytest.mark.requirement("SEC52")
def test_aliases_that_go_in_circles_are_invalid() -> None:
    query = asked()
    rrsets = [
        dns.rrset.from_text(f"{NAME}.", 60, "IN", "CNAME", "a.example.com."),
        dns.rrset.from_text("a.example.com.", 60, "IN", "CNAME", f"{NAME}."),
    ]
    with pytest.raises(InvalidMessage, match="aliases"):
        answer(reply(query, *rrsets).to_wire(), query)


@pytest.mark.requirement("SEC52")
def test_compression_that_does_not_point_back_is_invalid() -> None:
    query = asked()
    header = struct.pack("!HHHHHH", query.id, 0x8000, 1, 0, 0, 0)
    for name in (b"\xc0\x0c", b"\x01a\xc0\x0c", b"\xc0\x20", b"\xff\xff", b"\x80abc"):
        with pytest.raises(InvalidMessage):
            answer(header + name + struct.pack("!HH", 1, 1) + b"\0" * 20, query)


@pytest.mark.requirement("SEC40", "SEC41", "SEC52")
def test_pointers_that_lead_from_one_to_the_next_are_followed_only_so_far() -> None:
    query = asked()
    head = bytearray(reply(query).to_wire()[: len(query.wire) - 11])
    struct.pack_into("!H", head, 6, 100)
    first = len(head) + 12  # the data of the first record: pointers, each to the one before it
    chain = b"".join(struct.pack("!H", 0xC000 | (first + 2 * number)) for number in range(8000))
    chain = b"\0\0" + chain[: 2 * ((0x3FFF - first) // 2)]
    records = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 0, len(chain)) + chain
    last = struct.pack("!H", 0xC000 | (first + len(chain) - 2))
    records += (last + struct.pack("!HHIH", 16, 1, 0, 0)) * 99

    def refused() -> None:
        with pytest.raises(InvalidMessage, match="too many compression pointers"):
            answer(bytes(head) + records, query)

    assert least_time(refused) < 0.05


def test_a_name_longer_than_names_can_be_is_invalid() -> None:
    query = asked()
    header = struct.pack("!HHHHHH", query.id, 0x8000, 1, 0, 0, 0)
    with pytest.raises(InvalidMessage, match="too long"):
        answer(header + (b"\x3f" + b"x" * 63) * 5 + b"\0" + struct.pack("!HH", 1, 1), query)


@pytest.mark.parametrize(
    ("type_", "data", "complaint"),
    [(1, b"\x0a\0\0", "wrong length"), (5, b"\x01a\0\0", "wrong length"), (1, b"\x0a", "wrong length")],
)
def test_records_of_the_wrong_length_are_invalid(type_: int, data: bytes, complaint: str) -> None:
    query = asked()
    header = struct.pack("!HHHHHH", query.id, 0x8000, 1, 1, 0, 0)
    body = wire_name(NAME) + struct.pack("!HH", 1, 1) + b"\xc0\x0c" + struct.pack("!HHIH", type_, 1, 60, len(data))
    with pytest.raises(InvalidMessage, match=complaint):
        answer(header + body + data, query)


@pytest.mark.requirement("SEC52")
def test_more_records_than_anybody_needs_are_invalid() -> None:
    query = asked()
    header = struct.pack("!HHHHHH", query.id, 0x8000, 1, 2000, 0, 0)
    with pytest.raises(InvalidMessage, match="too many"):
        answer(header + wire_name(NAME) + struct.pack("!HH", 1, 1), query)


def test_a_message_that_is_cut_is_invalid() -> None:
    query = asked()
    wire = reply(query, dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "10.0.0.1")).to_wire()
    position = wire.index(b"\x0a\0\0\x01")
    for cut in (0, 5, 14, position + 2):
        with pytest.raises(InvalidMessage):
            answer(wire[:cut], query)
