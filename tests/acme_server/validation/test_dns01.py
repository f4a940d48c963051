from __future__ import annotations

import hmac
from hashlib import sha256

import pytest

from acme_server.problems import ProblemType
from acme_server.settings import ValidationSettings
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.dns01 import DNS01
from kms.resources.orders import Identifier
from tests.support.acme import b64
from tests.support.nameserver import NameServer

NAME = "_acme-challenge.web.example.com"
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDf"
KEY_AUTHORIZATION = f"{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
VALUE = b64(sha256(KEY_AUTHORIZATION.encode()).digest())
SECRET = "secret-of-a-neighbour"


async def validated(nameserver: NameServer, name: str = "web.example.com") -> None:
    validator = DNS01(Resolver([nameserver.address], timeout=2.0))
    await validator(Identifier(type="dns", value=name), TOKEN, KEY_AUTHORIZATION)


async def failure(nameserver: NameServer, name: str = "web.example.com") -> ValidationFailed:
    with pytest.raises(ValidationFailed) as caught:
        await validated(nameserver, name)
    assert SECRET not in caught.value.problem.detail
    assert VALUE not in caught.value.problem.detail
    return caught.value


@pytest.mark.requirement("M151", "SEC52")
@pytest.mark.parametrize(
    "records",
    [
        [f'"{VALUE}"'],
        [f'"{SECRET}"', '"v=spf1 -all"', f'"{VALUE}"', '""'],
        [f'"{VALUE[:20]}" "" "{VALUE[20:]}"'],
    ],
    ids=["the only record", "one of several", "in several strings"],
)
async def test_the_digest_in_a_text_record_proves_control(nameserver: NameServer, records: list[str]) -> None:
    nameserver.records[NAME, "TXT"] = records
    await validated(nameserver)


@pytest.mark.requirement("M151", "SEC52")
async def test_the_record_may_be_where_an_alias_leads(nameserver: NameServer) -> None:
    nameserver.records[NAME, "CNAME"] = ["web.challenges.example.net"]
    nameserver.records["web.challenges.example.net", "TXT"] = [f'"{VALUE}"']
    await validated(nameserver)


@pytest.mark.requirement("M153")
async def test_a_value_among_more_than_a_datagram_holds_is_found(nameserver: NameServer) -> None:
    nameserver.truncate_udp = True
    nameserver.records[NAME, "TXT"] = [*(f'"{number:0150}"' for number in range(50)), f'"{VALUE}"']
    await validated(nameserver)


@pytest.mark.parametrize("value", [VALUE[:-1], f"{VALUE}=", f" {VALUE}", VALUE.lower(), KEY_AUTHORIZATION, TOKEN, ""])
async def test_nothing_but_the_exact_value_proves_control(nameserver: NameServer, value: str) -> None:
    nameserver.records[NAME, "TXT"] = [f'"{value}"']
    failed = await failure(nameserver)
    assert failed.problem.type == ProblemType.UNAUTHORIZED
    assert failed.problem.detail == (
        f"The TXT record of {NAME} is not the digest of this challenge's key authorization: "
        "SHA-256 in base64url, 43 characters."
    )


async def test_several_records_of_which_none_matches_are_counted_and_not_repeated(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = [f'"{SECRET}"', f'"{SECRET}2"']
    failed = await failure(nameserver)
    assert failed.problem.detail.startswith(f"None of the 2 TXT records of {NAME} is the digest of")
    assert failed.temporary  # the servers of the zone may not all know the new one yet


async def test_a_record_at_the_name_itself_does_not_count(nameserver: NameServer) -> None:
    nameserver.records["web.example.com", "TXT"] = [f'"{VALUE}"']
    failed = await failure(nameserver)
    assert failed.problem.type == ProblemType.DNS
    assert failed.problem.detail == f"The name {NAME} does not exist (NXDOMAIN)."
    assert failed.temporary


async def test_a_name_without_text_records_is_told(nameserver: NameServer) -> None:
    nameserver.records[NAME, "A"] = ["10.0.0.1"]
    failed = await failure(nameserver)
    assert failed.problem.type == ProblemType.UNAUTHORIZED
    assert f"{NAME} has no TXT record; it needs one with the digest" in failed.problem.detail


@pytest.mark.requirement("SEC52")
async def test_a_failed_lookup_is_a_dns_problem_whatever_the_answer_holds(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = [f'"{VALUE}"']
    nameserver.mangle = lambda wire: wire[:3] + bytes([wire[3] | 2]) + wire[4:]  # as where DNSSEC validation fails
    failed = await failure(nameserver)
    assert failed.problem.type == ProblemType.DNS
    assert failed.problem.detail == (f"The DNS lookup (TXT) of {NAME} failed: the DNS servers answered SERVFAIL.")
    assert failed.temporary


async def test_a_name_that_is_too_long_for_the_label_is_told(nameserver: NameServer) -> None:
    failed = await failure(nameserver, ".".join(["x" * 60] * 4))
    assert failed.problem.type == ProblemType.DNS
    assert "not a valid DNS name" in failed.problem.detail


@pytest.mark.requirement("IP-M5")
async def test_an_ip_address_is_never_proven(nameserver: NameServer) -> None:
    with pytest.raises(ValidationFailed, match="RFC 8738"):
        await DNS01(Resolver([nameserver.address]))(Identifier(type="ip", value="10.0.0.1"), TOKEN, KEY_AUTHORIZATION)
    assert nameserver.asked == []


async def test_every_record_is_compared_in_constant_time(
    nameserver: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = hmac.compare_digest

    def recorded(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", recorded)
    nameserver.records[NAME, "TXT"] = [f'"{VALUE}"', '"a"', '"b"']
    await validated(nameserver)
    assert sorted(compared) == sorted([VALUE.encode(), b"a", b"b"])


async def test_the_settings_make_a_validator(nameserver: NameServer) -> None:
    nameserver.records[NAME, "TXT"] = [f'"{VALUE}"']
    validator = DNS01.build(ValidationSettings(resolvers=(nameserver.address,)))
    await validator(Identifier(type="dns", value="web.example.com"), TOKEN, KEY_AUTHORIZATION)
