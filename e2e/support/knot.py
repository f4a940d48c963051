"""A real DNS server for tests: Knot DNS with one zone, which clients update by RFC 2136 with a TSIG key.

    with serving("test", host="10.100.0.1", port=53, folder=tmp_path) as key: ...

For hostile answers, use e2e.support.dns.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode

from e2e.cluster import Process
from e2e.cluster.processes import last_lines
from e2e.support.tools import KNOT, required

ALGORITHM = "hmac-sha256"
_START_LIMIT = 20.0
_ASK_LIMIT = 0.5
_CONFIGURATION = """
server:
    listen: {host}@{port}
    rundir: {folder}
database:
    storage: {folder}
log:
  - target: stdout
    any: info
key:
  - id: {key.name}
    algorithm: {algorithm}
    secret: {key.secret}
acl:
  - id: updates
    key: {key.name}
    action: update
zone:
  - domain: {zone}
    storage: {folder}
    file: zone
    acl: updates
"""
_ZONE = """$ORIGIN {zone}.
$TTL 1
@ SOA ns hostmaster 1 60 60 3600 1
@ NS ns
ns A {host}
"""


class KnotFailed(Exception):
    """The server did not start; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class TSIGKey:
    """A TSIG key that permits updates (RFC 8945); `secret` is base64."""

    name: str
    secret: str


@contextmanager
def serving(zone: str, *, host: str, port: int, folder: Path) -> Iterator[TSIGKey]:
    """Serve an empty zone over UDP and TCP, with all files in the existing `folder`.

    Tests are skipped if the program is not available (see e2e.support.tools).

    Raises:
        KnotFailed: the server does not start.
    """
    program, log = required(KNOT), folder / "log"
    key = TSIGKey("acme", base64.b64encode(secrets.token_bytes(32)).decode())
    (folder / "zone").write_text(_ZONE.format(zone=zone, host=host), encoding="ascii")
    configuration = folder / "knot.conf"
    configuration.write_text(
        _CONFIGURATION.format(zone=zone, host=host, port=port, folder=folder, key=key, algorithm=ALGORITHM),
        encoding="ascii",
    )
    process = Process.start([program, f"--config={configuration}"], log=log)
    try:
        deadline = time.monotonic() + _START_LIMIT
        while not _answers(zone, host, port):
            if not process.running() or time.monotonic() > deadline:
                raise KnotFailed(f"knotd does not answer. The end of its log:\n{last_lines(log)}")
        yield key
    finally:
        process.stop(_ASK_LIMIT * 10)


def _answers(zone: str, host: str, port: int) -> bool:
    try:
        answer = dns.query.udp(dns.message.make_query(zone, "SOA"), host, timeout=_ASK_LIMIT, port=port)
    except (OSError, dns.exception.Timeout):
        time.sleep(_ASK_LIMIT / 10)  # connection refused: not listening yet
        return False
    return answer.rcode() == dns.rcode.NOERROR
