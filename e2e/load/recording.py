"""The writes of one order, as our server sends them to the API server: recorded, kept in a file, replayed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import msgspec
import trustme
from aiohttp import web

from e2e.cluster import Cluster
from e2e.cluster.kubeconfig import Endpoint
from e2e.cluster.ports import LOOPBACK
from e2e.load.retained import one_certificate
from e2e.load.scenario import SetUpFailed, configure
from e2e.support.apiproxy import Proxy, serving
from e2e.support.programs import running_programs

STATUS = "/status"
_METHODS = ("POST", "PUT")
_VERSIONS = 3
"""Writes of an order: create, results of its challenges, certificate."""


class Write(msgspec.Struct, frozen=True):
    """One write: the method, "" or "/status", the Accept header, and the object."""

    method: str
    subresource: str
    accept: str
    body: msgspec.Raw


def record(cluster: Cluster, folder: Path) -> tuple[Write, ...]:
    """Order one certificate from a server that this starts and stops; its writes. CRDs and RBAC are installed.

    Raises:
        SetUpFailed: if a resource does not become ready, or the order takes another number of writes.
        ProgramFailed: if a program does not become ready.
    """
    found: list[Write] = []

    def observe(request: web.Request, body: bytes) -> None:
        _, separator, rest = request.path.partition("/acmeorders")
        if separator and request.method in _METHODS:
            subresource = STATUS if rest.endswith(STATUS) else ""
            found.append(Write(request.method, subresource, request.headers["Accept"], msgspec.Raw(body)))

    authority = trustme.CA()
    issued = authority.issue_cert(LOOPBACK)
    certificate, key, trust = (folder / name for name in ("proxy.crt", "proxy.key", "api.crt"))
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    trust.write_bytes(cluster.endpoint.ca_certificate)
    proxy = Proxy(cluster.endpoint.server, trust=trust, chance=random.random, observe=observe)
    with running_programs(cluster, folder) as programs, serving(proxy, certificate=certificate, key=key) as port:
        target = configure(cluster, programs, plane=folder / "cluster")
        programs.server.stop()
        server = programs.add_server(api=Endpoint(f"https://{LOOPBACK}:{port}", authority.cert_pem.bytes()))
        server.wait_until_ready()
        asyncio.run(one_certificate(replace(target, servers=(server.url,))))
        server.stop()
    if len(found) != _VERSIONS:
        raise SetUpFailed(f"the order took {len(found)} writes instead of {_VERSIONS}")
    return tuple(found)


def save(path: Path, writes: tuple[Write, ...]) -> None:
    """Write them to a file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(writes)) + b"\n")


def load(path: Path) -> tuple[Write, ...]:
    """Read them from a file.

    Raises:
        OSError: if it cannot be read.
        msgspec.DecodeError: if it has another format.
    """
    return msgspec.json.decode(path.read_bytes(), type=tuple[Write, ...])
