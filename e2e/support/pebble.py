"""A public CA for tests: Pebble, the ACME server of Let's Encrypt for tests, which validates for real.

    with serving(tmp_path, nameserver="127.0.0.1:5300") as ca: ...

It asks one nameserver, takes no more time than it needs, and refuses no good nonces.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from e2e.cluster import Process
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import last_lines
from e2e.support.tools import PEBBLE, required

_START_LIMIT = 20.0
_ASK_LIMIT = 0.5


class PebbleFailed(Exception):
    """The server did not start; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class PublicCA:
    """The URL of its directory, the CA of its TLS certificate and the root of what it issues, both in PEM."""

    directory_url: str
    tls_ca: str
    root: str


@contextmanager
def serving(folder: Path, *, nameserver: str, refused: Sequence[str] = ()) -> Iterator[PublicCA]:
    """Run Pebble, with all files in the existing `folder`; it asks `nameserver` (host:port), and refuses some domains.

    Tests are skipped if the program is not available (see e2e.support.tools).

    Raises:
        PebbleFailed: the server does not start.
    """
    program, log = required(PEBBLE), folder / "pebble.log"
    tls, acme, management = trustme.CA(), free_port(), free_port()
    served = tls.issue_cert(LOOPBACK)
    served.private_key_pem.write_to_path(str(folder / "pebble.key"))
    served.cert_chain_pems[0].write_to_path(str(folder / "pebble.crt"))
    configuration = folder / "pebble.json"
    configuration.write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": f"{LOOPBACK}:{acme}",
                    "managementListenAddress": f"{LOOPBACK}:{management}",
                    "certificate": str(folder / "pebble.crt"),
                    "privateKey": str(folder / "pebble.key"),
                    "httpPort": free_port(),
                    "tlsPort": free_port(),
                    "keyAlgorithm": "ecdsa",
                    "domainBlocklist": list(refused),
                    "profiles": {"default": {"description": "for tests", "validityPeriod": 90 * 86_400}},
                }
            }
        ),
        encoding="utf-8",
    )
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    process = Process.start(
        [program, f"-config={configuration}", f"-dnsserver={nameserver}", "-strict=true"],
        log=log,
        env={**os.environ, **quick},
    )
    authority = tls.cert_pem.bytes().decode()
    context = ssl.create_default_context(cadata=authority)
    try:
        deadline = time.monotonic() + _START_LIMIT
        while (root := _root(f"https://{LOOPBACK}:{management}/roots/0", context)) is None:
            if not process.running() or time.monotonic() > deadline:
                raise PebbleFailed(f"Pebble does not answer. The end of its log:\n{last_lines(log)}")
        yield PublicCA(f"https://{LOOPBACK}:{acme}/dir", authority, root)
    finally:
        process.stop(_ASK_LIMIT * 10)


def _root(url: str, context: ssl.SSLContext) -> str | None:
    """The root that it has made at its start; None while it does not answer."""
    try:
        with urlopen(url, timeout=_ASK_LIMIT, context=context) as answer:  # noqa: S310 - our own URL
            pem: bytes = answer.read()
    except OSError:  # connection refused: not listening yet
        time.sleep(_ASK_LIMIT / 10)
        return None
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.PEM).decode()
