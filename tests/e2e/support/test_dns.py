"""The test DNS server, asked by dnspython's own client."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from e2e.support.dns import Addresses, Alias, Failure, Query, Records, Several, Silence, Zone, serving


@pytest.fixture
def zone() -> Zone:
    return Zone("demo.test", default=Addresses("127.0.0.1"))


@pytest.fixture
def ask(zone: Zone) -> Iterator[Ask]:
    with serving(zone) as address:
        yield Ask(address)


class Ask:
    """A client of one server."""

    def __init__(self, address: str) -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    def __call__(self, name: str, kind: str = "A", *, tcp: bool = False, timeout: float = 2.0) -> dns.message.Message:
        exchange = dns.query.tcp if tcp else dns.query.udp
        return exchange(dns.message.make_query(name, kind), self.host, port=self.port, timeout=timeout)

    def addresses(self, name: str, kind: str = "A") -> list[str]:
        return sorted(each.to_text() for rrset in self(name, kind).answer for each in rrset)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_every_name_of_the_zone_has_the_default_address(ask: Ask, tcp: bool) -> None:
    assert "127.0.0.1" in ask("any.thing.DEMO.test", tcp=tcp).answer[0].to_text()


def test_a_name_outside_the_zone_is_refused(ask: Ask) -> None:
    assert ask("example.org").rcode() == dns.rcode.REFUSED


def test_a_name_has_the_addresses_that_it_was_given_by_version(zone: Zone, ask: Ask) -> None:
    zone.set("two.demo.test", Addresses("127.0.0.2", "127.0.0.3", "::1"))
    assert ask.addresses("two.demo.test") == ["127.0.0.2", "127.0.0.3"]
    assert ask.addresses("two.demo.test", "AAAA") == ["::1"]
    assert ask.addresses("two.demo.test", "CAA") == []


def test_a_name_rebinds_after_its_first_answer_each_type_for_itself(zone: Zone, ask: Ask) -> None:
    zone.set("rebinding.demo.test", Addresses("127.0.0.1", "::1"), Addresses("169.254.169.254", "fe80::1"))
    assert [ask.addresses("rebinding.demo.test") for _ in range(3)] == [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["169.254.169.254"],
    ]
    assert ask.addresses("rebinding.demo.test", "AAAA") == ["::1"]


def test_a_name_may_be_given_other_answers_while_the_server_runs(zone: Zone, ask: Ask) -> None:
    zone.set("changing.demo.test", Failure("NXDOMAIN"))
    assert ask("changing.demo.test").rcode() == dns.rcode.NXDOMAIN
    zone.set("changing.demo.test")
    assert ask.addresses("changing.demo.test") == ["127.0.0.1"]


def test_a_name_may_be_an_alias(zone: Zone, ask: Ask) -> None:
    zone.set("alias.demo.test", Alias("target.demo.test"))
    assert ask.addresses("alias.demo.test") == ["target.demo.test."]


def test_a_name_may_have_records_of_any_type_beside_addresses(zone: Zone, ask: Ask) -> None:
    issuers = Records("CAA", '0 issue "pki.test; validationmethods=dns-01"', '128 iodef "mailto:a@demo.test"')
    zone.set("caa.demo.test", Several(Addresses("127.0.0.2", "::1"), issuers))
    assert ask.addresses("caa.demo.test", "CAA") == sorted(issuers.records)
    assert ask.addresses("caa.demo.test") == ["127.0.0.2"]
    assert ask.addresses("caa.demo.test", "AAAA") == ["::1"]
    assert ask.addresses("caa.demo.test", "TXT") == []


def test_a_text_may_come_in_several_strings(zone: Zone, ask: Ask) -> None:
    zone.set("strings.demo.test", Records("TXT", '"one" "two"', '"other"'))
    assert ask.addresses("strings.demo.test", "TXT") == ['"one" "two"', '"other"']


def test_published_texts_stand_beside_each_other_until_they_are_withdrawn(zone: Zone, ask: Ask) -> None:
    name = "_acme-challenge.demo.test"
    zone.publish(name, "one")
    zone.publish(f"{name}.", "two")
    assert ask.addresses(name.upper(), "TXT") == ['"one"', '"two"']
    assert ask.addresses(name) == ["127.0.0.1"]
    zone.withdraw(name, "one")
    assert ask.addresses(name, "TXT") == ['"two"']
    zone.withdraw(name, "two")
    zone.withdraw(name, "two")
    assert ask.addresses(name, "TXT") == []


def test_an_alias_of_a_name_with_published_texts_is_told_as_one(zone: Zone, ask: Ask) -> None:
    zone.set("_acme-challenge.a.demo.test", Alias("a.delegated.demo.test"))
    zone.publish("a.delegated.demo.test", "text")
    assert ask.addresses("_acme-challenge.a.demo.test", "TXT") == ["a.delegated.demo.test."]
    assert ask.addresses("a.delegated.demo.test", "TXT") == ['"text"']


def test_silence_runs_into_the_clients_limit(zone: Zone, ask: Ask) -> None:
    zone.set("silent.demo.test", Silence())
    with pytest.raises(dns.exception.Timeout):
        ask("silent.demo.test", timeout=0.2)
    assert list(zone.queries) == [Query("silent.demo.test", "A", "udp")]


def test_an_answer_may_come_late(zone: Zone, ask: Ask) -> None:
    zone.set("late.demo.test", Failure("SERVFAIL", delay=0.2))
    asked = time.monotonic()
    assert ask("late.demo.test").rcode() == dns.rcode.SERVFAIL
    assert time.monotonic() - asked >= 0.2


def test_an_answer_that_is_too_long_for_a_datagram_comes_whole_over_tcp(zone: Zone, ask: Ask) -> None:
    zone.set("long.demo.test", Addresses(*(f"127.0.1.{number}" for number in range(200))))
    assert ask("long.demo.test").flags & dns.flags.TC
    assert len(ask("long.demo.test", tcp=True).answer[0]) == 200


def test_what_is_not_a_query_is_not_answered(ask: Ask) -> None:
    response = dns.message.make_response(dns.message.make_query("any.demo.test", "A"))
    with pytest.raises(dns.exception.Timeout):
        dns.query.udp(response, ask.host, port=ask.port, timeout=0.2)


def test_a_taken_port_is_an_error(ask: Ask, zone: Zone) -> None:
    with pytest.raises(OSError, match="in use"), serving(zone, port=ask.port):
        pytest.fail("two servers on one port")


def test_the_command_line_serves_until_it_is_stopped() -> None:
    command = [sys.executable, "-m", "e2e.support.dns", "--zone", "cli.test", "--address", "127.0.0.9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        try:
            assert Ask(said.split()[-1]).addresses("a.cli.test") == ["127.0.0.9"]
        finally:
            server.terminate()


def test_the_command_line_refuses_what_is_not_an_address() -> None:
    command = [sys.executable, "-m", "e2e.support.dns", "--zone", "cli.test", "--address", "localhost"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "localhost is not an IP address" in refused.stderr
