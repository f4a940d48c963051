from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from acme_server.validation.dns import servers as module
from acme_server.validation.dns.client import Resolver, configured
from acme_server.validation.dns.servers import LookupFailed, system_servers
from kms.address import Address
from tests.support.nameserver import NameServer, running_nameserver

NAME = "web.example.com"


@pytest.fixture
async def nameserver() -> AsyncIterator[NameServer]:
    async with running_nameserver() as server:
        yield server


async def found(*servers: Address, name: str = NAME, patience: float = 2.0) -> list[str]:
    return [str(each) for each in await Resolver(servers, timeout=patience).addresses(name)]


async def why(*servers: Address, name: str = NAME, patience: float = 2.0) -> str:
    with pytest.raises(LookupFailed) as caught:
        await found(*servers, name=name, patience=patience)
    return str(caught.value)


async def test_ipv6_addresses_come_before_ipv4_addresses(nameserver: NameServer) -> None:
    nameserver.records = {(NAME, "A"): ["10.0.0.1", "10.0.0.2"], (NAME, "AAAA"): ["fd00::1"]}
    first, *others = await found(nameserver.address)
    assert first == "fd00::1"
    assert sorted(others) == ["10.0.0.1", "10.0.0.2"]  # in whatever order they came
    assert sorted(nameserver.asked) == [(NAME, "A", "udp"), (NAME, "AAAA", "udp")]


@pytest.mark.requirement("SEC52")
async def test_aliases_are_followed(nameserver: NameServer) -> None:
    nameserver.records = {(NAME, "CNAME"): ["a.example.net"], ("a.example.net", "A"): ["10.0.0.1"]}
    assert await found(nameserver.address) == ["10.0.0.1"]


async def test_aliases_that_the_server_leaves_to_us_are_followed(nameserver: NameServer) -> None:
    nameserver.records = {
        (NAME, "CNAME"): ["a.example.net"],
        ("unchased", NAME): [],
        ("a.example.net", "CNAME"): ["b.example.net"],
        ("unchased", "a.example.net"): [],
        ("b.example.net", "A"): ["10.0.0.1"],
    }
    assert await found(nameserver.address) == ["10.0.0.1"]


@pytest.mark.requirement("SEC52")
async def test_aliases_without_an_end_are_given_up(nameserver: NameServer) -> None:
    for number in range(20):
        nameserver.records[f"a{number}.example.net", "CNAME"] = [f"a{number + 1}.example.net"]
        nameserver.records["unchased", f"a{number}.example.net"] = []
    assert "CNAME" in await why(nameserver.address, name="a0.example.net")
    assert len(nameserver.asked) <= 16


async def test_aliases_that_go_in_circles_are_given_up(nameserver: NameServer) -> None:
    nameserver.records = {(NAME, "CNAME"): ["a.example.net"], ("a.example.net", "CNAME"): [NAME]}
    await why(nameserver.address)


async def test_a_name_that_does_not_exist_is_told(nameserver: NameServer) -> None:
    assert await why(nameserver.address) == "the name does not exist (NXDOMAIN)"


async def test_a_name_without_addresses_is_told(nameserver: NameServer) -> None:
    nameserver.records = {(NAME, "TXT"): ["x"]}
    assert await why(nameserver.address) == "the name has no address (no A and no AAAA records)"


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_a_server_that_cannot_tell_is_a_failure(nameserver: NameServer, rcode: str) -> None:
    nameserver.rcodes[NAME] = rcode  # SERVFAIL is what a failed DNSSEC validation looks like
    assert rcode in await why(nameserver.address)


async def test_addresses_beside_a_failure_do_not_count(nameserver: NameServer) -> None:
    nameserver.records[NAME, "A"] = ["10.0.0.1"]
    nameserver.mangle = lambda wire: wire[:3] + bytes([wire[3] | 2]) + wire[4:]
    assert await why(nameserver.address) == "the DNS servers cannot tell (SERVFAIL)"


async def test_the_next_server_is_asked_when_one_cannot_tell(nameserver: NameServer) -> None:
    async with running_nameserver() as broken:
        broken.rcodes[NAME] = "SERVFAIL"
        nameserver.records[NAME, "A"] = ["10.0.0.1"]
        assert await found(broken.address, nameserver.address) == ["10.0.0.1"]


