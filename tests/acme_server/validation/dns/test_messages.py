from __future__ import annotations

from itertools import pairwise

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
from acme_server.validation.dns.messages import BrokenAnswer, Query, Reading, RecordKind
from acme_server.validation.dns.wire import UDP_PAYLOAD, InvalidMessage
from tests.support.processor import least_time

NAME = "_acme-challenge.www.example.com"
labels = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=6).map(".".join)
kinds: st.SearchStrategy[RecordKind] = st.sampled_from(["TXT", "CAA"])


def asked(name: str = NAME, kind: RecordKind = "TXT") -> Query:
    return messages.query(messages.record_name(name), kind, 4711)


def reply(query: Query, *rrsets: dns.rrset.RRset, rcode: int = 0, flags: int = 0) -> bytes:
    message = dns.message.make_response(query.message)
    message.answer.extend(rrsets)
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.flags |= flags
    return message.to_wire(max_size=65535)


def alias(owner: str, target: str, type_: str = "CNAME") -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{owner}.", 60, "IN", type_, f"{target}.")


def txt(owner: str, *values: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{owner}.", 60, "IN", "TXT", *values)


def texts(reading: Reading) -> list[bytes]:
    return sorted(messages.texts(reading.records))


@given(names, kinds)
def test_a_query_asks_for_recursion_and_leaves_dnssec_to_the_resolver(name: str, kind: RecordKind) -> None:
    message = dns.message.from_wire(asked(name, kind).wire)
    assert message.id == 4711
    assert message.flags == dns.flags.RD  # not CD: a resolver that validates answers SERVFAIL for what is bogus
    assert (message.edns, message.payload) == (0, UDP_PAYLOAD)
    assert [each.to_text() for each in message.question] == [f"{name}. IN {kind}"]


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, ".".join(["x" * 50] * 6), "bücher.example"])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match=r"not a DNS name|ascii"):
        messages.record_name(name)


@given(st.lists(st.lists(st.binary(max_size=255), min_size=1, max_size=5), max_size=5))
@pytest.mark.requirement("SEC52")
def test_the_strings_of_each_txt_record_are_joined(values: list[list[bytes]]) -> None:
    query = asked()
    owner = query.name
    rrsets = []
    if values:
        records = [TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings) for strings in values]
        rrsets.append(dns.rrset.from_rdata_list(owner, 60, records))
    reading = messages.read(reply(query, *rrsets), query)
    assert set(texts(reading)) == {b"".join(strings) for strings in values}


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
    reading = messages.read(reply(query, *rrsets), query)
    assert set(messages.properties(reading.records)) == set(sent)


@given(names, st.lists(names, max_size=6), st.data())
def test_aliases_are_followed_in_whatever_order_they_come(name: str, more: list[str], data: st.DataObject) -> None:
    chain = list(dict.fromkeys([name, *more]))
    query = asked(name)
    rrsets = [alias(*each) for each in pairwise(chain)] + [txt(chain[-1], '"found"')]
    assert texts(messages.read(reply(query, *data.draw(st.permutations(rrsets))), query)) == [b"found"]


@pytest.mark.requirement("SEC52")
def test_more_than_eight_aliases_are_too_many() -> None:
    query = asked("a0.example.com")
    chain = [f"a{number}.example.com" for number in range(30)]
    with pytest.raises(BrokenAnswer, match="aliases"):
        messages.read(reply(query, *[alias(*each) for each in pairwise(chain)]), query)


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("target", [NAME, "_acme-challenge.other.example.com"])
def test_aliases_that_go_in_circles_end(target: str) -> None:
    query = asked()
    with pytest.raises(BrokenAnswer, match="aliases"):
        messages.read(reply(query, alias(NAME, target), alias(target, NAME)), query)


@pytest.mark.requirement("SEC52")
def test_a_renamed_subtree_is_followed_with_and_without_the_alias_that_servers_make_of_it() -> None:
    query = asked()
    renamed = alias("example.com", "example.net", "DNAME")
    found = txt("_acme-challenge.www.example.net", '"found"')
    made = alias(NAME, "_acme-challenge.www.example.net")
    assert texts(messages.read(reply(query, renamed, made, found), query)) == [b"found"]
    assert texts(messages.read(reply(query, renamed, found), query)) == [b"found"]


