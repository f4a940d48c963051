from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator

import pytest

from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.records import Records, configured_records
from acme_server.validation.dns.servers import MAXIMUM_MESSAGE, LookupFailed
from kms.address import Address
from tests.support.nameserver import NameServer, running_nameserver

NAME = "_acme-challenge.web.example.com"


@pytest.fixture
async def nameserver() -> AsyncIterator[NameServer]:
    async with running_nameserver() as server:
        yield server


async def texts(*servers: Address, name: str = NAME, patience: float = 2.0) -> list[bytes]:
    return sorted((await Records(servers, timeout=patience).txt(name)).values)


async def why(*servers: Address, name: str = NAME, patience: float = 2.0) -> str:
    with pytest.raises(LookupFailed) as caught:
        await texts(*servers, name=name, patience=patience)
    return str(caught.value)


async def test_all_text_records_are_found_and_their_strings_joined(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"one"', '"t" "w" "o"']
    assert await texts(nameserver.address) == [b"one", b"two"]
    assert nameserver.asked == [(NAME, "TXT", "udp")]


async def test_properties_are_found(nameserver: NameServer) -> None:
    nameserver.records["example.com", "CAA"] = ['128 issue "ca.example.com; accounturi=x"', '0 iodef "mailto:a@b"']
    found = await Records([nameserver.address]).caa("example.com")
    assert set(found.values) == {
        Property(128, b"issue", b"ca.example.com; accounturi=x"),
        Property(0, b"iodef", b"mailto:a@b"),
    }


async def test_a_name_that_does_not_exist_differs_from_one_without_records(nameserver: NameServer) -> None:
    nameserver.records["web.example.com", "A"] = ["10.0.0.1"]
    records = Records([nameserver.address])
    assert (await records.txt("web.example.com")).exists
    assert not (await records.txt("other.example.com")).exists


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
    assert "CNAME" in await why(nameserver.address, name="a0.example.net")
    assert len(nameserver.asked) <= 8


@pytest.mark.requirement("SEC52")
async def test_aliases_that_go_in_circles_are_given_up(nameserver: NameServer) -> None:
    nameserver.records = {(NAME, "CNAME"): ["a.example.net"], ("a.example.net", "CNAME"): [NAME]}
    assert await why(nameserver.address) == "DNS answers are broken"


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
    assert await why(nameserver.address) == "DNS answers are broken"
    nameserver.hang_up = True
    assert await why(nameserver.address) == "DNS answers are broken"


@pytest.mark.requirement("SEC41")
async def test_an_answer_by_tcp_that_is_too_long_is_not_read(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.records[NAME, "TXT"] = [f'"{number:0255}"' for number in range(MAXIMUM_MESSAGE // 255 + 1)]
    assert await why(nameserver.address) == "DNS answers are broken"


@pytest.mark.requirement("SEC52")
@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_a_server_that_cannot_tell_is_a_failure(nameserver: NameServer, rcode: str) -> None:
    nameserver.rcodes[NAME] = rcode  # SERVFAIL is what a failed DNSSEC validation looks like
    assert await why(nameserver.address) == f"the DNS servers cannot tell ({rcode})"


@pytest.mark.requirement("SEC52")
async def test_records_beside_a_failure_do_not_count(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"x"']
    nameserver.mangle = lambda wire: wire[:3] + bytes([wire[3] | 2]) + wire[4:]
    assert "SERVFAIL" in await why(nameserver.address)
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
    assert "cannot be reached" in await why(gone)


@pytest.mark.requirement("SEC52")
async def test_a_server_that_is_slow_or_silent_is_given_up(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"x"']
    nameserver.delays[NAME] = 30.0
    begun = time.monotonic()
    assert await why(nameserver.address, patience=0.1) == "no DNS server has answered in time"
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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        assert "in time" in await why(nameserver.address, patience=0.1)


@pytest.mark.requirement("SEC52")
async def test_every_query_has_an_unpredictable_id_of_its_own(nameserver: NameServer) -> None:
    drawn = iter([b"\x12\x34", b"\x56\x78"])
    seen: list[bytes] = []

    def recorded(wire: bytes) -> bytes:
        seen.append(wire[:2])
        return wire

    nameserver.mangle = recorded
    records = Records([nameserver.address], entropy=lambda _: next(drawn))
    await records.txt(NAME)
    await records.txt(NAME)
    assert seen == [b"\x12\x34", b"\x56\x78"]


@pytest.mark.parametrize("name", ["a..b", "_acme-challenge." + ".".join(["x" * 60] * 4), "ü.example.com"])
async def test_what_is_no_name_is_not_looked_up(nameserver: NameServer, name: str) -> None:
    assert await why(nameserver.address, name=name) == "it is not a name that DNS can have"
    assert nameserver.asked == []


async def test_the_configured_servers_are_asked(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = ['"x"']
    assert (await configured_records([nameserver.address]).txt(NAME)).values == (b"x",)
    with pytest.raises(ValueError, match=r"dns\.example"):
        configured_records([Address("dns.example.com", 53)])