async def test_the_next_server_is_asked_when_one_is_not_there(nameserver: NameServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        gone = Address("127.0.0.1", free.getsockname()[1])
    nameserver.records[NAME, "A"] = ["10.0.0.1"]
    assert await found(gone, nameserver.address) == ["10.0.0.1"]
    assert "cannot be reached" in await why(gone)


async def test_the_next_server_is_asked_when_one_is_silent(nameserver: NameServer) -> None:
    async with running_nameserver() as silent:
        silent.mute = True
        nameserver.records[NAME, "A"] = ["10.0.0.1"]
        assert await found(silent.address, nameserver.address) == ["10.0.0.1"]


@pytest.mark.requirement("SEC52")
async def test_silence_is_given_up(nameserver: NameServer) -> None:
    nameserver.mute = True
    begun = time.monotonic()
    assert "in time" in await why(nameserver.address, patience=0.1)
    assert time.monotonic() - begun < 10


async def test_an_answer_for_one_type_is_enough(nameserver: NameServer) -> None:
    nameserver.records[NAME, "A"] = ["10.0.0.1"]
    nameserver.mangle = lambda wire: [] if wire[wire.index(b"\x03com\0") + 6] == 28 else wire
    assert await found(nameserver.address, patience=1.0) == ["10.0.0.1"]


@pytest.mark.requirement("M153", "SEC52")
async def test_truncated_answers_are_fetched_by_tcp(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.records[NAME, "A"] = [f"10.0.0.{number}" for number in range(1, 90)]
    addresses = await found(nameserver.address)
    assert len(addresses) == 16
    assert (NAME, "A", "tcp") in nameserver.asked


@pytest.mark.requirement("SEC52")
async def test_answers_that_were_not_asked_for_are_passed_over(nameserver: NameServer) -> None:
    nameserver.records[NAME, "A"] = ["10.0.0.1"]

    def flooded(wire: bytes) -> list[bytes]:
        forged = bytes((wire[0] ^ 1,)) + wire[1:].replace(b"\x0a\0\0\x01", b"\x0a\x06\x06\x06")
        other = wire[:12] + wire[12:].replace(b"\x03web", b"\x03wab")
        return [b"", b"x", forged, other, wire[:20], wire]

    nameserver.mangle = flooded
    assert await found(nameserver.address) == ["10.0.0.1"]


async def test_a_broken_answer_by_tcp_is_a_failure(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.truncate_tcp = True
    nameserver.records[NAME, "A"] = ["10.0.0.1"]
    assert await why(nameserver.address) == "DNS answers are broken"
    nameserver.hang_up = True
    assert await why(nameserver.address) == "DNS answers are broken"


@pytest.mark.parametrize("name", ["", "a..b", "ü.example.com"])
async def test_what_is_no_name_is_not_looked_up(nameserver: NameServer, name: str) -> None:
    await why(nameserver.address, name=name)
    assert nameserver.asked == []


async def test_every_query_has_an_id_of_its_own(nameserver: NameServer) -> None:
    drawn = iter(bytes((number, number)) for number in range(200))
    resolver = Resolver((nameserver.address,), entropy=lambda _: next(drawn))
    nameserver.records[NAME, "A"] = ["10.0.0.1"]
    await resolver.addresses(NAME)
    await resolver.addresses(NAME)
    assert next(drawn)[0] == 4


async def test_two_queries_that_draw_the_same_id_get_their_answers(nameserver: NameServer) -> None:
    nameserver.records = {(NAME, "A"): ["10.0.0.1"], (NAME, "AAAA"): ["fd00::1"]}
    resolver = Resolver((nameserver.address,), entropy=bytes, timeout=2.0)
    assert [str(each) for each in await resolver.addresses(NAME)] == ["fd00::1", "10.0.0.1"]


async def test_without_configured_servers_the_system_is_asked(
    monkeypatch: pytest.MonkeyPatch, nameserver: NameServer
) -> None:
    monkeypatch.setattr(module, "system_servers", lambda: (nameserver.address,))
    nameserver.records[NAME, "A"] = ["10.0.0.1"]
    assert [str(each) for each in await configured(()).addresses(NAME)] == ["10.0.0.1"]


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
        configured((Address("dns.example.com", 53),))
