"""Other ACME servers to compare with: step-ca and Pebble, each as its project starts it for ACME.

Both are built from Go modules (see e2e.support.tools) and get CA keys on P-256, as ours. step-ca stores in its embedded
database (badger), Pebble in memory only. Pebble sleeps before validations and refuses nonces at random, to test
clients; that is off.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trustme

from e2e.cluster import Process
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import Deadline, last_lines
from e2e.load.exchange import USER_AGENT
from e2e.load.measure import SERVER, Target
from e2e.load.scenario import SetUpFailed, guarded_pid
from e2e.support import tools
from e2e.support.programs import START_LIMIT, Validation

HOST = "localhost"
STOP_LIMIT = 10.0
_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Setup:
    """How to start a server: the arguments of its program, the path of its directory, the CA to trust in PEM."""

    arguments: Sequence[str | Path]
    directory: str
    authority: bytes
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Peer:
    """An ACME server to compare with.

    `prepare` writes its configuration into a folder, for a port and the ports of validation. `told` says what a reader
    must know of it.
    """

    tool: tools.Tool
    prepare: Callable[[Path, int, Validation], Setup]
    told: str


def prepare_step_ca(folder: Path, port: int, validation: Validation) -> Setup:
    """Configure step-ca as `step ca init` does, with a provisioner of the type ACME."""
    root = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issuing = root.create_child_ca(key_type=trustme.KeyType.ECDSA)
    root.cert_pem.write_to_path(folder / "root.crt")
    issuing.cert_pem.write_to_path(folder / "issuing.crt")
    issuing.private_key_pem.write_to_path(folder / "issuing.key")
    configuration = {
        "root": f"{folder / 'root.crt'}",
        "crt": f"{folder / 'issuing.crt'}",
        "key": f"{folder / 'issuing.key'}",
        "address": f"{LOOPBACK}:{port}",
        "dnsNames": [HOST],
        "logger": {"format": "text"},
        "db": {"type": "badgerv2", "dataSource": f"{folder / 'db'}", "badgerFileLoadingMode": ""},
        "authority": {"provisioners": [{"type": "ACME", "name": "acme"}]},
    }
    arguments = (
        *(_written(folder / "ca.json", configuration), f"--resolver={LOOPBACK}:{validation.dns_port}", "--insecure"),
        *(f"--acme-http-port={validation.http01_port}", f"--acme-tls-port={validation.tls_alpn01_port}"),
    )
    return Setup(arguments, "/acme/acme/directory", root.cert_pem.bytes())


def prepare_pebble(folder: Path, port: int, validation: Validation) -> Setup:
    """Configure Pebble as its project does, with ECDSA, and without the faults that it makes on purpose."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    own = authority.issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    own.cert_chain_pems[0].write_to_path(folder / "server.crt")
    own.private_key_pem.write_to_path(folder / "server.key")
    configuration = {
        "pebble": {
            "listenAddress": f"{LOOPBACK}:{port}",
            "certificate": f"{folder / 'server.crt'}",
            "privateKey": f"{folder / 'server.key'}",
            "httpPort": validation.http01_port,
            "tlsPort": validation.tls_alpn01_port,
            "keyAlgorithm": "ecdsa",
        }
    }
    arguments = (
        f"-config={_written(folder / 'pebble.json', configuration)}",
        f"-dnsserver={LOOPBACK}:{validation.dns_port}",
    )
    environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    return Setup(arguments, "/dir", authority.cert_pem.bytes(), environment)


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "step-ca": Peer(tools.STEP_CA, prepare_step_ca, "step-ca 0.30.2 with its embedded database"),
        "pebble": Peer(tools.PEBBLE, prepare_pebble, "Pebble 2.10.3, which stores in memory only"),
    }
)
"""The servers that we compare with; versions are those of the Go modules in binaries/."""


@contextmanager
def running_peer(name: str, folder: Path, validation: Validation) -> Iterator[Target]:
    """Build a server if need be, and run it for the duration of the block, with its files in `folder`.

    Raises:
        tools.Missing: if it cannot be built.
        SetUpFailed: if it does not become ready.
    """
    peer, port, log = PEERS[name], free_port(), folder / f"{name}.log"
    program = tools.find(peer.tool)
    setup = peer.prepare(folder, port, validation)
    process = Process.start((program, *setup.arguments), log=log, env={**os.environ, **setup.environment})
    try:
        tls = ssl.create_default_context(cadata=setup.authority.decode("ascii"))
        _wait_until_ready(process, port, setup.directory, tls, log)
        yield Target(
            name=name,
            directory_url=f"https://{HOST}:{port}{setup.directory}",
            tls=tls,
            external_account=None,
            http_port=validation.http01_port,
            dns_port=validation.dns_port,
            tls_alpn_port=validation.tls_alpn01_port,
            pids={SERVER: guarded_pid(process.pid)},
            lenient=True,
        )
    finally:
        process.stop(STOP_LIMIT)


def _written(file: Path, configuration: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    return file


def _wait_until_ready(process: Process, port: int, directory: str, tls: ssl.SSLContext, log: Path) -> None:
    deadline = Deadline(START_LIMIT)
    while not _answers(port, directory, tls):
        if not process.running() or not deadline:
            raise SetUpFailed(f"{log.stem} does not become ready. The end of its log:\n{last_lines(log)}")
        time.sleep(_POLL)


def _answers(port: int, directory: str, tls: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection(HOST, port, timeout=5, context=tls)
    try:
        connection.request("GET", directory, headers={"User-Agent": USER_AGENT})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