def test_a_renamed_subtree_does_not_rename_its_own_top_nor_its_neighbours() -> None:
    query = asked()
    elsewhere = [alias(NAME, "a.example.net", "DNAME"), alias("other.example.com", "b.example.net", "DNAME")]
    reading = messages.read(reply(query, *elsewhere), query)
    assert (reading.records, reading.alias) == ((), None)


@pytest.mark.requirement("SEC52")
def test_renaming_in_circles_ends() -> None:
    query = asked()
    longer = alias("com", "example.com", "DNAME")
    with pytest.raises(BrokenAnswer, match=r"aliases|too long"):
        messages.read(reply(query, longer), query)
    longest = alias("com", ".".join(["x" * 50] * 4), "DNAME")
    with pytest.raises(BrokenAnswer, match="too long"):
        messages.read(reply(asked(f"{'y' * 60}.com"), longest), asked(f"{'y' * 60}.com"))


def test_an_alias_that_the_server_has_not_followed_is_told() -> None:
    query = asked()
    assert messages.read(reply(query, alias(NAME, "a.example.net")), query).alias == dns.name.from_text("a.example.net")


def test_records_of_other_names_types_and_classes_do_not_count() -> None:
    query = asked()
    others = [
        txt("www.example.com", '"other name"'),
        dns.rrset.from_text(f"{NAME}.", 60, "CH", "TXT", '"other class"'),
        dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "10.0.0.1"),
    ]
    assert texts(messages.read(reply(query, *others), query)) == []


@pytest.mark.requirement("SEC52")
def test_answers_to_other_queries_are_none() -> None:
    query = asked()
    for other in (
        messages.query(query.name, "TXT", 4712),
        asked("www.example.com"),
        asked(kind="CAA"),
    ):
        with pytest.raises(InvalidMessage):
            messages.read(reply(other, txt(NAME, '"x"')), query)
    with pytest.raises(InvalidMessage):
        messages.read(query.wire, query)


def test_truncated_answers_are_told_even_if_they_end_in_the_middle() -> None:
    query = asked()
    wire = reply(query, txt(NAME, '"value"'), flags=dns.flags.TC)
    assert messages.read(wire[:-4], query).truncated


@pytest.mark.requirement("SEC52")
def test_more_than_a_hundred_records_are_too_many() -> None:
    query = asked()
    with pytest.raises(BrokenAnswer, match="records"):
        messages.read(reply(query, txt(NAME, *(f'"{number}"' for number in range(101)))), query)


def test_an_answer_that_is_cut_short_is_broken() -> None:
    query = asked(kind="CAA")
    wire = reply(query, dns.rrset.from_text(f"{NAME}.", 60, "IN", "CAA", '0 issue "ca.example.com"'))
    with pytest.raises(BrokenAnswer):
        messages.read(wire.replace(b"issue", b"is-ue"), query)


@given(kinds, st.data())
@pytest.mark.requirement("SEC40")
def test_no_bytes_do_anything_else_than_be_read_or_refused(kind: RecordKind, data: st.DataObject) -> None:
    query = asked("www.example.com", kind)
    content = '0 issue "ca.example.com"' if kind == "CAA" else '"some" "text"'
    sent = bytearray(
        reply(
            query,
            alias("www.example.com", "a.example.net"),
            dns.rrset.from_text("a.example.net.", 60, "IN", kind, content),
            alias("example.net", "example.org", "DNAME"),
        )
    )
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(sent) - 1), st.integers(0, 255)), max_size=8)
    ):
        sent[position] = value
    wire = bytes(sent[: data.draw(st.integers(0, len(sent)))]) if data.draw(st.booleans()) else bytes(sent)
    try:
        reading = messages.read(wire, query)
    except InvalidMessage:
        return
    assert all(isinstance(each, bytes) for each in (messages.texts if kind == "TXT" else _tags)(reading.records))


def _tags(records: tuple[dns.rdata.Rdata, ...]) -> tuple[bytes, ...]:
    return tuple(each.tag for each in messages.properties(records))


@given(kinds, st.binary(max_size=200))
@pytest.mark.requirement("SEC40")
def test_arbitrary_bytes_behind_a_good_header_are_read_or_refused(kind: RecordKind, tail: bytes) -> None:
    query = asked("www.example.com", kind)
    head = bytearray(reply(query)[: len(query.wire) - 11])  # without EDNS
    head[7] = 2
    head[11] = 0
    try:
        messages.read(bytes(head) + tail, query)
    except InvalidMessage:
        return


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
    assert texts(messages.read(bytes(wire), query)) == []
    assert least_time(lambda: messages.read(bytes(wire), query)) < 0.05
