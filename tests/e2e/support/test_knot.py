"""The real DNS server of the tests: who has the key changes its zone, nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

from e2e.cluster.ports import LOOPBACK, free_port
from e2e.support import knot

pytestmark = pytest.mark.node  # the program comes from Debian, as those of a node do
NAME = "_acme-challenge.shop.test."


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def key(port: int, tmp_path: Path) -> Iterator[knot.TSIGKey]:
    with knot.serving("test", host=LOOPBACK, port=port, folder=tmp_path) as opened:
        yield opened


def changed(port: int, secret: str) -> int:
    """The code of the answer to an update that is signed with this secret."""
    signer = dns.tsig.Key("acme", secret, knot.ALGORITHM)
    update = dns.update.UpdateMessage("test", keyring=signer)
    update.add(NAME, 1, "TXT", "a-text")
    return dns.query.udp(update, LOOPBACK, timeout=5, port=port).rcode()


def texts(port: int) -> list[str]:
    answer = dns.query.tcp(dns.message.make_query(NAME, "TXT"), LOOPBACK, timeout=5, port=port)
    return [str(each) for rrset in answer.answer for each in rrset]


def test_who_has_the_key_publishes_a_record(port: int, key: knot.TSIGKey) -> None:
    assert changed(port, key.secret) == dns.rcode.NOERROR
    assert texts(port) == ['"a-text"']


def test_who_has_another_key_does_not(port: int, key: knot.TSIGKey) -> None:
    with pytest.raises(dns.tsig.PeerBadSignature):
        changed(port, "A" * 44)
    assert texts(port) == []
