from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.client import MAXIMUM_MESSAGE, LookupFailed, Resolver, system_servers
from kms.address import Address
from tests.support.eventually import until
from tests.support.nameserver import NameServer, running_nameserver

NAME = "_acme-challenge.web.example.com"
HOST = "web.example.com"


async def texts(*servers: Address, name: str = NAME, seconds: float = 2.0) -> list[bytes]:
    return sorted((await Resolver(servers, timeout=seconds).txt(name)).values)


async def addresses(nameserver: NameServer, name: str = HOST, seconds: float = 2.0) -> list[str]:
    return [str(each) for each in await Resolver([nameserver.address], timeout=seconds).addresses(name)]


async def failure(*servers: Address, name: str = NAME, seconds: float = 2.0) -> str:
    with pytest.raises(LookupFailed) as caught:
        await texts(*servers, name=name, seconds=seconds)
    return str(caught.value)


async def failure_of_addresses(nameserver: NameServer, seconds: float = 2.0) -> str:
    with pytest.raises(LookupFailed) as caught:
        await addresses(nameserver, seconds=seconds)
    return str(caught.value)


async def test_all_text_records_are_found_and_their_strings_joined(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"one"', '"t" "w" "o"']
    assert await texts(nameserver.address) == [b"one", b"two"]
    assert nameserver.asked == [(NAME, "TXT", "udp")]


async def test_properties_are_found(nameserver: NameServer) -> None:
    nameserver.records["example.com", "CAA"] = ['128 issue "ca.example.com; accounturi=x"', '0 iodef "mailto:a@b"']
    found = await Resolver([nameserver.address]).caa("example.com")
    assert set(found.values) == {
        Property(128, b"issue", b"ca.example.com; accounturi=x"),
        Property(0, b"iodef", b"mailto:a@b"),
    }


async def test_a_name_that_does_not_exist_differs_from_one_without_records(nameserver: NameServer) -> None:
    nameserver.records["web.example.com", "A"] = ["10.0.0.1"]
    resolver = Resolver([nameserver.address])
    assert (await resolver.txt("web.example.com")).name_exists
    assert not (await resolver.txt("other.example.com")).name_exists


@pytest.mark.requirement("SEC52", "M151")
async def test_aliases_are_followed_also_those_that_the_server_leaves_to_us(nameserver: NameServer) -> None:
    nameserver.records = {
        (NAME, "CNAME"): ["a.example.net"],
        ("unchased", NAME): [],
        ("a.example.net", "CNAME"): ["b.example.net"],
        ("b.example.net", "TXT"): ['"found"'],
    }
    assert await texts(nameserver.address) == [b"found"]
    assert [name for name, _, _ in nameserver.asked] == [NAME, "a.example.net"]


@pytest.mark.requirement("SEC52")
async def test_a_renamed_subtree_is_followed(nameserver: NameServer) -> None:
    nameserver.records = {
        ("example.com", "DNAME"): ["example.net"],
        ("_acme-challenge.web.example.net", "TXT"): ['"found"'],
    }
    assert await texts(nameserver.address) == [b"found"]
    nameserver.records["unsynthesized", NAME] = []
    assert await texts(nameserver.address) == [b"found"]


@pytest.mark.requirement("SEC52")
async def test_aliases_without_an_end_are_given_up(nameserver: NameServer) -> None:
    for number in range(20):
        nameserver.records[f"a{number}.example.net", "CNAME"] = [f"a{number + 1}.example.net"]
        nameserver.records["unchased", f"a{number}.example.net"] = []
    assert "CNAME" in await failure(nameserver.address, name="a0.example.net")
    assert len(nameserver.asked) <= 8


@pytest.mark.requirement("SEC52")
async def test_aliases_that_go_in_circles_are_given_up(nameserver: NameServer) -> None:
    nameserver.records = {(NAME, "CNAME"): ["a.example.net"], ("a.example.net", "CNAME"): [NAME]}
    assert await failure(nameserver.address) == "the DNS servers sent malformed responses"


@pytest.mark.requirement("M153", "SEC52")
async def test_truncated_answers_are_fetched_by_tcp(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.records[NAME, "TXT"] = [f'"{number:0100}"' for number in range(60)]
    assert len(await texts(nameserver.address)) == 60
    assert nameserver.asked == [(NAME, "TXT", "udp"), (NAME, "TXT", "tcp")]


async def test_broken_answers_by_tcp_are_failures(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.truncate_tcp = True
    nameserver.records[NAME, "TXT"] = ['"x"']
    assert await failure(nameserver.address) == "the DNS servers sent malformed responses"
    nameserver.hang_up = True
    assert await failure(nameserver.address) == "the DNS servers sent malformed responses"


@pytest.mark.requirement("SEC41")
async def test_an_answer_by_tcp_that_is_too_long_is_not_read(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.records[NAME, "TXT"] = [f'"{number:0255}"' for number in range(MAXIMUM_MESSAGE // 255 + 1)]
    assert await failure(nameserver.address) == "the DNS servers sent malformed responses"


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_a_server_that_cannot_tell_is_a_failure(nameserver: NameServer, rcode: str) -> None:
    nameserver.rcodes[NAME] = rcode  # SERVFAIL is what a failed DNSSEC validation looks like
    assert await failure(nameserver.address) == f"the DNS servers answered {rcode}"


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
async def test_a_server_that_does_not_know_edns_is_asked_again_without(nameserver: NameServer, rcode: str) -> None:
    nameserver.edns_unknown = rcode
    nameserver.records[NAME, "TXT"] = ['"found"']
    assert await texts(nameserver.address) == [b"found"]
    assert [query.edns for query, _ in nameserver.queries] == [0, -1]
    assert len({query.id for query, _ in nameserver.queries}) == 2
    nameserver.truncate_udp = True
    assert await texts(nameserver.address) == [b"found"]
    assert nameserver.asked[-1] == (NAME, "TXT", "tcp")


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP", "SERVFAIL"])
async def test_what_a_server_cannot_answer_at_all_is_asked_twice_at_most(nameserver: NameServer, rcode: str) -> None:
    nameserver.rcodes[NAME] = rcode
    assert await failure(nameserver.address) == f"the DNS servers answered {rcode}"
    assert len(nameserver.asked) == 2 * (1 if rcode == "SERVFAIL" else 2)


@pytest.mark.requirement("SEC52")
async def test_records_beside_a_failure_do_not_count(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"x"']
    nameserver.mangle = lambda wire: wire[:3] + bytes([wire[3] | 2]) + wire[4:]
    assert "SERVFAIL" in await failure(nameserver.address)
    nameserver.mangle = lambda wire: wire[:3] + bytes([wire[3] | 3]) + wire[4:]
    assert await texts(nameserver.address) == []


async def test_the_next_server_is_asked_where_one_cannot_tell_is_silent_or_is_not_there(
    nameserver: NameServer,
) -> None:
    nameserver.records[NAME, "TXT"] = ['"x"']
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        gone = Address("127.0.0.1", free.getsockname()[1])
    async with running_nameserver() as broken, running_nameserver() as silent:
        broken.rcodes[NAME] = "SERVFAIL"
        silent.mute = True
        assert await texts(broken.address, silent.address, gone, nameserver.address) == [b"x"]
    assert "cannot be reached" in await failure(gone)


@pytest.mark.requirement("SEC52")
async def test_a_server_that_is_slow_or_silent_is_given_up(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"x"']
    nameserver.delays[NAME] = 30.0
    begun = time.monotonic()
    assert await failure(nameserver.address, seconds=0.1) == "no DNS server answered in time"
    assert time.monotonic() - begun < 10


@pytest.mark.requirement("SEC52")
async def test_answers_that_were_not_asked_for_are_passed_over(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"good"']

    def flooded(wire: bytes) -> list[bytes]:
        forged = wire.replace(b"good", b"evil")
        return [b"", b"x", bytes((forged[0] ^ 1,)) + forged[1:], forged.replace(b"\x03web", b"\x03wab"), wire]

    nameserver.mangle = flooded
    assert await texts(nameserver.address) == [b"good"]


@pytest.mark.requirement("SEC52")
async def test_an_answer_from_another_server_is_not_taken(nameserver: NameServer) -> None:
    nameserver.mute = True
    nameserver.records[NAME, "TXT"] = ['"x"']
    lookup = asyncio.create_task(failure(nameserver.address, seconds=0.3))
    await until(lambda: bool(nameserver.queries))
    query, client = nameserver.queries[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(nameserver.reply(query, "udp").to_wire(), client)
        assert await lookup == "no DNS server answered in time"


@pytest.mark.requirement("SEC52")
async def test_every_query_has_an_unpredictable_id_of_its_own(nameserver: NameServer) -> None:
    drawn = iter([b"\x12\x34", b"\x56\x78"])
    seen: list[bytes] = []

    def recorded(wire: bytes) -> bytes:
        seen.append(wire[:2])
        return wire

    nameserver.mangle = recorded
    resolver = Resolver([nameserver.address], entropy=lambda _: next(drawn))
    await resolver.txt(NAME)
    await resolver.txt(NAME)
    assert seen == [b"\x12\x34", b"\x56\x78"]


@pytest.mark.parametrize("name", ["", "a..b", "_acme-challenge." + ".".join(["x" * 60] * 4), "ü.example.com"])
async def test_what_is_no_name_is_not_looked_up(nameserver: NameServer, name: str) -> None:
    assert await failure(nameserver.address, name=name) == "it is not a valid DNS name"
    assert nameserver.asked == []


async def test_ipv6_addresses_come_before_ipv4_addresses(nameserver: NameServer) -> None:
    nameserver.records = {(HOST, "A"): ["10.0.0.1", "10.0.0.2"], (HOST, "AAAA"): ["fd00::1"]}
    first, *others = await addresses(nameserver)
    assert first == "fd00::1"
    assert sorted(others) == ["10.0.0.1", "10.0.0.2"]  # in whatever order they came
    assert sorted(nameserver.asked) == [(HOST, "A", "udp"), (HOST, "AAAA", "udp")]


async def test_aliases_to_addresses_are_followed(nameserver: NameServer) -> None:
    nameserver.records = {
        (HOST, "CNAME"): ["a.example.net"],
        ("unchased", HOST): [],
        ("a.example.net", "CNAME"): ["b.example.net"],
        ("unchased", "a.example.net"): [],
        ("b.example.net", "A"): ["10.0.0.1"],
    }
    assert await addresses(nameserver) == ["10.0.0.1"]


async def test_a_name_that_does_not_exist_is_told(nameserver: NameServer) -> None:
    nameserver.records.clear()
    assert await failure_of_addresses(nameserver) == "the name does not exist (NXDOMAIN)"


async def test_a_name_without_addresses_is_told(nameserver: NameServer) -> None:
    nameserver.records = {(HOST, "TXT"): ["x"]}
    assert await failure_of_addresses(nameserver) == "the name has no address (no A and no AAAA records)"


async def test_an_answer_for_one_type_is_enough(nameserver: NameServer) -> None:
    nameserver.records[HOST, "A"] = ["10.0.0.1"]
    nameserver.mangle = lambda wire: [] if wire[wire.index(b"\x03com\0") + 6] == 28 else wire
    assert await addresses(nameserver, seconds=1.0) == ["10.0.0.1"]


@pytest.mark.requirement("M153", "SEC52")
async def test_only_so_many_addresses_are_used(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.records[HOST, "A"] = [f"10.0.0.{number}" for number in range(1, 90)]
    found = await addresses(nameserver)
    assert len(found) == 16
    assert (HOST, "A", "tcp") in nameserver.asked


async def test_two_queries_that_draw_the_same_id_get_their_answers(nameserver: NameServer) -> None:
    nameserver.records = {(HOST, "A"): ["10.0.0.1"], (HOST, "AAAA"): ["fd00::1"]}
    resolver = Resolver((nameserver.address,), entropy=bytes, timeout=2.0)
    assert [str(each) for each in await resolver.addresses(HOST)] == ["fd00::1", "10.0.0.1"]


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_addresses_that_no_server_can_tell_are_a_failure(nameserver: NameServer, rcode: str) -> None:
    nameserver.rcodes[HOST] = rcode
    assert await failure_of_addresses(nameserver) == f"the DNS servers answered {rcode}"


@pytest.mark.requirement("SEC52")
async def test_silence_about_addresses_is_given_up(nameserver: NameServer) -> None:
    nameserver.mute = True
    begun = time.monotonic()
    assert await failure_of_addresses(nameserver, seconds=0.1) == "no DNS server answered in time"
    assert time.monotonic() - begun < 10


def test_without_configured_servers_the_system_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.53\n")
    assert Resolver.build((), resolv_conf=str(path)).servers == (Address("192.0.2.53", 53),)


async def test_the_configured_servers_are_asked(nameserver: NameServer) -> None:
    nameserver.records[HOST, "A"] = ["10.0.0.1"]
    resolver = Resolver.build([nameserver.address], resolv_conf="/nonexistent")
    assert [str(each) for each in await resolver.addresses(HOST)] == ["10.0.0.1"]


def test_the_servers_of_the_system_come_from_its_resolv_conf(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("search cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n")
    assert system_servers(str(path)) == (Address("10.96.0.10", 53), Address("fd00::a", 53))


def test_a_system_without_servers_is_told(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nothing\n")
    with pytest.raises(OSError, match="--dns-server"):
        system_servers(str(path))


def test_a_server_must_be_an_address() -> None:
    with pytest.raises(ValueError, match=r"dns\.example"):
        Resolver.build((Address("dns.example.com", 53),))
